"""How well an encoder knows held-out images by their views: no labels are needed."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tf_dpred import quality
from tf_dpred.config import Config
from tf_dpred.data import datasets, pipeline
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.own_views import OwnViews
from tf_dpred.data.source import Source
from tf_dpred.data.views import ViewPair
from tf_dpred.evaluation.features import Outputs

IMAGES = 512
# Of the choice of images and of their views: the same for all runs, and another one
# than that of the training views.
SEED = 2**31 - 1
# Of the names of measures, by the network's output that they are of.
PARTS = ("", "projection_")


@dataclasses.dataclass(frozen=True)
class HeldOutViews:
    """Two views of each of some images, by a run's own recipe; always the same.

    Attributes:
      first, second: uint8 [n, S, S, 3].
      held_out: the images are no training images.
    """

    first: np.ndarray
    second: np.ndarray
    held_out: bool

    @classmethod
    def of_source(
        cls, source: Source, held_out: bool, pair: ViewPair | OwnViews, size: int
    ) -> HeldOutViews:
        """The views of some images of `held_out_source`, at most `IMAGES`."""
        count = min(IMAGES, source.num_examples)
        views = pipeline.training_views(source, pair, size, count, seed=SEED)
        first, second = next(iter(views))
        return cls(first.numpy(), second.numpy(), held_out)

    def resized(self, size: int) -> HeldOutViews:
        """The same views for a network of another input size."""
        if size == self.first.shape[1]:
            return self

        def to_size(images: np.ndarray) -> np.ndarray:
            made = tf.image.resize(images, [size, size], antialias=True)
            return np.rint(np.clip(made.numpy(), 0, 255)).astype(np.uint8)

        return HeldOutViews(to_size(self.first), to_size(self.second), self.held_out)


def held_out_source(
    config: Config,
    bad_images: BadImages,
    found: datasets.DataSet | None = None,
    training: Source | None = None,
) -> tuple[Source, bool]:
    """The images that an encoder is judged by without labels.

    They are of `--eval_test_split`, else of the data set's own test split, of one with
    labels if there is one; else the images that are trained on.

    Args:
      config: of the data set.
      bad_images: counts the images that cannot be used.
      found: the data set, if it was found already.
      training: a source that the run was given in place of a data set's name.

    Returns:
      The images, and whether they are no training images.

    Raises:
      Refused: there is no such split.
    """
    if training is not None:
        return training, False
    found = found or datasets.of_config(config)
    if split := config.evaluation.eval_test_split:
        return found.open(split, None, bad_images, "eval_test_split"), True
    split = found.held_out_split()
    if split is None:
        return datasets.training_source(config, bad_images, found), False
    # The flag of which no labels are needed.
    return found.open(split, None, bad_images, "split"), True


class ViewMeasures:
    """Measures a network on views.

    Args:
      network: images [n, s, s, 3] in [0, 255] -> representation [n, r], alone or
        followed by the projection [n, d]; or its `Outputs`.
    """

    def __init__(self, network: keras.Model | Outputs):
        self._outputs = network if isinstance(network, Outputs) else Outputs(network)

    def __call__(self, views: HeldOutViews) -> dict[str, float]:
        """`quality.MEASURES` of the representation, and as `projection_...`.

        Raises:
          ValueError: a feature is not finite.
        """
        first, second = self._features(views.first), self._features(views.second)
        found: dict[str, float] = {}
        for part, f1, f2 in zip(PARTS, first, second, strict=False):
            numbers = quality.measure(f1, f2)
            found |= {f"{part}{name}": value for name, value in numbers.items()}
        return found

    def _features(self, images: np.ndarray) -> list[np.ndarray]:
        """Every output of the network, float32 [n, ...]."""
        size = pipeline.EVALUATION_BATCH
        batches = [
            self._outputs(tf.constant(images[start : start + size]))
            for start in range(0, len(images), size)
        ]
        return [
            tf.cast(tf.concat(parts, axis=0), tf.float32).numpy()
            for parts in zip(*batches, strict=True)
        ]
