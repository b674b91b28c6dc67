"""What an encoder expects of its images: central square, interpolation, channels.

It belongs to a recipe of random views, by whose name it is found: an encoder should
see images as it saw them while it was trained. Whoever only encodes needs no views.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from tf_dpred.config import Config, Numbers, applications, refuse
from tf_dpred.data import image_ops


@dataclass(frozen=True)
class Preprocessing:
    """How clean images are prepared for an encoder.

    Attributes:
      mean, std: per-channel normalisation of images in [0, 1]; the encoder applies it.
      crop_fraction: side of the central square that is seen, as a fraction of the
        image's short side, in (0, 1].
      interpolation: "bicubic" or "bilinear".
    """

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"

    @classmethod
    def of_views(cls, name: str) -> Preprocessing:
        """That of the encoders that are trained with the views `name`.

        Args:
          name: a key of `PREPROCESSING`; the same names as in `data.views.VIEWS`.

        Raises:
          Refused: unknown name.
        """
        if name not in PREPROCESSING:
            refuse("views", name, ", ".join(PREPROCESSING))
        return PREPROCESSING[name]

    @classmethod
    def of(cls, config: Config) -> Preprocessing:
        """That of the encoders of a run.

        Channels other than red, green and blue have the mean of the recipe's values.
        """
        recipe, channels = cls.of_views(config.data.views), config.pixels.count
        changes: dict[str, Any] = {}
        if channels != 3:
            for name in ("mean", "std"):
                changes[name] = (sum(getattr(recipe, name)) / 3,) * channels
        network = config.network
        if applications.is_imagenet(network.init) and channels == 3:
            # The weights have to see what they were trained on.
            if (found := applications.normalization(network.backbone)) is not None:
                changes |= {"mean": found.mean, "std": found.std}
        for name in ("mean", "std"):
            if (text := getattr(config.data, name)) is not None:
                changes[name] = Numbers.of(text)
        if config.view.interpolation is not None:
            changes["interpolation"] = config.view.interpolation
        return replace(recipe, **changes)

    def evaluation_view(self, image: tf.Tensor, size: int) -> tf.Tensor:
        """The central square of an image, resized.

        Cutting out `crop_fraction` of the short side and resizing it to `size` is the
        same as resizing the short side to size / fraction (256 for 224) and cutting out
        the centre, but does not compute what is cut away.

        Args:
          image: uint8 [H, W, C].
          size: side of the result in pixels.

        Returns:
          uint8 [size, size, C].
        """
        shape = tf.shape(image)
        box = image_ops.center_box(shape[0], shape[1], self.crop_fraction)
        return image_ops.crop_and_resize(image, box, size, self.interpolation)


_IMAGENET = Preprocessing(
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    crop_fraction=0.875,
    interpolation="bicubic",
)

PREPROCESSING: dict[str, Preprocessing] = {
    "byol": _IMAGENET,
    "simclr": _IMAGENET,
    "simsiam": replace(_IMAGENET, interpolation="bilinear"),
    "stl10": Preprocessing(),
    "cifar": Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
    "digits": Preprocessing(),
    "satellite": _IMAGENET,
    "histology": _IMAGENET,
    "microscopy": _IMAGENET,
    "documents": _IMAGENET,
}
