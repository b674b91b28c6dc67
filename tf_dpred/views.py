"""The two views of an image as a Keras layer, for any pipeline."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tf_dpred.data import image_ops
from tf_dpred.data.random_views import NUM_DRAWS, distort_each, random_crops
from tf_dpred.data.views import ViewPair, ViewSpec, view_pair

__all__ = ["TwoViews", "ViewPair", "ViewSpec"]


@keras.saving.register_keras_serializable("tf_dpred")
class TwoViews(keras.layers.Layer):
    """Two random views of each image, by a recipe of this package.

        images.map(TwoViews("byol", image_size=224)).batch(256)  # image by image
        images.batch(256).map(TwoViews("cifar", image_size=32))  # or batch by batch

    It draws anew at each call, in training and outside of it; as other random layers of
    Keras do, from a generator whose state is a variable. Where a pipeline runs calls in
    parallel, which image gets which numbers is up to chance then: give each its own
    `seed` in the call where that matters, as `Pretraining(..., views=...)` does.

    Args:
      recipe: "byol", "simclr", "stl10", "cifar", "digits" (docs/data.md), or a
        `ViewPair` of two `ViewSpec`s.
      image_size: side S of a view in pixels.
      strength: of the colour jitter of "simclr", at least 0.
      seed: of the generator, an integer; None: another one each time.

    Raises:
      Refused: unknown recipe, or a strength that it does not have.
    """

    def __init__(
        self,
        recipe: str | ViewPair = "byol",
        image_size: int = 224,
        *,
        strength: float = 1.0,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        if isinstance(recipe, str):
            self.pair = view_pair(recipe, strength)
        else:
            self.pair = ViewPair(*recipe)
        self.recipe, self.image_size = recipe, image_size
        self.strength, self.seed = strength, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, *, seed=None) -> tuple[tf.Tensor, tf.Tensor]:
        """Two views of an image, or of each image of a batch.

        Args:
          images: [H, W, 3] or [B, H, W, 3], uint8, or of other types in [0, 255].
          seed: two integers; the same ones give the same views. None: the generator's.

        Returns:
          Two tensors, uint8 [S, S, 3] or [B, S, S, 3].
        """
        if images.shape.rank not in (3, 4):
            raise ValueError(
                f"TwoViews: received images {images.shape}, accepted: [height, width, "
                "3] or [batch, height, width, 3]."
            )
        seed = self.generator.next() if seed is None else seed
        batch = images if images.shape.rank == 4 else images[tf.newaxis]
        shape = [tf.shape(batch)[0], 2, NUM_DRAWS]
        draws = tf.random.stateless_uniform(shape, tf.cast(seed, tf.int64))
        views = self._views(_pixels(batch), draws)
        if images.shape.rank == 3:
            views = tuple(view[0] for view in views)
        return views

    def _views(self, batch: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size = self.image_size
        crop = tf.TensorSpec([size, size, 3], tf.uint8)

        def crops(image_and_draws) -> tuple[tf.Tensor, tf.Tensor]:
            image, draws = image_and_draws
            return tuple(random_crops(image, self.pair, size, draws))

        both = tf.map_fn(crops, (batch, draws), fn_output_signature=(crop, crop))
        return tuple(
            distort_each(spec)(crops, draws[:, place])
            for place, (spec, crops) in enumerate(zip(self.pair, both, strict=True))
        )

    def compute_output_spec(self, images, *, seed=None):
        shape = (*images.shape[:-3], self.image_size, self.image_size, 3)
        return tuple(keras.KerasTensor(shape, "uint8") for _ in range(2))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "recipe": self.recipe
            if isinstance(self.recipe, str)
            else self.pair.to_list(),
            "image_size": self.image_size,
            "strength": self.strength,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TwoViews:
        recipe = config["recipe"]
        if not isinstance(recipe, str):
            config = {**config, "recipe": ViewPair.from_list(recipe)}
        return cls(**config)


def _pixels(batch: tf.Tensor) -> tf.Tensor:
    """Images [B, H, W, 1 or 3] in [0, 255] as uint8 [B, H, W, 3]."""
    if batch.dtype.is_floating:
        highest = tf.reduce_max(batch)
        message = [
            "TwoViews: received values up to",
            highest,
            "accepted: values in [0, 255].",
        ]
        # A dark image may have no value above 1, but no image in [0, 1] is so dark.
        dark = tf.reduce_mean(batch) * 255 < 1
        checked = tf.debugging.Assert((highest > 1) | dark, message)
        with tf.control_dependencies([checked]):
            batch = tf.identity(batch)
    if batch.dtype != tf.uint8:
        batch = image_ops.to_uint8(tf.cast(batch, tf.float32))
    return tf.repeat(batch, 3, axis=-1) if batch.shape[-1] == 1 else batch
