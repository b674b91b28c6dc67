"""Colour and blur: deterministic operations; `views` draws their random numbers.

An image is C planes, shape [..., C, H, W]: the values of one channel lie side by
side, so that compilers turn an operation into one vectorised loop. Values are float32
in [0, 1]; `to_planes`, `from_planes` and `mirror` take any. A factor is a scalar or one
number per image (shape [...]). The operations do not clip. `jitter` clips after each of
its four (BYOL, arXiv 2006.07733, appendix B), and `on_integers` clips at the end.
"""

import itertools
from collections.abc import Callable

import tensorflow as tf

from tf_dpred.data.choice import Choose
from tf_dpred.data.image_ops import to_uint8

GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)
# Taps of the blur on each side that are added in one pass over the image: with all of
# them, or one, a compiled blur takes twice as long (measured with XLA on a CPU).
TAPS_AT_ONCE = 3
# In sigma: exp(-REACH^2 / 2) is a rounding error of float32 beside 1.
REACH = 5.8


def _per_image(factor) -> tf.Tensor:
    """Gives a scalar or [...] factor the three axes that broadcast over an image."""
    factor = tf.convert_to_tensor(factor, tf.float32)
    return factor[..., tf.newaxis, tf.newaxis, tf.newaxis]


def _value_and_chroma(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """V of HSV, max(R, G, B), and its distance from min(R, G, B): [..., H, W] each."""
    red, green, blue = tf.unstack(image, axis=-3)
    value = tf.maximum(tf.maximum(red, green), blue)
    return value, value - tf.minimum(tf.minimum(red, green), blue)


def to_planes(pixels: tf.Tensor) -> tf.Tensor:
    """[B, H, W, C] -> [B, C, H, W], of any type."""
    return tf.transpose(pixels, [0, 3, 1, 2])


def from_planes(planes: tf.Tensor) -> tf.Tensor:
    """The inverse of `to_planes`."""
    return tf.transpose(planes, [0, 2, 3, 1])


def on_integers(operation: Callable[[tf.Tensor], tf.Tensor]) -> Callable:
    """Turns an operation on float32 in [0, 1] into one on uint8, which rounds."""

    def call(planes: tf.Tensor) -> tf.Tensor:
        image = operation(tf.cast(planes, tf.float32) * (1.0 / 255.0))
        return to_uint8(image * 255.0)

    return call


def mirror(image: tf.Tensor) -> tf.Tensor:
    """Swaps left and right."""
    return image[..., ::-1]


def brightness(image: tf.Tensor, delta) -> tf.Tensor:
    """Adds `delta` to every value."""
    return image + _per_image(delta)


def contrast(image: tf.Tensor, factor) -> tf.Tensor:
    """Scales the distance of each channel from its mean over the image."""
    mean = tf.reduce_mean(image, axis=(-2, -1), keepdims=True)
    return mean + (image - mean) * _per_image(factor)


def saturation(image: tf.Tensor, factor) -> tf.Tensor:
    """Multiplies the S of HSV by `factor` >= 0 and clips it to 1; for images >= 0.

    H and V stay, so each channel only moves along its distance from V = max(R, G, B):
    x' = V - (V - x) min(factor, 1/S) with 1/S = V / (V - min(R, G, B)).
    """
    value, chroma = _value_and_chroma(image)
    most = tf.math.divide_no_nan(value, chroma)
    scale = tf.minimum(_per_image(factor)[..., 0], most)
    value, scale = value[..., tf.newaxis, :, :], scale[..., tf.newaxis, :, :]
    return value - (value - image) * scale


def hue(image: tf.Tensor, delta) -> tf.Tensor:
    """Turns the H of HSV by `delta` of a full circle; S and V stay.

    With H in sixths of the circle a channel is V - chroma clip(2 - d, 0, 1), d the way
    around the circle from H to the colour opposite to it (of red 3, green 5, blue 1).
    """
    red, green, blue = tf.unstack(image, axis=-3)
    value, chroma = _value_and_chroma(image)
    slope = tf.math.divide_no_nan(1.0, chroma)
    angle = tf.where(
        value == red,
        (green - blue) * slope,
        tf.where(
            value == green,
            2.0 + (blue - red) * slope,
            4.0 + (red - green) * slope,
        ),
    )
    angle += 6.0 * _per_image(delta)[..., 0]

    def channel(opposite: float) -> tf.Tensor:
        away = angle - opposite
        away = tf.abs(away - 6.0 * tf.round(away * (1.0 / 6.0)))
        return value - chroma * tf.clip_by_value(2.0 - away, 0.0, 1.0)

    return tf.stack([channel(3.0), channel(5.0), channel(1.0)], axis=-3)


def luma(image: tf.Tensor) -> tf.Tensor:
    """Weighted sum of red, green and blue, the mean of others, shape [..., 1, H, W]."""
    if image.shape[-3] != 3:
        return tf.reduce_mean(image, axis=-3, keepdims=True)
    planes = tf.unstack(image, axis=-3)
    weighted = [w * plane for w, plane in zip(GRAY_WEIGHTS, planes, strict=True)]
    return tf.add_n(weighted)[..., tf.newaxis, :, :]


def grayscale(image: tf.Tensor) -> tf.Tensor:
    """Puts the luma into all three channels."""
    return tf.broadcast_to(luma(image), tf.shape(image))


def blend(image: tf.Tensor, anchor, factor) -> tf.Tensor:
    """Moves `image` away from `anchor` (factor > 1) or towards it (factor < 1).

    This is the jitter of torchvision, with which the DirectPred authors trained on
    STL-10 and CIFAR-10: anchor 0 for brightness, the mean luma for contrast and the
    luma for saturation.
    """
    return anchor + (image - anchor) * _per_image(factor)


def solarize(image: tf.Tensor) -> tf.Tensor:
    """Inverts the values from one half on."""
    return tf.where(image < 0.5, image, 1.0 - image)


def gaussian_blur(
    image: tf.Tensor, sigma, kernel_size: int, padding: str = "zeros"
) -> tf.Tensor:
    """Separable Gaussian blur with `kernel_size` taps (odd).

    The blur is a sum of shifted images, because every image has its own `sigma` (> 0,
    in pixels), which a convolution cannot take.

    Args:
      image: float32 [..., C, H, W].
      sigma: scalar or [...].
      kernel_size: with `reflect`, H and W are above half of it, and 3 pixels more.
      padding: what lies outside of the image. `zeros`: borders darken, as in BYOL,
        since the taps are normalised before the border cuts some of them off.
        `reflect`: the image in a mirror, its outermost row once, as in torchvision.
    """
    mode = {"zeros": "CONSTANT", "reflect": "REFLECT"}[padding]
    radius = kernel_size // 2
    most = -(-radius // TAPS_AT_ONCE)
    reach = most * TAPS_AT_ONCE
    offsets = tf.range(reach + 1, dtype=tf.float32)
    sigma = tf.convert_to_tensor(sigma, tf.float32)
    widest = tf.math.ceil(REACH * tf.reduce_max(sigma) / TAPS_AT_ONCE)
    passes = tf.cast(tf.minimum(widest, float(most)), tf.int32)
    scale = -0.5 / tf.square(sigma)
    weights = tf.exp(scale[..., tf.newaxis] * tf.square(offsets))
    weights = tf.where(offsets <= radius, weights, 0.0)
    # Each weight but the central one is for two taps.
    weights /= 2.0 * tf.reduce_sum(weights, axis=-1, keepdims=True) - 1.0

    def weight(offset) -> tf.Tensor:
        return _per_image(tf.gather(weights, offset, axis=-1))

    def along(axis: int, image: tf.Tensor) -> tf.Tensor:
        rank = image.shape.rank
        margins = [[reach * (i == axis)] * 2 for i in range(-rank, 0)]
        padded = tf.pad(image, margins, mode)
        # In numbers where they are known: XLA then knows that no shape varies.
        static = image.shape.is_fully_defined()
        size = image.shape if static else tf.shape(image)

        def shifted(offset) -> tf.Tensor:
            begin = [(reach + offset) * (i == axis) for i in range(-rank, 0)]
            return tf.slice(padded, begin, size)

        def one_pass(number: tf.Tensor, total: tf.Tensor):
            for place in range(1, TAPS_AT_ONCE + 1):
                offset = number * TAPS_AT_ONCE + place
                total += weight(offset) * (shifted(offset) + shifted(-offset))
            return number + 1, tf.ensure_shape(total, image.shape)

        start = (0, weight(0) * image)
        return tf.while_loop(lambda number, _: number < passes, one_pass, start)[1]

    return along(-1, along(-2, image))


# Row i: the i-th order in which the four jitter operations can be applied.
ORDERS = tuple(itertools.permutations(range(4)))


def _factor(amount: tf.Tensor) -> tf.Tensor:
    """1 + amount, at least 0: a negative factor would invert the image."""
    return tf.maximum(1.0 + amount, 0.0)


def _scale_contrast(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return contrast(images, _factor(amount))


def _scale_saturation(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return saturation(images, _factor(amount))


def _blend_brightness(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return blend(images, 0.0, _factor(amount))


def _blend_contrast(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    anchor = tf.reduce_mean(luma(images), axis=(-2, -1), keepdims=True)
    return blend(images, anchor, _factor(amount))


def _blend_saturation(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return blend(images, luma(images), _factor(amount))


def _nothing(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return images


# Brightness, contrast, saturation, hue; an amount of 0 changes nothing.
JITTER_STYLES: dict[str, tuple[Callable[..., tf.Tensor], ...]] = {
    "hsv": (brightness, _scale_contrast, _scale_saturation, hue),
    "blend": (_blend_brightness, _blend_contrast, _blend_saturation, hue),
}


def jitter(
    images: tf.Tensor,
    order: tf.Tensor,
    *amounts: tf.Tensor,
    style: str,
    choose: Choose,
) -> tf.Tensor:
    """Brightness, contrast, saturation and hue, clipped to [0, 1] after each.

    Args:
      images: float32 [B, C, H, W].
      order: int32 [B], rows of `ORDERS`.
      *amounts: of the four operations, float32 [B] each, 0 for no change.
      style: key of `JITTER_STYLES`.
      choose: how an image gets its own operation, see `data.choice`.
    """
    style_operations = JITTER_STYLES[style]
    if images.shape[-3] != 3:
        # Saturation and hue are those of red, green and blue; `views` refuses them.
        style_operations = (*style_operations[:2], _nothing, _nothing)
    operations = [
        # It is clipped in here so that XLA makes one loop over the image of a choice.
        lambda images, operation=operation, amount=amount: tf.clip_by_value(
            operation(images, amount), 0.0, 1.0
        )
        for operation, amount in zip(style_operations, amounts, strict=True)
    ]
    turns = tf.gather(ORDERS, order)

    def next_turn(turn: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return turn + 1, choose(turns[:, turn], operations, images)

    # This is a loop in the graph because an unrolled one is slower to compile.
    _, images = tf.while_loop(
        lambda turn, _: turn < len(operations), next_turn, (0, images)
    )
    return images
