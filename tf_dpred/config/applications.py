"""How images were normalised for the ImageNet weights of `keras.applications`."""

from __future__ import annotations

from typing import NamedTuple

IMAGENET = "imagenet"


class Normalization(NamedTuple):
    """(x - mean) / std of images in [0, 1], per channel of RGB.

    Attributes:
      mean, std: of red, green and blue.
      bgr: the weights take blue first.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


_TORCH = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TF = Normalization((0.5,) * 3, (0.5,) * 3)
_CAFFE = Normalization(
    (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3, bgr=True
)
# By the beginning of the name; the first that fits. The modules of keras.applications
# say it: `preprocess_input`, or the layers that `include_preprocessing` adds.
_FAMILIES = {
    "ConvNeXt": _TORCH,
    "DenseNet": _TORCH,
    "EfficientNetV2B": _TORCH,
    "EfficientNetV2": Normalization((128 / 255,) * 3, (128 / 255,) * 3),
    "Inception": _TF,
    "MobileNet": _TF,
    "NASNet": _TF,
    "ResNet": _CAFFE,
    "VGG": _CAFFE,
    "Xception": _TF,
}


def is_imagenet(init: str | None) -> bool:
    """Whether `--init` says imagenet or imagenet:FILE."""
    return init is not None and init.partition(":")[0] == IMAGENET


def normalization(application: str) -> Normalization | None:
    """That of a model's ImageNet weights; None where the model normalises by itself."""
    if application.startswith("ResNet") and application.endswith("V2"):
        return _TF
    found = (n for family, n in _FAMILIES.items() if application.startswith(family))
    return next(found, None)
