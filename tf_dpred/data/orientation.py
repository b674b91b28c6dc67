"""The orientation that a camera wrote into an image file, and its undoing."""

from __future__ import annotations

import tensorflow as tf

from tf_dpred.data import image_headers

_WITHIN_JPEG = 4096  # bytes of the file: an EXIF block comes first
_WITHIN_PNG = 65536  # from the start, and from the end; the image is between
_LONGEST = 65536  # bytes of an EXIF block that are looked at

# What stands before the TIFF structure in JPEG, PNG and WebP, and how that begins.
# \C is any byte.
_MARK = r"(\C*?(?:Exif\x00\x00|eXIf|EXIF\C\C\C\C))(?:II\x2a\x00|MM\x00\x2a)\C*"

_ORIENTATION = 0x0112  # tag
_SHORT, _LONG = 3, 4  # types of 2 and 4 bytes


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of an image file: an int32 scalar, 1 (upright) to 8.

    Of JPEG, PNG (its chunk eXIf) and WebP (its chunk EXIF); 1 where there is none. It
    is looked for in the first 4 KiB of a JPEG, and in the first and last 64 KiB of a
    PNG.
    Source: EXIF 2.32, 4.6.2 (entries) and 4.6.4 A (orientation).
    """

    def other() -> tf.Tensor:
        header = image_headers.header_of(encoded)
        return tf.case(
            [
                (image_headers.is_png(header), lambda: _ends(encoded, _WITHIN_PNG)),
                (image_headers.is_webp_with_exif(header), lambda: encoded),
            ],
            default=lambda: tf.constant(b""),
        )

    searched = tf.cond(
        image_headers.is_jpeg(encoded),
        lambda: tf.strings.substr(encoded, 0, _WITHIN_JPEG),
        other,
    )

    def of_block() -> tf.Tensor:
        before = tf.strings.length(tf.strings.regex_replace(searched, _MARK, r"\1"))
        return _of_tiff(tf.strings.substr(searched, before, _LONGEST))

    found = tf.strings.regex_full_match(searched, _MARK)
    return tf.cond(found, of_block, lambda: tf.constant(1))


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation (1 to 8) of uint8 [H, W, C]."""

    def transposed() -> tf.Tensor:
        # tf.transpose of integers makes oneDNN print an error.
        height, width = tf.unstack(tf.shape(image)[:2])
        places = tf.range(width)[:, None] + width * tf.range(height)
        return tf.gather(tf.reshape(image, [-1, image.shape[-1]]), places)

    def turned() -> tf.Tensor:
        swapped = tf.cond(orientation >= 5, transposed, lambda: image)
        mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
        upended = tf.reduce_any(orientation == [3, 4, 7, 8])
        axes = tf.boolean_mask([1, 0], tf.stack([mirrored, upended]))
        return tf.reverse(swapped, axes)

    return tf.cond(orientation > 1, turned, lambda: image)


def _ends(encoded: tf.Tensor, length: int) -> tf.Tensor:
    """The first and the last `length` bytes; all of a file that is shorter."""
    last = tf.maximum(tf.strings.length(encoded) - length, length)
    start = tf.strings.substr(encoded, 0, length)
    # A position behind the end is an error.
    end = tf.cond(
        last < tf.strings.length(encoded),
        lambda: tf.strings.substr(encoded, last, length),
        lambda: tf.constant(b""),
    )
    return start + end


def _of_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of a TIFF structure; 1 where none is."""
    data = tf.cast(tf.io.decode_raw(tiff, tf.uint8), tf.int64)
    little = data[0] == ord("I")

    def number(of: tf.Tensor) -> tf.Tensor:
        """Of the last dimension, 2 or 4 bytes."""
        powers = [256**i for i in range(of.shape[-1])]
        powers = tf.where(little, tf.constant(powers, tf.int64), powers[::-1])
        return tf.reduce_sum(of * powers, axis=-1)

    def padded(start: tf.Tensor | int, length: int) -> tf.Tensor:
        part = data[start : start + length]
        return tf.ensure_shape(tf.pad(part, [[0, length - tf.size(part)]]), [length])

    # Any number may stand in a damaged file; beyond the end there is nothing.
    first = tf.minimum(number(padded(4, 4)), _LONGEST)
    count = number(padded(first, 2))
    entries = data[first + 2 : first + 2 + 12 * count]
    entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], [-1, 12])
    kind = number(entries[:, 2:4])
    value = tf.where(kind == _SHORT, number(entries[:, 8:10]), number(entries[:, 8:12]))
    is_orientation = (
        (number(entries[:, :2]) == _ORIENTATION)
        & ((kind == _SHORT) | (kind == _LONG))
        & (number(entries[:, 4:8]) == 1)
        & (value >= 1)
        & (value <= 8)
    )
    values = tf.where(is_orientation, value, 1)
    return tf.cast(tf.reduce_max(tf.concat([[1], values], axis=0)), tf.int32)
