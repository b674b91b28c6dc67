"""Image files as people have them: checked before they are decoded, and turned upright.

TensorFlow's decoders do the work. Files that they decode wrongly or crash on are found
here by their header: pictures too large for the memory, palette BMP (its indices would
be read as gray values), animated WebP (its decoder corrupts the heap), transparency
(dropped), 16 bits (cut to 8), CMYK (decoded inaccurately) and the EXIF orientation of
photographs (not applied). `decode` is a graph of stateless operations, so that the same
function serves for training and inside an export. Only `read`, which rewrites some
kinds, calls Python.

What values become pixels, and what lies behind transparency: `pixels`. The first frame
of an animation is taken.
"""

from __future__ import annotations

import errno
import functools
import io
import math
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from tf_dpred.data import attempts, contents, decoders, image_headers, packed
from tf_dpred.data.orientation import exif_orientation, turn_upright
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.rewritten import rewritten

MAX_PIXELS = 2**29 // 3
"""Of one image: half a gigabyte decoded. Pillow has the same limit."""

MAX_BYTES = 2**30
"""Of one file, which is read whole."""

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".webp", *decoders.EXTENSIONS)


USUAL = Pixels()


def decode(encoded: tf.Tensor, pixels: Pixels = USUAL) -> tf.Tensor:
    """Decodes one JPEG, PNG, GIF, BMP or WebP file, or a `packed` image.

    Args:
      encoded: string scalar, the file's content.
      pixels: how its values become pixels of C channels.

    Returns:
      uint8 [H, W, C], upright; H times W is at most `MAX_PIXELS`.

    Raises:
      tf.errors.InvalidArgumentError: it is none of these, broken or too large.
    """
    with tf.control_dependencies(_accepted(_complaint(encoded))):
        encoded = tf.identity(encoded)
    image = _decoders(encoded, pixels, lambda decoder: decoder(encoded))
    return _upright(image, encoded)


def decode_or_empty(encoded: tf.Tensor, pixels: Pixels = USUAL) -> tf.Tensor:
    """As `decode`, but returns uint8 [0, 0, C] where that raises an error."""
    empty = tf.zeros([0, 0, pixels.channels], tf.uint8)

    def attempt(decoder: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        one = tf.data.Dataset.from_tensors(encoded).map(decoder)
        return attempts.single_element_or(one, empty)

    image = tf.cond(
        tf.equal(_complaint(encoded), ""),
        lambda: _decoders(encoded, pixels, attempt),
        lambda: empty,
    )
    return _upright(image, encoded)


def read(path: tf.Tensor, pixels: Pixels = USUAL) -> tf.Tensor:
    """What to decode of a file, or of a page of it; a string scalar.

    It is the content of JPEG, PNG and most WebP files. Others are `rewritten`, or
    decoded by `decoders` and `packed`.

    Args:
      path: string scalar; "stack.tif#2" is the second page.
      pixels: says what the pages and the channels of a file are.
    """
    config = pixels.config

    def decoded(file: BinaryIO, page: int | None) -> bytes | None:
        return decoders.decoded(
            file,
            page,
            channels=config.channels,
            joined=config.pages == "channels",
            max_pixels=MAX_PIXELS,
        )

    def of_several(path: bytes | np.ndarray) -> bytes:
        # Outside of a graph it is an array without dimensions.
        name, page = decoders.file_of(os.fsdecode(np.asarray(path).item()))
        try:
            # Not its content, since a page may be a small part of it.
            with open(name, "rb") as file:
                return decoded(file, page) or b""
        except OSError:
            return b""  # in an archive, a bucket, or nowhere: reading it says so

    def rewrite(content: bytes | np.ndarray) -> bytes:
        given = np.asarray(content, dtype=object).item()
        found = decoded(io.BytesIO(given), None)
        return rewritten(given, MAX_PIXELS) if found is None else found

    def by(function: Callable[..., bytes], given: tf.Tensor) -> tf.Tensor:
        # Declared stateless, or --deterministic would not run it in parallel.
        other = tf.numpy_function(function, [given], tf.string, stateful=False)
        return tf.ensure_shape(other, [])

    def one() -> tf.Tensor:
        content = contents.read(path)

        def may_be_animated() -> tf.Tensor:
            header = image_headers.header_of(content)
            return image_headers.is_animated_webp(header)

        usual = image_headers.is_jpeg(content)
        usual |= image_headers.begins(content, b"\x89PNG")
        webp = image_headers.begins(content, b"RIFF")
        asked = tf.cond(webp, may_be_animated, lambda: ~usual)
        return tf.cond(asked, lambda: by(rewrite, content), lambda: content)

    kinds = "|".join(kind[1:] for kind in decoders.OF_SEVERAL)
    several = tf.strings.regex_full_match(path, rf"(?is).*\.({kinds})(#\d+)?")
    found = tf.cond(several, lambda: by(of_several, path), lambda: tf.constant(b""))
    return tf.cond(tf.equal(found, b""), one, lambda: found)


def read_or_empty(path: tf.Tensor, pixels: Pixels = USUAL) -> tf.Tensor:
    """As `read`, but returns an empty string where that raises an error."""
    one = tf.data.Dataset.from_tensors(path).map(lambda path: read(path, pixels))
    return attempts.single_element_or(one, "")


def unless_special(paths: tf.Tensor) -> tf.Tensor:
    """Paths, strings of any shape; empty in place of those of no regular files.

    A listing holds regular files only, but one may be replaced by a pipe later, and to
    read that would wait for ever. One call for many paths costs 3 microseconds each.
    """

    def looked_at(paths: bytes | np.ndarray) -> np.ndarray:
        # Outside of a graph it is an array without dimensions.
        given = np.asarray(paths, dtype=object)
        found = ["" if _is_special(path) else path for path in given.reshape(-1)]
        return np.array(found, dtype=object).reshape(given.shape)

    paths = tf.convert_to_tensor(paths)
    # Declared stateless, or --deterministic would not run it in parallel.
    found = tf.numpy_function(looked_at, [paths], tf.string, stateful=False)
    return tf.ensure_shape(found, paths.shape)


def _is_special(path: bytes) -> bool:
    try:
        name, _ = decoders.file_of(os.fsdecode(path))
        return not stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return False  # reading it says why


def _decoders(
    encoded: tf.Tensor, pixels: Pixels, call: Callable[..., tf.Tensor]
) -> tf.Tensor:
    """Calls the right one of the decoders by `call(decoder)`."""

    def jpeg(content: tf.Tensor) -> tf.Tensor:
        height, width, components = tf.unstack(tf.image.extract_jpeg_shape(content))
        # Its own gray, of which three equal channels would be thrice as large.
        planes = 1 if pixels.channels == 1 else 3
        with tf.control_dependencies(_accepted(_size_complaint(height, width))):
            values = tf.cond(
                components == 4,  # CMYK or YCCK, of which an error grows
                lambda: tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE"),
                lambda: tf.io.decode_jpeg(content, planes),
            )
        return pixels.finished(values, False)

    return tf.cond(
        image_headers.is_jpeg(encoded),
        lambda: call(jpeg),
        lambda: _others(encoded, pixels, call),
    )


def _others(
    encoded: tf.Tensor, pixels: Pixels, call: Callable[..., tf.Tensor]
) -> tf.Tensor:
    """As `_decoders`, of all kinds but JPEG."""

    def usual(content: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        return pixels.finished(tf.ensure_shape(image, [None, None, 3]), False)

    def transparent_webp(content: tf.Tensor) -> tf.Tensor:
        return pixels.finished(tf.io.decode_webp(content, channels=4)[0], True)

    def of_python(content: tf.Tensor) -> tf.Tensor:
        return packed.unpack(content, pixels.finished)

    def png(channels: int, dtype: tf.DType) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda content: pixels.finished(
            tf.io.decode_png(content, channels, dtype), channels == 4
        )

    header = image_headers.header_of(encoded)
    deep = image_headers.is_deep_png(header)
    transparent = image_headers.may_be_transparent_png(header, encoded)
    kinds = (
        (image_headers.is_webp_with_alpha(header), transparent_webp),
        (image_headers.is_packed(header), of_python),
        (transparent & ~deep, png(4, tf.uint8)),
        (transparent & deep, png(4, tf.uint16)),
        (~transparent & deep, png(3, tf.uint16)),
    )
    number = tf.constant(0)
    for place, (applies, _) in enumerate(kinds, start=1):
        number = tf.where(applies, place, number)
    decoders = (usual, *(decoder for _, decoder in kinds))
    return tf.switch_case(
        number, [lambda decoder=decoder: call(decoder) for decoder in decoders]
    )


def decode_stored(image: tf.Tensor, pixels: Pixels = USUAL) -> tf.Tensor:
    """Turns a data set's image into uint8 [H, W, C]; of an animation, the first frame.

    An encoded image is neither turned upright nor checked, so that it is the one that
    others who use the data set see; `decode` is for people's own files.

    Args:
      image: encoded, a string scalar, or its values, uint8 [H, W, c].
      pixels: how values become pixels of C channels.
    """
    if image.dtype != tf.string:
        return pixels.finished(image, False)

    def jpeg() -> tf.Tensor:
        values = tf.io.decode_image(image, channels=3, expand_animations=False)
        return pixels.finished(tf.ensure_shape(values, [None, None, 3]), False)

    return tf.cond(
        image_headers.is_jpeg(image),
        jpeg,
        lambda: _others(image, pixels, lambda decoder: decoder(image)),
    )


def problem(path: str | Path, pixels: Pixels = USUAL) -> str | None:
    """Decodes a file: the reason, in words, why it cannot be used, or None."""
    name, _ = decoders.file_of(str(path))
    try:
        found = os.stat(name)
    except OSError:  # reading it fails as well, if it is not in an archive
        if (reason := contents.damage(str(path))) is not None:
            return reason
    else:
        if kind := special_kind(found.st_mode):
            return f"{kind}, not a regular file"
        if found.st_size > most_bytes(name):
            return f"{found.st_size:,} bytes, accepted: at most {MAX_BYTES:,}"
    try:
        with tf.device("CPU:0"):
            _decode_once(pixels)(read(os.fsencode(path), pixels))
    except tf.errors.OpError as error:
        return reason_of(error)
    return None


def most_bytes(name: str) -> float:
    """Of a file; one that may hold several images is read in parts."""
    return math.inf if name.lower().endswith(decoders.OF_SEVERAL) else MAX_BYTES


def special_kind(mode: int) -> str:
    """What a file is that is not a regular one, which may be endless; "" if it is.

    Args:
      mode: of `os.stat`.
    """
    if stat.S_ISREG(mode):
        return ""
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((words for applies, words in kinds if applies(mode)), "a special file")


@functools.cache
def _decode_once(pixels: Pixels) -> Callable[[tf.Tensor], tf.Tensor]:
    def decoded(encoded: tf.Tensor) -> tf.Tensor:
        return decode(encoded, pixels)

    return tf.function(decoded, input_signature=[tf.TensorSpec([], tf.string)])


def _upright(image: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    return turn_upright(image, exif_orientation(encoded))


def _complaint(encoded: tf.Tensor) -> tf.Tensor:
    """Why the header forbids decoding, in words; empty if it does not.

    It is empty for every JPEG: to find its size takes a parser, which may fail.
    """

    def not_jpeg() -> tf.Tensor:
        header = image_headers.header_of(encoded)
        kinds = ", ".join(EXTENSIONS)
        refused = image_headers.begins(encoded, packed.REFUSAL)
        complaints = (
            (tf.equal(tf.strings.length(encoded), 0), "an empty file"),
            (
                ~image_headers.is_known(header),
                f"not a file of one of the kinds {kinds}",
            ),
            # `read` has rewritten those that are whole.
            (
                image_headers.is_palette_bmp(header),
                "a damaged BMP file, or one with less than 24 bits per pixel",
            ),
            (
                image_headers.is_animated_webp(header),
                "a damaged WebP file, or an animated one",
            ),
        )
        too_large = _size_complaint(*image_headers.size(header))
        found = tf.constant("")
        for applies, words in reversed(complaints):
            found = tf.where(applies, words, found)
        found = tf.where(tf.equal(too_large, ""), found, too_large)
        # A position behind the end of an empty file is an error.
        return tf.cond(
            refused,
            lambda: tf.strings.substr(encoded, len(packed.REFUSAL), 2**31 - 1),
            lambda: found,
        )

    return tf.cond(image_headers.is_jpeg(encoded), lambda: tf.constant(""), not_jpeg)


def _size_complaint(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
    accepted = f"{{}} x {{}} pixels, accepted: at most {MAX_PIXELS:,} in all"
    words = tf.strings.format(accepted, (width, height))
    return tf.where(height * width > MAX_PIXELS, words, "")


def _accepted(complaint: tf.Tensor) -> list[tf.Operation]:
    """Raises unless the complaint is empty; for `tf.control_dependencies`."""
    check = tf.debugging.Assert(tf.equal(complaint, ""), [complaint])
    return [] if check is None else [check]


def reason_of(error: tf.errors.OpError) -> str:
    """TensorFlow's message without its graph's names."""
    lines = [line.strip() for line in error.message.splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    text = lines[-1] if lines else type(error).__name__
    text = text.rpartition("}} ")[2].partition(" [Op:")[0]
    text = re.sub(r"^Error in user-defined function .*? iterator: \S+: ", "", text)
    return text.removeprefix("assertion failed: [").removesuffix("]")


def is_of_the_system(error: tf.errors.OpError) -> bool:
    """Whether the system could not read a file, for whatever reason."""
    said = reason_of(error).rpartition("; ")[2]
    return said in {os.strerror(number) for number in errno.errorcode}
