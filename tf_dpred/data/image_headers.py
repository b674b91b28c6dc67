"""What the first bytes of an image file say, in a graph: its kind, its size.

Source: the specifications of PNG (ISO 15948, 5), GIF89a (18), BMP (BITMAPINFOHEADER)
and WebP (RFC 9649, 2.5 to 2.7).
"""

from __future__ import annotations

import tensorflow as tf

from tf_dpred.data import packed

# Bytes in which the chunks before the image of a PNG are looked for.
_BEFORE_IDAT = 16_384
_HEADER = 64  # bytes that hold the size in all formats but JPEG


def begins(encoded: tf.Tensor, text: bytes) -> tf.Tensor:
    """As `_holds` at 0, but cheaper: it needs no header. Every file is asked this."""
    return tf.equal(tf.strings.substr(encoded, 0, len(text)), text)


def header_of(encoded: tf.Tensor) -> tf.Tensor:
    """The first bytes, int64 [_HEADER]; zeros after the end."""
    start = tf.strings.substr(encoded, 0, _HEADER)
    data = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)
    padded = tf.pad(data, [[0, _HEADER - tf.size(data)]])
    return tf.ensure_shape(padded, [_HEADER])


def _holds(header: tf.Tensor, at: int, text: bytes) -> tf.Tensor:
    return tf.reduce_all(header[at : at + len(text)] == list(text))


def _number(header: tf.Tensor, at: int, count: int, order: str = "little") -> tf.Tensor:
    """The unsigned number of `count` bytes."""
    powers = [256**i for i in range(count)]
    if order == "big":
        powers.reverse()
    return tf.reduce_sum(header[at : at + count] * tf.constant(powers, tf.int64))


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return begins(encoded, b"\xff\xd8\xff")


def is_png(header: tf.Tensor) -> tf.Tensor:
    return _holds(header, 0, b"\x89PNG\r\n\x1a\n")


def is_webp(header: tf.Tensor) -> tf.Tensor:
    return _holds(header, 0, b"RIFF") & _holds(header, 8, b"WEBP")


def is_packed(header: tf.Tensor) -> tf.Tensor:
    return _holds(header, 0, packed.MARK)


def is_deep_png(header: tf.Tensor) -> tf.Tensor:
    """Whether it is a PNG of 16 bits."""
    return is_png(header) & (header[24] == 16)


def may_be_transparent_png(header: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Whether it has opacity as a channel, or a chunk tRNS where such a one stands."""
    with_channel = (header[25] == 4) | (header[25] == 6)
    return is_png(header) & tf.cond(
        with_channel,
        lambda: True,
        lambda: tf.strings.regex_full_match(
            tf.strings.substr(encoded, 0, _BEFORE_IDAT), r"\C*tRNS\C*"
        ),
    )


def is_known(header: tf.Tensor) -> tf.Tensor:
    """Whether it is a PNG, WebP, GIF or BMP file, or packed."""
    others = [_holds(header, 0, other) for other in (b"GIF8", b"BM", packed.MARK)]
    return is_png(header) | is_webp(header) | tf.reduce_any(tf.stack(others))


def is_palette_bmp(header: tf.Tensor) -> tf.Tensor:
    """Less than 24 bits per pixel, or the header of OS/2, which TensorFlow misreads."""
    few_bits = _holds(header, 0, b"BM") & (_number(header, 28, 2) < 24)
    return _is_old_bmp(header) | few_bits


def _is_old_bmp(header: tf.Tensor) -> tf.Tensor:
    return _holds(header, 0, b"BM") & (_number(header, 14, 4) < 40)


def _is_extended_webp(header: tf.Tensor, flag: int) -> tf.Tensor:
    has_flag = tf.bitwise.bitwise_and(header[20], flag) > 0
    return is_webp(header) & _holds(header, 12, b"VP8X") & has_flag


def is_animated_webp(header: tf.Tensor) -> tf.Tensor:
    return _is_extended_webp(header, 0x02)


def is_webp_with_exif(header: tf.Tensor) -> tf.Tensor:
    return _is_extended_webp(header, 0x08)


def is_webp_with_alpha(header: tf.Tensor) -> tf.Tensor:
    bit = tf.bitwise.bitwise_and(header[24], 0x10) > 0
    lossless = is_webp(header) & _holds(header, 12, b"VP8L") & bit
    return lossless | _is_extended_webp(header, 0x10)


def size(header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of a file of any kind but JPEG; 0 where the kind is unknown."""
    low14 = (1 << 14) - 1
    lossless = _number(header, 21, 4)
    right = tf.bitwise.right_shift(lossless, 14)
    signed = _number(header, 22, 4)  # of BMP: negative if stored from the top
    webp = is_webp(header)
    kinds = (
        (is_png(header), _number(header, 20, 4, "big"), _number(header, 16, 4, "big")),
        (is_packed(header), _number(header, 8, 4), _number(header, 12, 4)),
        (_holds(header, 0, b"GIF8"), _number(header, 8, 2), _number(header, 6, 2)),
        (
            _holds(header, 0, b"BM"),
            tf.minimum(signed, 2**32 - signed),
            _number(header, 18, 4),
        ),
        (_is_old_bmp(header), _number(header, 20, 2), _number(header, 18, 2)),
        (
            webp & _holds(header, 12, b"VP8 "),
            tf.bitwise.bitwise_and(_number(header, 28, 2), low14),
            tf.bitwise.bitwise_and(_number(header, 26, 2), low14),
        ),
        (
            webp & _holds(header, 12, b"VP8L"),
            tf.bitwise.bitwise_and(right, low14) + 1,
            tf.bitwise.bitwise_and(lossless, low14) + 1,
        ),
        (
            webp & _holds(header, 12, b"VP8X"),
            _number(header, 27, 3) + 1,
            _number(header, 24, 3) + 1,
        ),
    )
    height = width = tf.constant(0, tf.int64)
    for applies, its_height, its_width in kinds:
        height = tf.where(applies, its_height, height)
        width = tf.where(applies, its_width, width)
    return height, width
