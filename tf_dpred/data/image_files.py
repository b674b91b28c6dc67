"""Image files as people have them: checked before they are decoded, and turned upright.

TensorFlow's decoders do the work. Files that they decode wrongly or crash on are found
here by their header: pictures too large for the memory, palette BMP (its indices would
be read as gray values), animated WebP (its decoder corrupts the heap), WebP with
transparency (decoded only if asked for four channels) and the EXIF orientation of
photographs (not applied). `decode` is a graph of stateless operations, so that the same
function serves for training and inside an export. Only `read`, which shortens a GIF,
calls Python.

Transparency is dropped and the colour below it kept. 16 bits become 8. The first frame
of an animated GIF is taken.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpred.data import attempts

MAX_PIXELS = 2**29 // 3
"""Of one image: half a gigabyte decoded. Pillow has the same limit."""

_HEADER = 64  # bytes that hold the size in all formats but JPEG
_EXIF_WITHIN = 4096  # bytes of a file
# The value in group 1 (little endian) or 2 (big endian). \C is any byte.
_ORIENTATION = (
    r"\C*?Exif\x00\x00(?:"
    r"II\x2a\x00\C*?\x12\x01\x03\x00\x01\x00\x00\x00([\x01-\x08])\x00|"
    r"MM\x00\x2a\C*?\x01\x12\x00\x03\x00\x00\x00\x01\x00([\x01-\x08])"
    r")\C*"
)

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp")


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes one JPEG, PNG, GIF, BMP or WebP file.

    Args:
      encoded: string scalar, the file's content.

    Returns:
      uint8 [H, W, 3], upright; H times W is at most `MAX_PIXELS`.

    Raises:
      tf.errors.InvalidArgumentError: it is none of these, broken or too large.
    """
    with tf.control_dependencies(_accepted(_complaint(encoded))):
        encoded = tf.identity(encoded)
    return _upright(_decoders(encoded, lambda decoder: decoder(encoded)), encoded)


def decode_or_empty(encoded: tf.Tensor) -> tf.Tensor:
    """As `decode`, but returns uint8 [0, 0, 3] where that raises an error."""
    empty = tf.zeros([0, 0, 3], tf.uint8)

    def attempt(decoder: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        one = tf.data.Dataset.from_tensors(encoded).map(decoder)
        return attempts.single_element_or(one, empty)

    image = tf.cond(
        tf.equal(_complaint(encoded), ""),
        lambda: _decoders(encoded, attempt),
        lambda: empty,
    )
    return _upright(image, encoded)


def read(path: tf.Tensor) -> tf.Tensor:
    """The content of a file, a string scalar; of a GIF, up to its first frame."""
    content = tf.io.read_file(path)

    def shorten(gif: bytes | np.ndarray) -> bytes:
        # Outside of a graph it is an array without dimensions.
        return first_frame(np.asarray(gif, dtype=object).item())

    def shortened() -> tf.Tensor:
        # Declared stateless, or --deterministic would not run it in parallel.
        short = tf.numpy_function(shorten, [content], tf.string, stateful=False)
        return tf.ensure_shape(short, [])

    return tf.cond(_begins(content, b"GIF8"), shortened, lambda: content)


def first_frame(gif: bytes) -> bytes:
    """A GIF file without the frames behind its first one.

    TensorFlow's decoder unpacks all frames. It also makes room for a frame that is
    larger than the screen in the header, while `decode` checks the screen; therefore
    the screen is set to the size of the frame, if that is larger.
    A file that ends within its first frame is returned as it is.
    Source: GIF89a specification, 17 to 22.
    """

    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    def after_blocks(at: int) -> int:
        while gif[at]:
            at += 1 + gif[at]
        return at + 1

    try:
        at = 13 + table(gif[10])
        while gif[at] == 0x21:  # an extension
            at = after_blocks(at + 2)
        if gif[at] != 0x2C:
            return gif
        left, top, width, height = struct.unpack_from("<4H", gif, at + 1)
        end = after_blocks(at + 10 + table(gif[at + 9]) + 1)
    except (IndexError, struct.error):
        return gif
    screen = struct.unpack_from("<2H", gif, 6)
    sides = (max(screen[0], left + width), max(screen[1], top + height))
    size = struct.pack("<2H", *(min(side, 2**16 - 1) for side in sides))
    return gif[:6] + size + gif[10:end] + b"\x3b"


def _decoders(encoded: tf.Tensor, call: Callable[..., tf.Tensor]) -> tf.Tensor:
    """Calls the right one of TensorFlow's decoders by `call(decoder)`."""

    def jpeg(content: tf.Tensor) -> tf.Tensor:
        height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(content))
        with tf.control_dependencies(_accepted(_size_complaint(height, width))):
            return tf.io.decode_jpeg(content, channels=3)

    def usual(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        return tf.ensure_shape(image, [None, None, 3])

    def webp_with_alpha(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_webp(content, channels=4)[0, ..., :3]
        return tf.ensure_shape(image, [None, None, 3])

    def not_jpeg() -> tf.Tensor:
        header = _header(encoded)
        return tf.cond(
            _is_webp(header) & _is_webp_with_alpha(header),
            lambda: call(webp_with_alpha),
            lambda: call(usual),
        )

    return tf.cond(_is_jpeg(encoded), lambda: call(jpeg), not_jpeg)


def problem(path: str | Path) -> str | None:
    """Decodes a file: the reason, in words, why it cannot be used, or None."""
    try:
        with tf.device("CPU:0"):
            _decode_once(read(os.fsencode(path)))
    except tf.errors.OpError as error:
        return reason_of(error)
    return None


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _decode_once(encoded: tf.Tensor) -> tf.Tensor:
    return decode(encoded)


def exif_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG file: an int32 scalar, 1 (upright) to 8.

    Looks for the entry itself (tag 0x0112, one SHORT) behind the mark of an EXIF block
    and its byte order; 1 where there is none in the first 4 KiB.
    Source: EXIF 2.32, 4.6.2 (entries) and 4.6.4 A (orientation).
    """
    start = tf.strings.substr(encoded, 0, _EXIF_WITHIN)

    def value() -> tf.Tensor:
        byte = tf.strings.regex_replace(start, _ORIENTATION, r"\1\2")
        return tf.cast(tf.io.decode_raw(byte, tf.uint8)[0], tf.int32)

    found = tf.strings.regex_full_match(start, _ORIENTATION)
    return tf.cond(found, value, lambda: tf.constant(1))


def turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undoes an EXIF orientation (1 to 8) of uint8 [H, W, 3]."""

    def transposed() -> tf.Tensor:
        # tf.transpose of integers makes oneDNN print an error.
        height, width = tf.unstack(tf.shape(image)[:2])
        places = tf.range(width)[:, None] + width * tf.range(height)
        return tf.gather(tf.reshape(image, [-1, 3]), places)

    def turned() -> tf.Tensor:
        swapped = tf.cond(orientation >= 5, transposed, lambda: image)
        mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
        upended = tf.reduce_any(orientation == [3, 4, 7, 8])
        axes = tf.boolean_mask([1, 0], tf.stack([mirrored, upended]))
        return tf.reverse(swapped, axes)

    return tf.cond(orientation > 1, turned, lambda: image)


def _upright(image: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    return tf.cond(
        _is_jpeg(encoded),
        lambda: turn_upright(image, exif_orientation(encoded)),
        lambda: image,
    )


def _complaint(encoded: tf.Tensor) -> tf.Tensor:
    """Why the header forbids decoding, in words; empty if it does not.

    It is empty for every JPEG: to find its size takes a parser, which may fail.
    """

    def not_jpeg() -> tf.Tensor:
        header = _header(encoded)
        kinds = ", ".join(EXTENSIONS)
        complaints = (
            (tf.equal(tf.strings.length(encoded), 0), "an empty file"),
            (~_is_known(header), f"not a file of one of the kinds {kinds}"),
            (_is_palette_bmp(header), "a BMP file with less than 24 bits per pixel"),
            (_is_animated_webp(header), "an animated WebP file"),
        )
        found = _size_complaint(*_size(header))
        for applies, words in reversed(complaints):
            found = tf.where(applies, words, found)
        return found

    return tf.cond(_is_jpeg(encoded), lambda: tf.constant(""), not_jpeg)


def _size_complaint(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    accepted = f"{{}} x {{}} pixels, accepted: at most {MAX_PIXELS:,} in all"
    words = tf.strings.format(accepted, (width, height))
    return tf.where(height * width > MAX_PIXELS, words, "")


def _accepted(complaint: tf.Tensor) -> list[tf.Operation]:
    """Raises unless the complaint is empty; for `tf.control_dependencies`."""
    check = tf.debugging.Assert(tf.equal(complaint, ""), [complaint])
    return [] if check is None else [check]


def _begins(encoded: tf.Tensor, text: bytes) -> tf.Tensor:
    """As `_holds` at 0, but cheaper: it needs no header. Every file is asked this."""
    return tf.equal(tf.strings.substr(encoded, 0, len(text)), text)


def _header(encoded: tf.Tensor) -> tf.Tensor:
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


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return _begins(encoded, b"\xff\xd8\xff")


def _is_webp(header: tf.Tensor) -> tf.Tensor:
    return _holds(header, 0, b"RIFF") & _holds(header, 8, b"WEBP")


def _is_known(header: tf.Tensor) -> tf.Tensor:
    others = (b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")
    return _is_webp(header) | tf.reduce_any(
        tf.stack([_holds(header, 0, other) for other in others])
    )


def _is_palette_bmp(header: tf.Tensor) -> tf.Tensor:
    return _holds(header, 0, b"BM") & (_number(header, 28, 2) < 24)


def _is_extended_webp(header: tf.Tensor, flag: int) -> tf.Tensor:
    has_flag = tf.bitwise.bitwise_and(header[20], flag) > 0
    return _holds(header, 12, b"VP8X") & has_flag


def _is_animated_webp(header: tf.Tensor) -> tf.Tensor:
    return _is_extended_webp(header, 0x02)


def _is_webp_with_alpha(header: tf.Tensor) -> tf.Tensor:
    bit = tf.bitwise.bitwise_and(header[24], 0x10) > 0
    lossless = _holds(header, 12, b"VP8L") & bit
    return lossless | _is_extended_webp(header, 0x10)


def _size(header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of a file of any kind but JPEG."""
    low14 = (1 << 14) - 1
    lossless = _number(header, 21, 4)
    right = tf.bitwise.right_shift(lossless, 14)
    signed = _number(header, 22, 4)  # of BMP: negative if stored from the top
    kinds = (
        (
            _holds(header, 0, b"\x89PNG"),
            _number(header, 20, 4, "big"),
            _number(header, 16, 4, "big"),
        ),
        (_holds(header, 0, b"GIF8"), _number(header, 8, 2), _number(header, 6, 2)),
        (
            _holds(header, 0, b"BM"),
            tf.minimum(signed, 2**32 - signed),
            _number(header, 18, 4),
        ),
        (
            _holds(header, 12, b"VP8 "),
            tf.bitwise.bitwise_and(_number(header, 28, 2), low14),
            tf.bitwise.bitwise_and(_number(header, 26, 2), low14),
        ),
        (
            _holds(header, 12, b"VP8L"),
            tf.bitwise.bitwise_and(right, low14) + 1,
            tf.bitwise.bitwise_and(lossless, low14) + 1,
        ),
        (
            _holds(header, 12, b"VP8X"),
            _number(header, 27, 3) + 1,
            _number(header, 24, 3) + 1,
        ),
    )
    height = width = tf.constant(0, tf.int64)
    for applies, its_height, its_width in kinds:
        height = tf.where(applies, its_height, height)
        width = tf.where(applies, its_width, width)
    return height, width


def reason_of(error: tf.errors.OpError) -> str:
    """TensorFlow's message without its graph's names."""
    lines = [line.strip() for line in error.message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    text = lines[-1] if lines else type(error).__name__
    text = text.rpartition("}} ")[2].partition(" [Op:")[0]
    return text.removeprefix("assertion failed: [").removesuffix("]")
