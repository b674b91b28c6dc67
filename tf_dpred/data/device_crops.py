"""Crops of many images of one size at once, by gathers: for the device that trains.

Every shape is known, so that XLA compiles all of it. The boxes and the pixels are those
of `random_views.random_crops`, up to rounding.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_dpred.data import image_ops
from tf_dpred.data.random_views import Turns
from tf_dpred.data.views import ViewSpec

# TensorFlow's bicubic kernel looks its weights up in a table of this many steps.
CUBIC_STEPS = 1024


def random_crops(
    images: tf.Tensor, spec: ViewSpec, size: int, draws: tf.Tensor
) -> tf.Tensor:
    """`random_views.random_crops` of one view, for many images of one size.

    Args:
      images: uint8 [n, H, W, 3].
      spec: of the view.
      size: side of the results in pixels.
      draws: float32 [n, NUM_DRAWS], uniform in [0, 1).

    Returns:
      uint8 [n, size, size, 3].
    """
    _, height, width, _ = images.shape
    boxes = image_ops.sample_crops(
        draws[:, : image_ops.CROP_DRAWS],
        tf.constant(height),
        tf.constant(width),
        [spec.crop_scale],
        [spec.crop_ratio],
    )
    crops = _compiled_crop(images, boxes, size, spec.interpolation)
    return _turned(crops, draws, spec)


def crop_and_resize(
    images: tf.Tensor, boxes: tf.Tensor, size: int, method: str
) -> tf.Tensor:
    """`image_ops.crop_and_resize` of many images of one size, each at its own box.

    Args:
      images: uint8 [n, H, W, 3].
      boxes: int32 [n, 4]: top, left, height, width.
      size: side of the results in pixels.
      method: "bicubic" or "bilinear".

    Returns:
      uint8 [n, size, size, 3]; now and then a value differs by 1 from the host's.
    """
    top, left, height, width = tf.unstack(boxes, axis=1)
    rows, row_weights = _taps(top, height, size, method)
    columns, column_weights = _taps(left, width, size, method)
    # The order of TensorFlow's kernels, so that sums are rounded as theirs.
    if method == "bilinear":
        lines = _between(images, columns, column_weights[1], axis=2)
        return image_ops.to_uint8(_between(lines, rows, row_weights[1], axis=1))
    lines = _weighted(images, rows, row_weights, axis=1)
    return image_ops.to_uint8(_weighted(lines, columns, column_weights, axis=2))


_compiled_crop = tf.function(crop_and_resize, jit_compile=True, autograph=False)


def _taken(images, places: list, axis: int) -> list[tf.Tensor]:
    """The rows (axis 1) or columns (axis 2) of each image at each tap's places."""
    return [
        tf.cast(tf.gather(images, place, axis=axis, batch_dims=1), tf.float32)
        for place in places
    ]


def _along(weight: tf.Tensor, axis: int) -> tf.Tensor:
    """[n, size] as it multiplies rows or columns."""
    weight = weight[:, :, tf.newaxis] if axis == 1 else weight[:, tf.newaxis]
    return weight[..., tf.newaxis]


def _between(images, places: list, fraction: tf.Tensor, axis: int) -> tf.Tensor:
    first, second = _taken(images, places, axis)
    return first + (second - first) * _along(fraction, axis)


def _weighted(images, places: list, weights: list, axis: int) -> tf.Tensor:
    return tf.add_n(
        [
            part * _along(weight, axis)
            for part, weight in zip(_taken(images, places, axis), weights, strict=True)
        ]
    )


def _taps(start, length, size: int, method: str) -> tuple[list, list]:
    """Where each of `size` output pixels reads along one axis, and with what weight.

    Args:
      start, length: int32 [n], of the boxes.

    Returns:
      Two lists of tensors [n, size], one for each tap: 2 (bilinear) or 4 (bicubic).
    """
    last = length[:, tf.newaxis] - 1
    scale = tf.cast(length, tf.float32) / float(size)
    # The centre of a pixel of the result, in pixels of the crop.
    place = (tf.range(size, dtype=tf.float32) + 0.5) * scale[:, tf.newaxis] - 0.5
    floor = tf.floor(place)
    fraction = place - floor
    first = tf.cast(floor, tf.int32)
    if method == "bilinear":
        offsets: tuple[int, ...] = (0, 1)
        weights = [1.0 - fraction, fraction]
    else:
        offsets, weights = (-1, 0, 1, 2), _cubic(fraction)
    wanted = [first + offset for offset in offsets]
    inside = [tf.clip_by_value(place, 0, last) for place in wanted]
    if method != "bilinear":
        # What lies outside has no weight; the others then add up to 1.
        weights = [
            tf.where(place == kept, weight, 0.0)
            for place, kept, weight in zip(wanted, inside, weights, strict=True)
        ]
        total = tf.add_n(weights)
        weights = [weight / total for weight in weights]
    return [start[:, tf.newaxis] + place for place in inside], weights


def _cubic(fraction: tf.Tensor) -> list[tf.Tensor]:
    """Keys' cubic convolution with a = -1/2, in the steps of TensorFlow's table."""
    t = tf.round(fraction * CUBIC_STEPS) / CUBIC_STEPS

    def near(x):  # |x| <= 1
        return (1.5 * x - 2.5) * x * x + 1.0

    def far(x):  # 1 <= |x| <= 2
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0

    return [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)]


def _turned(crops: tf.Tensor, draws: tf.Tensor, spec: ViewSpec) -> tf.Tensor:
    """Turns each crop, uint8 [n, S, S, 3], as a spec asks."""
    turns = Turns.of(draws, spec)

    def per_image(chosen: tf.Tensor) -> tf.Tensor:
        return chosen[:, tf.newaxis, tf.newaxis, tf.newaxis]

    if spec.vertical_flip_probability:
        crops = tf.where(per_image(turns.flips), crops[:, ::-1], crops)
    if spec.rotate90_probability:
        # Counter-clockwise, as tf.image.rot90.
        quarters = (
            tf.transpose(crops, [0, 2, 1, 3])[:, ::-1],
            crops[:, ::-1, ::-1],
            tf.transpose(crops[:, ::-1], [0, 2, 1, 3]),
        )
        for number, turned in enumerate(quarters, start=1):
            crops = tf.where(per_image(turns.quarters == number), turned, crops)
    if spec.rotation:
        crops = rotate(crops, turns.degrees)
    return crops


def rotate(images: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """`image_ops.rotate` of many images, uint8 [n, S, S, 3], each by its own angle."""
    size = images.shape[1]
    radians = degrees[:, tf.newaxis, tf.newaxis] * (np.pi / 180.0)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    middle = (size - 1) / 2
    x = tf.range(size, dtype=tf.float32)[tf.newaxis, tf.newaxis, :]
    y = tf.range(size, dtype=tf.float32)[tf.newaxis, :, tf.newaxis]
    right = middle - cosine * middle + sine * middle
    down = middle - sine * middle - cosine * middle
    column = _mirrored(cosine * x - sine * y + right, size)
    row = _mirrored(sine * x + cosine * y + down, size)
    left, top = tf.floor(column), tf.floor(row)
    flat = tf.reshape(images, [-1, size * size, images.shape[-1]])

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        place = tf.minimum(row, size - 1.0) * size + tf.minimum(column, size - 1.0)
        place = tf.reshape(tf.cast(place, tf.int32), [-1, size * size])
        pixels = tf.cast(tf.gather(flat, place, batch_dims=1), tf.float32)
        return tf.reshape(pixels, [-1, size, size, images.shape[-1]])

    def between(first, second, fraction) -> tf.Tensor:
        fraction = fraction[..., tf.newaxis]
        return (1.0 - fraction) * first + fraction * second

    upper = between(at(top, left), at(top, left + 1.0), column - left)
    lower = between(at(top + 1.0, left), at(top + 1.0, left + 1.0), column - left)
    return image_ops.to_uint8(between(upper, lower, row - top))


def _mirrored(place: tf.Tensor, size: int) -> tf.Tensor:
    """Places from -size to 2 size, by reflection at the borders in [0, size - 1]."""
    place = tf.where(place < 0.0, -place - 1.0, place)
    place = tf.where(place >= size, 2.0 * size - place - 1.0, place)
    return tf.clip_by_value(place, 0.0, size - 1.0)
