"""Image files that TensorFlow decodes wrongly or not at all, as others that it can."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from tf_dpred.data import packed


def rewritten(content: bytes, max_pixels: int) -> bytes:
    """What to decode in place of a GIF, BMP or WebP file.

    Of a GIF, its first frame. A GIF with transparency or with a frame that leaves a
    part of its screen free, a BMP with a palette, of 16 or 32 bits or compressed, and
    an animated WebP, as `packed` values of the first frame. All else as it is, and so
    is what is damaged or has more than `max_pixels`: it is refused by what decodes it.
    """
    if content.startswith(b"GIF8"):
        short = first_frame(content)
        return _by_pillow("GIF", short, max_pixels) if _shows_ground(short) else short
    if content.startswith(b"BM") and not _is_plain_bmp(content):
        return _by_pillow("BMP", content, max_pixels)
    if content.startswith(b"RIFF"):
        return _by_pillow("WEBP", content, max_pixels)
    return content


def first_frame(gif: bytes) -> bytes:
    """A GIF file without the frames behind its first one.

    TensorFlow's decoder unpacks all frames. It also makes room for a frame that is
    larger than the screen in the header, while `decode` checks the screen; therefore
    the screen is set to the size of the frame, if that is larger.
    A file that ends within its first frame is returned as it is.
    Source: GIF89a specification, 17 to 22.
    """
    try:
        at, end = _frame(gif)
        left, top, width, height = struct.unpack_from("<4H", gif, at + 1)
    except (IndexError, struct.error):
        return gif
    screen = struct.unpack_from("<2H", gif, 6)
    sides = (max(screen[0], left + width), max(screen[1], top + height))
    size = struct.pack("<2H", *(min(side, 2**16 - 1) for side in sides))
    return gif[:6] + size + gif[10:end] + b"\x3b"


def _frame(gif: bytes) -> tuple[int, int]:
    """Where the first frame begins and ends.

    Raises:
      IndexError: there is none that is whole.
    """

    def table(flags: int) -> int:
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    def after_blocks(at: int) -> int:
        while gif[at]:
            at += 1 + gif[at]
        return at + 1

    at = 13 + table(gif[10])
    while gif[at] == 0x21:  # an extension
        at = after_blocks(at + 2)
    if gif[at] != 0x2C:
        raise IndexError
    return at, after_blocks(at + 10 + table(gif[at + 9]) + 1)


def _shows_ground(gif: bytes) -> bool:
    """Whether the first frame has a transparent colour, or is smaller than its screen.

    TensorFlow makes the one black, and leaves out the other.
    """
    try:
        at, _ = _frame(gif)
    except IndexError:
        return False
    screen = struct.unpack_from("<2H", gif, 6)
    frame = struct.unpack_from("<4H", gif, at + 1)
    # The graphic control extension, of which the lowest bit is the flag.
    control = gif.rfind(b"\x21\xf9\x04", 0, at)
    return frame != (0, 0, *screen) or (control >= 0 and bool(gif[control + 3] & 1))


def _is_plain_bmp(content: bytes) -> bool:
    """Whether TensorFlow decodes it: 24 bits per pixel, no compression, no OS/2."""
    if len(content) < 34:
        return False
    header, bits, compression = struct.unpack_from("<I10xHI", content, 14)
    return header >= 40 and bits == 24 and compression == 0


def _by_pillow(kind: str, content: bytes, max_pixels: int) -> bytes:
    """The first frame of a file, `packed`.

    Args:
      kind: "BMP", "GIF" or "WEBP".
      content: of the file.
      max_pixels: that are decoded.
    """
    # Not before it is needed: few folders hold such files.
    from PIL import BmpImagePlugin, GifImagePlugin, WebPImagePlugin

    # The class is called itself, since Image.open would try all others and have a
    # limit of its own.
    readers: dict[str, Any] = {
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }
    try:
        with readers[kind](io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > max_pixels:
                return content
            return packed.pack(*values_of(image, kind))
    except Exception:
        # Pillow raises whatever a damaged file leads to. The decoder refuses the file.
        return content


def values_of(image: Any, kind: str = "") -> tuple[np.ndarray, bool]:
    """Values [H, W, c] of a Pillow image, and whether the last channel is opacity.

    Args:
      image: of any mode.
      kind: of its file.
    """
    if kind == "GIF" and image.tile and "transparency" not in image.info:
        # What no frame covers is transparent, whatever the colour that fills it.
        region = image.tile[0][1]
        colours = np.asarray(image.convert("RGBA")).copy()
        outside = np.ones(colours.shape[:2], bool)
        left, top, right, bottom = region
        outside[top:bottom, left:right] = False
        colours[outside] = 0
        return colours, True
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16), False
    if image.mode in ("I", "F"):
        return np.asarray(image), False
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La")
    if has_alpha or "transparency" in image.info:
        colours = np.asarray(image.convert("RGBA"))
        # Many programs that write BMP leave the fourth byte 0.
        if kind == "BMP" and not colours[..., 3].any():
            return colours[..., :3], False
        return colours, True
    return np.asarray(image.convert("RGB")), False
