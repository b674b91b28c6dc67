"""Views made of images and of random numbers, by the specs of `views`.

A view is a function of an image and of `NUM_DRAWS` numbers, uniform in [0, 1). It has
two stages: `random_crops`, of single images of any size, and `distort` (flip, colour,
blur), of many crops of one size: by `distort_each` on the host's CPU, or by
`distort_together` on the device that trains. `device_crops` crops there as well.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tf_dpred.data import choice, image_ops, photometric
from tf_dpred.data.views import ViewSpec

DISTORT_DRAWS = 11
NUM_DRAWS = image_ops.CROP_DRAWS + DISTORT_DRAWS


def random_crops(
    image: tf.Tensor, specs: Sequence[ViewSpec], size: int, draws: tf.Tensor
) -> list[tf.Tensor]:
    """Crops and resizes an image at random, once for each of n views.

    Args:
      image: uint8 [H, W, 3].
      specs: the n views.
      size: side of the results in pixels.
      draws: float32 [n, NUM_DRAWS], uniform in [0, 1); `distort` takes the rest of
        them.

    Returns:
      n crops, uint8 [size, size, 3] each.
    """
    shape = tf.shape(image)
    boxes = image_ops.sample_crops(
        draws[:, : image_ops.CROP_DRAWS],
        shape[0],
        shape[1],
        [spec.crop_scale for spec in specs],
        [spec.crop_ratio for spec in specs],
    )
    return [
        _turn(
            image_ops.crop_and_resize(image, box, size, spec.interpolation), row, spec
        )
        for box, row, spec in zip(
            tf.unstack(boxes), tf.unstack(draws), specs, strict=True
        )
    ]


class Turns(NamedTuple):
    """Which crops are flipped upside down, and by how much each is turned.

    The random numbers are the last 11 bits of those of `distort`, which decides by the
    first ones: recipes without turns keep the views that they have.

    Attributes:
      flips: bool [...].
      quarters: int32 [...], 0 to 3, of a circle.
      degrees: float32 [...].
    """

    flips: tf.Tensor
    quarters: tf.Tensor
    degrees: tf.Tensor

    @classmethod
    def of(cls, draws: tf.Tensor, spec: ViewSpec) -> "Turns":
        """Of draws [..., NUM_DRAWS]."""
        drawn = draws[..., image_ops.CROP_DRAWS :] * 4096.0
        upside_down, turned, quarters, angle, *_ = tf.unstack(
            drawn - tf.floor(drawn), axis=-1
        )
        number = tf.cast(4.0 * quarters, tf.int32)
        return cls(
            upside_down < spec.vertical_flip_probability,
            tf.where(turned < spec.rotate90_probability, number, 0),
            spec.rotation * (2.0 * angle - 1.0),
        )


def _turn(crop: tf.Tensor, draws: tf.Tensor, spec: ViewSpec) -> tf.Tensor:
    """Turns a crop, uint8 [S, S, 3], as a spec asks."""
    turns = Turns.of(draws, spec)
    if spec.vertical_flip_probability:
        crop = tf.where(turns.flips, crop[::-1], crop)
    if spec.rotate90_probability:
        crop = tf.ensure_shape(tf.image.rot90(crop, turns.quarters), crop.shape)
    if spec.rotation:
        crop = image_ops.rotate(crop, turns.degrees)
    return crop


def blur_taps(spec: ViewSpec, size: int) -> int:
    """Number of taps, odd: BYOL's 23 at 224 pixels, for a kernel of 0.1."""
    whole = isinstance(spec.blur_kernel, int)
    taps = spec.blur_kernel if whole else spec.blur_kernel * size
    return 2 * int(taps / 2) + 1


class _Drawn(NamedTuple):
    """The numbers of `distort`, [B] each."""

    flip: tf.Tensor
    jitter: tf.Tensor
    order: tf.Tensor
    brightness: tf.Tensor
    contrast: tf.Tensor
    saturation: tf.Tensor
    hue: tf.Tensor
    gray: tf.Tensor
    blur: tf.Tensor
    sigma: tf.Tensor
    solarize: tf.Tensor

    @classmethod
    def of(cls, draws: tf.Tensor) -> "_Drawn":
        return cls(*tf.unstack(draws[:, image_ops.CROP_DRAWS :], axis=1))


def distort(
    crops: tf.Tensor, draws: tf.Tensor, spec: ViewSpec, *, each: bool = False
) -> tf.Tensor:
    """Flips, jitters, blurs, grays and solarises each image in its own way.

    Args:
      crops: uint8 [B, S, S, 3].
      draws: float32 [B, NUM_DRAWS], uniform in [0, 1); those of the crop are not used.
      spec: the view.
      each: go image after image, as is best on a CPU, and compute only the slow
        operations that were drawn for it.

    Returns:
      uint8 [B, S, S, 3].
    """
    drawn = _Drawn.of(draws)
    # Operations that cost no more than a copy run on all images at once, outside of the
    # loop over them: XLA does not vectorise them, or changes of layout, inside a loop.
    planes = choice.sometimes(
        spec.flip_probability,
        drawn.flip,
        photometric.mirror,
        photometric.to_planes(crops),
        choice.select,
    )
    if each:

        def one(both: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            image, its_draws = (tensor[tf.newaxis] for tensor in both)
            return _jitter_and_blur(image, its_draws, spec, choice.branch)[0]

        view = tf.TensorSpec(planes.shape[1:], tf.uint8)
        planes = tf.map_fn(one, (planes, draws), fn_output_signature=view)
    else:
        planes = _jitter_and_blur(planes, draws, spec, choice.select)
    for probability, draw, operation in (
        # BYOL drops the colour before the blur; the two commute.
        (spec.grayscale_probability, drawn.gray, photometric.grayscale),
        (spec.solarize_probability, drawn.solarize, photometric.solarize),
    ):
        operation = photometric.on_integers(operation)
        planes = choice.sometimes(probability, draw, operation, planes, choice.select)
    return photometric.from_planes(planes)


def _jitter_and_blur(
    planes: tf.Tensor, draws: tf.Tensor, spec: ViewSpec, choose: choice.Choose
) -> tf.Tensor:
    """uint8 [B, 3, S, S] -> uint8 [B, 3, S, S]; see `distort`."""
    drawn = _Drawn.of(draws)
    amounts = (
        spec.brightness * (2.0 * drawn.brightness - 1.0),
        spec.contrast * (2.0 * drawn.contrast - 1.0),
        spec.saturation * (2.0 * drawn.saturation - 1.0),
        spec.hue * (2.0 * drawn.hue - 1.0),
    )
    low, high = spec.blur_sigma
    sigma = low + (high - low) * drawn.sigma
    order = tf.cast(drawn.order * len(photometric.ORDERS), tf.int32)
    taps = blur_taps(spec, planes.shape[-1])

    def jitter(images: tf.Tensor) -> tf.Tensor:
        return photometric.jitter(
            images, order, *amounts, style=spec.jitter_style, choose=choose
        )

    def blur(images: tf.Tensor) -> tf.Tensor:
        return photometric.gaussian_blur(images, sigma, taps, spec.blur_padding)

    def both(images: tf.Tensor) -> tf.Tensor:
        for probability, draw, operation in (
            (spec.jitter_probability, drawn.jitter, jitter),
            (spec.blur_probability, drawn.blur, blur),
        ):
            images = choice.sometimes(probability, draw, operation, images, choose)
        return images

    return photometric.on_integers(both)(planes)


@functools.cache
def distort_each(spec: ViewSpec) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """(crops, draws) -> views, see `distort`: image after image, compiled by XLA.

    For CPUs, see docs/benchmarks.md. Not compiled on the host of a TPU, where XLA may
    not run inside tf.data.
    """

    def distorted(crops: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return distort(crops, draws, spec, each=True)

    compiled = not tf.config.list_logical_devices("TPU")
    return tf.function(distorted, jit_compile=compiled, autograph=False)


@functools.cache
def distort_together(spec: ViewSpec) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """(crops, draws) -> views, see `distort`: all at once, compiled by XLA."""

    def distorted(crops: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return distort(crops, draws, spec)

    return tf.function(distorted, jit_compile=True, autograph=False)
