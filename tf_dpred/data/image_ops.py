"""Cropping and resizing; random numbers are arguments."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

CROP_TRIES = 10
CROP_DRAWS = 2 * CROP_TRIES + 2

LARGE_CROP = 2**24
"""Pixels from which on a crop is never held as float32, which takes 12 bytes each."""


def sample_crops(
    draws: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    scales: Sequence[tuple[float, float]],
    ratios: Sequence[tuple[float, float]],
) -> tf.Tensor:
    """Draws crops of one image by area and aspect.

    The area fraction is uniform in its scale, the aspect (width / height) log-uniform
    in its ratio. Of ten draws the first that fits the image is taken, at a uniform
    place; if none fits, the largest central crop whose aspect is within the ratio.

    Args:
      draws: float32 [n, CROP_DRAWS], uniform in [0, 1).
      height, width: int32 scalars, in pixels.
      scales: lowest and highest fraction of the image's area, within (0, 1], of each of
        the n crops; or one for all.
      ratios: lowest and highest aspect of each.

    Returns:
      int32 [n, 4]: top, left, height, width.
    """
    # All n crops at once: with so few numbers, the time depends on how many operations
    # there are, not on their size.
    smallest, largest = _columns(scales)
    narrowest, broadest = _columns(ratios)
    low, high = np.log(narrowest), np.log(broadest)
    image = tf.cast(tf.stack([height, width]), tf.float32)
    tall, wide = tf.unstack(image)
    fraction = draws[:, :CROP_TRIES]
    area = tall * wide * (_float(smallest) + _float(largest - smallest) * fraction)
    aspect = tf.exp(_float(low) + _float(high - low) * draws[:, CROP_TRIES:-2])
    clamped = tf.maximum(tf.minimum(wide / tall, _float(broadest)), _float(narrowest))
    fallback = tf.minimum(image, tf.concat([wide / clamped, tall * clamped], axis=1))
    # One row more than the tries: the fallback, which always fits.
    tried = tf.sqrt(tf.stack([area / aspect, area * aspect], axis=-1))
    fallback = tf.broadcast_to(fallback, tf.shape(tried[:, 0]))
    sides = tf.concat([tried, fallback[:, tf.newaxis]], axis=1)
    sides = tf.maximum(tf.round(sides), 1.0)
    fits = tf.reduce_all(sides <= image, axis=-1)
    chosen = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    side = tf.gather(sides, chosen, batch_dims=1)
    free = image - side
    anywhere = tf.floor(draws[:, -2:] * (free + 1.0))
    drawn = chosen[:, tf.newaxis] < CROP_TRIES
    corner = tf.where(drawn, anywhere, tf.floor(free / 2.0))
    # A draw just below 1 can round up to free + 1 on a large image.
    corner = tf.minimum(corner, free)
    return tf.cast(tf.concat([corner, side], axis=1), tf.int32)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second numbers, [n, 1] each."""
    first, second = np.transpose(pairs)[..., np.newaxis]
    return first, second


def _float(values: np.ndarray) -> tf.Tensor:
    return tf.constant(values, tf.float32)


def crop_and_resize(
    image: tf.Tensor, box: tf.Tensor, size: int, method: str
) -> tf.Tensor:
    """Cuts `box` (see `sample_crops`) out of a uint8 image [H, W, 3] and resizes it.

    No antialiasing, like BYOL and SimCLR, whose views are tf.image.resize of a crop.
    `method`: "bicubic" or "bilinear".

    Returns:
      uint8 [size, size, 3].
    """
    top, left, height, width = tf.unstack(box)
    crop = image[top : top + height, left : left + width]
    # TensorFlow's kernels for integers take 1.4 times as long for the same result, and
    # a quarter of the memory.
    resized = tf.cond(
        height * width > LARGE_CROP,
        lambda: tf.image.resize(crop, [size, size], method),
        lambda: tf.image.resize(tf.cast(crop, tf.float32), [size, size], method),
    )
    return to_uint8(resized)


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns a uint8 image [S, S, 3] about its centre, counter-clockwise.

    What comes in at the border is the mirrored image; bilinear.
    """
    radians = degrees * (np.pi / 180.0)
    cosine, sine, zero = tf.cos(radians), tf.sin(radians), tf.zeros([])
    middle = (image.shape[0] - 1) / 2
    # (x, y) of the result -> (x, y) of the image.
    right = middle - cosine * middle + sine * middle
    down = middle - sine * middle - cosine * middle
    matrix = tf.stack([cosine, -sine, right, sine, cosine, down, zero, zero])
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image[tf.newaxis], tf.float32),
        transforms=matrix[tf.newaxis],
        output_shape=image.shape[:2],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(to_uint8(turned[0]), image.shape)


def center_box(height: tf.Tensor, width: tf.Tensor, fraction: float) -> tf.Tensor:
    """Central square of `fraction` of the short side: int32 top, left, side, side."""
    short = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.cast(tf.round(short * fraction), tf.int32)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side])


def as_rgb(images) -> np.ndarray:
    """Images [..., C] as they can be shown, [..., 3].

    One channel is gray; of others the first three are red, green and blue.
    """
    shown = np.asarray(images)
    missing = 3 - shown.shape[-1]
    if missing == 2:
        return np.repeat(shown, 3, axis=-1)
    if missing == 1:
        return np.concatenate([shown, np.zeros_like(shown[..., :1])], axis=-1)
    return shown[..., :3]


def to_uint8(values: tf.Tensor) -> tf.Tensor:
    """Clips to 0.0..255.0, which bicubic interpolation leaves, and rounds."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0) + 0.5, tf.uint8)
