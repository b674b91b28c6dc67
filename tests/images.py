"""Image files of every kind that people have, good and bad, for the tests."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(height=24, width=36, seed=0):
    """A smooth picture of random colours: uint8 [height, width, 3]."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(colours).resize((width, height)))


def write_good(folder: Path) -> dict[str, np.ndarray]:
    """Files that can be used -> what Pillow sees in them, uint8 [H, W, 3]."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture())
    transparent = image.convert("RGBA")
    transparent.putalpha(image.getchannel("G"))
    other = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    image.save(folder / "plain.jpg", quality=95)
    image.save(folder / "progressive.jpg", quality=95, progressive=True)
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.convert("L").save(folder / "gray.jpg", quality=95)
    for number in range(2, 9):
        image.save(folder / f"exif{number}.jpg", quality=95, exif=exif_of(number))
    image.save(folder / "plain.png")
    image.convert("L").save(folder / "gray.png")
    image.convert("LA").save(folder / "gray_alpha.png")
    transparent.save(folder / "rgba.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("1").save(folder / "one_bit.png")
    sixteen = picture()[..., 0].astype(np.uint16) * 257
    Image.fromarray(sixteen).save(folder / "sixteen_bits.png")
    image.save(folder / "animated.gif", save_all=True, append_images=other)
    image.save(folder / "plain.bmp")
    image.convert("P").save(folder / "palette.bmp")
    image.convert("L").save(folder / "gray.bmp")
    image.convert("1").save(folder / "one_bit.bmp")
    image.save(folder / "animated.webp", save_all=True, append_images=other, quality=95)
    image.save(folder / "animated.png", save_all=True, append_images=other)
    image.save(folder / "exif6.png", exif=exif_of(6))
    image.save(folder / "exif6.webp", exif=exif_of(6), lossless=True)
    transparent.save(folder / "rgba.bmp")
    image.save(folder / "plain.webp", quality=95)
    transparent.save(folder / "rgba.webp", quality=95)
    transparent.save(folder / "lossless_rgba.webp", lossless=True)
    Image.fromarray(picture(1, 1)).save(folder / "one_pixel.png")
    return {path.name: seen_by_pillow(path) for path in sorted(folder.iterdir())}


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    return exif


def seen_by_pillow(path: Path) -> np.ndarray:
    """Upright and RGB, on white; 16 bits as 8."""
    from PIL import ImageOps

    with Image.open(path) as image:
        if image.mode.startswith("I"):
            gray = (np.asarray(image) >> 8).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=-1)
        image = ImageOps.exif_transpose(image)
        if "A" in image.mode:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))


def write_pngs(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Images of noise in two sub-folders -> name, uint8 [20, 16, 3]; sorted."""
    generator = np.random.default_rng(0)
    images = {}
    for index in range(count):
        name = f"{'ab'[index % 2]}/{index:03}.png"
        images[name] = generator.integers(0, 256, (20, 16, 3), dtype=np.uint8)
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(images[name]).save(folder / name)
    return dict(sorted(images.items()))


def write_bad(folder: Path) -> dict[str, str]:
    """Files that cannot be used -> a part of the reason."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture(64, 64))
    image.save(folder / "whole.jpg")
    image.save(folder / "whole.png")
    for name, reason in (("whole.jpg", "jpeg"), ("whole.png", "png")):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / f"cut_{reason}{Path(name).suffix}").write_bytes(
            content[: len(content) // 2]
        )
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("This is not an image.\n" * 9)
    (folder / "huge.png").write_bytes(black_png(30_000))
    image.convert("P").save(folder / "cut_palette.bmp")
    other = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    image.save(folder / "cut_animated.webp", save_all=True, append_images=other)
    for path in (folder / "cut_palette.bmp", folder / "cut_animated.webp"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 3])
    return {
        "cut_jpeg.jpg": "",
        "cut_png.png": "",
        "empty.jpg": "an empty file",
        "text.jpg": "not a file of one of the kinds .jpeg",
        "huge.png": "30000 x 30000 pixels, accepted: at most 178,956,970",
        "cut_palette.bmp": "a damaged BMP file, or one with less than 24 bits",
        "cut_animated.webp": "a damaged WebP file, or an animated one",
    }


def black_png(side: int) -> bytes:
    """A valid one-bit PNG that is small on the disk and large in memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        length, checksum = len(data), zlib.crc32(checked)
        return struct.pack(">I", length) + checked + struct.pack(">I", checksum)

    compressor = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    rows = b"".join(compressor.compress(row) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", rows + compressor.flush())
        + chunk(b"IEND", b"")
    )
