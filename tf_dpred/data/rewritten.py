"""Image files that TensorFlow decodes wrongly or not at all, as others that it can."""

from __future__ import annotations

import io
import struct


def rewritten(content: bytes, max_pixels: int) -> bytes:
    """What to decode in place of a GIF, BMP or WebP file.

    Of a GIF, its first frame. A BMP with a palette, of 16 bits or compressed, and an
    animated WebP, as a plain BMP of its first frame. All else as it is, and so is what
    is damaged or has more than `max_pixels`: it is refused by what decodes it.
    """
    if content.startswith(b"GIF8"):
        return first_frame(content)
    if content.startswith(b"BM") and not _is_plain_bmp(content):
        return _plain_bmp("BMP", content, max_pixels)
    if content.startswith(b"RIFF"):
        return _plain_bmp("WEBP", content, max_pixels)
    return content


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


def _is_plain_bmp(content: bytes) -> bool:
    """Whether TensorFlow decodes it: 24 bits per pixel, no compression, no OS/2."""
    if len(content) < 34:
        return False
    header, bits, compression = struct.unpack_from("<I10xHI", content, 14)
    return header >= 40 and bits == 24 and compression == 0


def _plain_bmp(kind: str, content: bytes, max_pixels: int) -> bytes:
    """The first frame as a BMP of 24 bits per pixel, for the fastest decoder.

    Args:
      kind: "BMP" or "WEBP".
      content: of the file.
      max_pixels: that are decoded.
    """
    # Not before it is needed: few folders hold such files.
    from PIL import BmpImagePlugin, WebPImagePlugin

    # The class is called itself, since Image.open would try all others and have a
    # limit of its own.
    reader = {
        "BMP": BmpImagePlugin.BmpImageFile,
        "WEBP": WebPImagePlugin.WebPImageFile,
    }[kind]
    try:
        with reader(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > max_pixels:
                return content
            plain = io.BytesIO()
            image.convert("RGB").save(plain, "BMP")
    except Exception:
        # Pillow raises whatever a damaged file leads to. The decoder refuses the file.
        return content
    return plain.getvalue()
