"""Decoded images as bytes, for a graph: what Python decodes where TensorFlow cannot.

Sixteen bytes, then the values [H, W, c] row by row: a mark, type of the values, whether
the last channel is opacity, c, H and W. Or another mark and the reason, in words, why
there is no image. No file begins like this: a text does not hold the first byte, and no
format has this mark.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import tensorflow as tf

MARK, REFUSAL = b"\x93pix", b"\x93why"
TYPES = (tf.uint8, tf.uint16, tf.float32)
_HEADER = struct.Struct("<4sBBHII")


def pack(values: np.ndarray, has_alpha: bool = False) -> bytes:
    """Packs an image.

    Args:
      values: [H, W] or [H, W, c]; integers of more than 16 bits, signed ones and floats
        of other precisions become float32.
      has_alpha: whether the last channel is opacity.
    """
    if values.ndim == 2:
        values = values[..., np.newaxis]
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.float32)
    kind = TYPES.index(tf.as_dtype(values.dtype))
    height, width, channels = values.shape
    header = _HEADER.pack(MARK, kind, has_alpha, channels, height, width)
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return header + np.ascontiguousarray(little).tobytes()


def refusal(reason: str) -> bytes:
    """What stands for an image that cannot be used."""
    return REFUSAL + " ".join(reason.split()).encode(errors="backslashreplace")


def unpack(
    content: tf.Tensor, finish: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """`finish` of the values [H, W, c] and of whether there is opacity.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are damaged.
    """
    start = tf.strings.substr(content, 0, _HEADER.size)
    header = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int32)
    numbers = tf.io.decode_raw(start, tf.int32)
    shape = [numbers[2], numbers[3], header[6] + 256 * header[7]]
    rest = tf.strings.substr(content, _HEADER.size, tf.strings.length(content))

    def of_type(dtype: tf.DType) -> Callable[[], tf.Tensor]:
        return lambda: finish(
            tf.reshape(tf.io.decode_raw(rest, dtype), shape), header[5] > 0
        )

    return tf.switch_case(header[4], [of_type(dtype) for dtype in TYPES])
