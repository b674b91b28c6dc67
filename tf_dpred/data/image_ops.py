"""Deterministic operations on images; all randomness of the views is drawn elsewhere.

Unless said otherwise an image is float32 in [0, 1], shape [..., H, W, 3], and a factor
is a scalar or one number per image (shape [...]). Nothing is clipped here: the caller
clips after each operation (BYOL, arXiv 2006.07733, appendix B).
"""

import math
from collections.abc import Sequence

import tensorflow as tf

GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)
CROP_TRIES = 10


def _per_image(factor) -> tf.Tensor:
    """Gives a scalar or [...] factor the three axes that broadcast over an image."""
    factor = tf.convert_to_tensor(factor, tf.float32)
    return factor[..., tf.newaxis, tf.newaxis, tf.newaxis]


def _planes(image: tf.Tensor) -> list[tf.Tensor]:
    """Red, green and blue, [..., H, W] each."""
    return [image[..., channel] for channel in range(3)]


def _from_planes(planes: list[tf.Tensor]) -> tf.Tensor:
    """Inverse of `_planes`; three times as fast as tf.stack on the last axis."""
    return tf.linalg.matrix_transpose(tf.stack(planes, axis=-2))


def _value_and_chroma(planes: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """V of HSV, max(R, G, B), and its distance from min(R, G, B)."""
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    return value, value - tf.minimum(tf.minimum(red, green), blue)


def brightness(image: tf.Tensor, delta) -> tf.Tensor:
    """Adds `delta` to every value."""
    return image + _per_image(delta)


def contrast(image: tf.Tensor, factor) -> tf.Tensor:
    """Scales the distance of each channel from its mean over the image."""
    mean = tf.reduce_mean(image, axis=(-3, -2), keepdims=True)
    return mean + (image - mean) * _per_image(factor)


def saturation(image: tf.Tensor, factor) -> tf.Tensor:
    """Multiplies the S of HSV by `factor` >= 0 and clips it to 1; for images >= 0.

    H and V stay, so each channel only moves along its distance from V = max(R, G, B):
    x' = V - (V - x) min(factor, 1/S) with 1/S = V / (V - min(R, G, B)).
    """
    planes = _planes(image)
    value, chroma = _value_and_chroma(planes)
    most = tf.math.divide_no_nan(value, chroma)
    scale = tf.minimum(_per_image(factor)[..., 0], most)
    return _from_planes([value - (value - plane) * scale for plane in planes])


def hue(image: tf.Tensor, delta) -> tf.Tensor:
    """Turns the H of HSV by `delta` of a full circle; S and V stay.

    With H in sixths of the circle a channel is V - chroma clip(2 - d, 0, 1), d the way
    around the circle from H to the colour opposite to it (of red 3, green 5, blue 1).
    """
    red, green, blue = _planes(image)
    value, chroma = _value_and_chroma((red, green, blue))
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

    return _from_planes([channel(3.0), channel(5.0), channel(1.0)])


def luma(image: tf.Tensor) -> tf.Tensor:
    """Weighted sum of the channels, shape [..., H, W, 1]."""
    planes = _planes(image)
    weighted = [w * plane for w, plane in zip(GRAY_WEIGHTS, planes, strict=True)]
    return tf.add_n(weighted)[..., tf.newaxis]


def grayscale(image: tf.Tensor) -> tf.Tensor:
    """Puts the luma into all three channels."""
    return _from_planes([luma(image)[..., 0]] * 3)


def blend(image: tf.Tensor, anchor, factor) -> tf.Tensor:
    """Moves `image` away from `anchor` (factor > 1) or towards it (factor < 1).

    This is the jitter of torchvision, with which the DirectPred authors trained on
    STL-10 and CIFAR-10: anchor 0 for brightness, the mean luma for contrast and the
    luma for saturation.
    """
    return anchor + (image - anchor) * _per_image(factor)


def solarize(image: tf.Tensor, threshold: float = 0.5) -> tf.Tensor:
    """Inverts the values at or above `threshold`."""
    return tf.where(image < threshold, image, 1.0 - image)


def _blur_matrix(length: int, sigma, kernel_size: int) -> tf.Tensor:
    """K_ij = g(i - j) within the taps, else 0; shape [..., length, length]."""
    radius = kernel_size // 2
    taps = tf.range(-radius, radius + 1, dtype=tf.float32)
    place = tf.range(length, dtype=tf.float32)
    offset = place[:, tf.newaxis] - place
    scale = -0.5 / tf.square(tf.convert_to_tensor(sigma, tf.float32))
    scale = scale[..., tf.newaxis, tf.newaxis]
    total = tf.reduce_sum(tf.exp(scale * taps**2), axis=-1, keepdims=True)
    inside = tf.cast(tf.abs(offset) <= radius, tf.float32)
    return inside * tf.exp(scale * offset**2) / total


def gaussian_blur(image: tf.Tensor, sigma, kernel_size: int) -> tf.Tensor:
    """Separable Gaussian blur with `kernel_size` taps (odd) and zeros outside.

    One matrix product per axis takes a different `sigma` (> 0, in pixels) for every
    image, which a convolution does not. The taps are normalised before the border
    cuts some of them off, so borders darken, as in BYOL.
    """
    height, width = image.shape[-3:-1]
    rows = _blur_matrix(height, sigma, kernel_size)[..., tf.newaxis, :, :]
    columns = _blur_matrix(width, sigma, kernel_size)[..., tf.newaxis, :, :]
    planes = tf.stack(_planes(image), axis=-3)
    blurred = tf.matmul(rows @ planes, columns, transpose_b=True)
    return _from_planes(tf.unstack(blurred, axis=-3))


def sample_crop(
    seed: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tf.Tensor:
    """Draws a crop by area and aspect.

    The area fraction is uniform in `scale`, the aspect (width / height) log-uniform in
    `ratio`. Of ten draws the first that fits the image is taken, at a uniform place;
    if none fits, the largest central crop whose aspect is within `ratio`.

    Args:
      seed: integer [2], of the stateless kind.
      height, width: int32 scalars, in pixels.
      scale: lowest and highest fraction of the image's area, within (0, 1].
      ratio: lowest and highest aspect.

    Returns:
      int32 [4]: top, left, height, width.
    """
    draws = tf.random.stateless_uniform([2 * CROP_TRIES + 2], seed)
    high, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = high * wide * (scale[0] + (scale[1] - scale[0]) * draws[:CROP_TRIES])
    narrow, broad = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(narrow + (broad - narrow) * draws[CROP_TRIES:-2])
    # One column more than the tries: the fallback, which always fits.
    clamped = tf.clip_by_value(wide / high, *ratio)
    sides = tf.stack(
        [
            tf.concat([tf.sqrt(area / aspect), [tf.minimum(high, wide / clamped)]], 0),
            tf.concat([tf.sqrt(area * aspect), [tf.minimum(wide, high * clamped)]], 0),
        ]
    )
    sides = tf.maximum(tf.round(sides), 1.0)
    image = tf.stack([high, wide])
    fits = tf.reduce_all(sides <= image[:, tf.newaxis], axis=0)
    chosen = tf.argmax(tf.cast(fits, tf.int32))
    side = sides[:, chosen]
    free = image - side
    anywhere = tf.floor(draws[-2:] * (free + 1.0))
    corner = tf.where(chosen < CROP_TRIES, anywhere, tf.floor(free / 2.0))
    # A draw just below 1 can round up to free + 1 on a large image.
    corner = tf.minimum(corner, free)
    return tf.cast(tf.concat([corner, side], axis=0), tf.int32)


def crop_and_resize(
    image: tf.Tensor, box: tf.Tensor, size: int, method: str
) -> tf.Tensor:
    """Cuts `box` (see `sample_crop`) out of a uint8 image [H, W, 3] and resizes it.

    No antialiasing, like BYOL and SimCLR, whose views are tf.image.resize of a crop.
    Bicubic overshoots, hence the clipping. `method`: "bicubic" or "bilinear".

    Returns:
      float32 [size, size, 3] in [0, 1].
    """
    top, left, height, width = tf.unstack(box)
    crop = image[top : top + height, left : left + width]
    resized = tf.image.resize(crop, [size, size], method)
    return tf.clip_by_value(resized * (1.0 / 255.0), 0.0, 1.0)


def center_box(height: tf.Tensor, width: tf.Tensor, fraction: float) -> tf.Tensor:
    """Central square of `fraction` of the short side: int32 top, left, side, side."""
    short = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.cast(tf.round(short * fraction), tf.int32)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def decode(image: tf.Tensor) -> tf.Tensor:
    """Turns a data set's image into uint8 [H, W, 3]; of an animation, the first frame.

    What is encoded is taken as it is, as others who use the data set do: neither turned
    upright nor checked; `image_files.decode` is for files of people.
    Decoded images (uint8 [H, W, 3] or [H, W, 1]) pass; one channel becomes three.
    """
    if image.dtype == tf.string:
        image = tf.io.decode_image(image, channels=3, expand_animations=False)
    elif image.shape[-1] == 1:
        image = tf.repeat(image, 3, axis=-1)
    image.set_shape([None, None, 3])
    return image


def to_uint8(image: tf.Tensor) -> tf.Tensor:
    """Rounds [0, 1] to 0..255; values outside are clipped."""
    scaled = tf.round(tf.clip_by_value(image, 0.0, 1.0) * 255.0)
    return tf.cast(scaled, tf.uint8)
