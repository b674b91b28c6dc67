"""Decoding, cropping and resizing; all randomness of the views is drawn elsewhere."""

import math

import tensorflow as tf

CROP_TRIES = 10
CROP_DRAWS = 2 * CROP_TRIES + 2


def sample_crop(
    draws: tf.Tensor,
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
      draws: float32 [CROP_DRAWS], uniform in [0, 1).
      height, width: int32 scalars, in pixels.
      scale: lowest and highest fraction of the image's area, within (0, 1].
      ratio: lowest and highest aspect.

    Returns:
      int32 [4]: top, left, height, width.
    """
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
    `method`: "bicubic" or "bilinear".

    Returns:
      uint8 [size, size, 3].
    """
    top, left, height, width = tf.unstack(box)
    crop = image[top : top + height, left : left + width]
    return to_uint8(tf.image.resize(crop, [size, size], method))


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


def to_uint8(values: tf.Tensor) -> tf.Tensor:
    """Rounds 0.0..255.0 to integers and clips others, to which bicubic overshoots."""
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0) + 0.5, tf.uint8)
