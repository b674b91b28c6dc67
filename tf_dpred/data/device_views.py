"""What of the two views the device that trains makes, and what is left to the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_dpred.config import DataConfig
from tf_dpred.data import cache, device_crops
from tf_dpred.data.own_views import OwnViews
from tf_dpred.data.random_views import distort_together
from tf_dpred.data.source import Source
from tf_dpred.data.views import ViewPair


@keras.saving.register_keras_serializable("tf_dpred")
class ViewsFromCrops:
    """The rest of `pipeline.training_views` with `distorted` False, for any device.

    A class, so that a model that has it can be saved and copied.

    Args:
      pair: the distributions of the two views.
    """

    def __init__(self, pair: ViewPair):
        self.pair = pair

    def __call__(self, first, second, draws1, draws2) -> tuple[tf.Tensor, tf.Tensor]:
        """Crops and draws of n examples -> two views, uint8 [n, S, S, 3]."""
        return (
            distort_together(self.pair.first)(first, draws1),
            distort_together(self.pair.second)(second, draws2),
        )

    def get_config(self) -> dict[str, Any]:
        return {"pair": self.pair.to_list()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ViewsFromCrops:
        return cls(ViewPair.from_list(config["pair"]))


@keras.saving.register_keras_serializable("tf_dpred")
class ViewsFromImages:
    """Two views of images of one size: all that `pipeline.training_views` makes.

    Args:
      pair: the distributions of the two views.
      size: side S of a view in pixels.
    """

    def __init__(self, pair: ViewPair, size: int):
        self.pair = pair
        self.size = size

    def __call__(self, images, draws1, draws2) -> tuple[tf.Tensor, tf.Tensor]:
        """Images, uint8 [n, H, W, 3], and draws -> two views, uint8 [n, S, S, 3]."""
        first, second = (
            device_crops.random_crops(images, spec, self.size, draws)
            for spec, draws in zip(self.pair, (draws1, draws2), strict=True)
        )
        return ViewsFromCrops(self.pair)(first, second, draws1, draws2)

    def get_config(self) -> dict[str, Any]:
        return {"pair": self.pair.to_list(), "size": self.size}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ViewsFromImages:
        # Of ViewsFromIndices as well: the images are no part of a model.
        return ViewsFromImages(ViewPair.from_list(config["pair"]), config["size"])


@keras.saving.register_keras_serializable("tf_dpred")
class ViewsFromIndices(ViewsFromImages):
    """As `ViewsFromImages`, where the device holds all images.

    Of a model that is saved or copied it becomes one of `ViewsFromImages`.

    Args:
      pair, size: as there.
      stored: uint8 [N, H, W, 3], on each device.
    """

    def __init__(self, pair: ViewPair, size: int, stored: tf.Variable):
        super().__init__(pair, size)
        self.stored = stored

    def __call__(self, indices, draws1, draws2) -> tuple[tf.Tensor, tf.Tensor]:
        """Indices, int64 [n], and draws -> two views, uint8 [n, S, S, 3]."""
        images = gathered(tf.convert_to_tensor(self.stored), indices)
        return super().__call__(images, draws1, draws2)


@tf.function(jit_compile=True, autograph=False)
def gathered(images: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Rows of `images`; compiled, as some devices have no kernel for bytes."""
    return tf.gather(images, indices)


class Feed(NamedTuple):
    """What the host prepares of a run's views, and what is left to the device.

    Attributes:
      source: what the host reads: images, or their indices.
      distorted, cropped: see `pipeline.training_views`.
      make_views: of `DirectPred`; None: the host makes the views.
    """

    source: Source
    distorted: bool = True
    cropped: bool = True
    make_views: Callable[..., tuple[tf.Tensor, tf.Tensor]] | None = None


def feed(config: DataConfig, pair: ViewPair | OwnViews, source: Source) -> Feed:
    """Divides the work of a config; call it under `strategy.scope()`.

    Raises:
      Refused: images to be held on the device are not of one size.
    """
    if config.on_host or isinstance(pair, OwnViews):
        return Feed(source)
    size = config.image_size
    if config.cache == "device":
        # A Variable, of which each device has a copy.
        stored = tf.Variable(cache.read(source), trainable=False, name="images")
        indices = cache.indices_of(source)
        return Feed(indices, False, False, ViewsFromIndices(pair, size, stored))
    if source.image_size is None:
        return Feed(source, False, make_views=ViewsFromCrops(pair))
    return Feed(source, False, False, ViewsFromImages(pair, size))
