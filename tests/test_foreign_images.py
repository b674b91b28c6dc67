"""Image files as other programs write and damage them, against Pillow and by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from images import exif_of, picture
from PIL import Image, ImageOps

from tf_dpred.data import image_files, image_headers, rewritten
from tf_dpred.data.orientation import exif_orientation

FEW = settings(max_examples=40)
SIDES = st.integers(1, 40)

decoded = tf.function(
    image_files.decode, input_signature=[tf.TensorSpec([], tf.string)]
)
orientation = tf.function(
    exif_orientation, input_signature=[tf.TensorSpec([], tf.string)]
)
size = tf.function(
    lambda content: image_headers.size(image_headers.header_of(content)),
    input_signature=[tf.TensorSpec([], tf.string)],
)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded_file(path, content):
    path.write_bytes(content)
    return decoded(image_files.read(str(path))).numpy()


# BMP ---------------------------------------------------------------------------------

PALETTE = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 99, 255]], np.uint8)
INDICES = np.random.default_rng(0).integers(0, 4, (5, 7))
EXTREME = np.random.default_rng(1).integers(0, 2, (5, 7, 3), dtype=np.uint8) * 255


def bmp(
    bits, rows, *, compression=0, top_down=False, palette=None, old=False, masks=b""
):
    """A file of 7 x 5 pixels from its rows, the upper first."""
    data = b"".join(rows if top_down else rows[::-1])
    if old:  # OS/2: sides of two bytes, palette without fourth byte
        header = struct.pack("<IHHHH", 12, 7, 5, 1, bits)
        colours = b"".join(bytes(c[::-1]) for c in palette)
    else:
        height, used = -5 if top_down else 5, 0 if palette is None else len(palette)
        sizes = (len(data), 0, 0, used, 0)
        header = struct.pack(
            "<IiiHHIIiiII", 40, 7, height, 1, bits, compression, *sizes
        )
        colours = b"".join(bytes([*c[::-1], 0]) for c in palette or ())
    start = 14 + len(header) + len(masks) + len(colours)
    file = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    return file + header + masks + colours + data


def padded(row):
    return bytes(row) + bytes(-len(row) % 4)


def packed(bits):
    """Rows of palette indices, `bits` each."""
    each = 8 // bits
    wide = np.pad(INDICES % 2**bits, [(0, 0), (0, -7 % each)])
    parts = wide.reshape(5, -1, each) << (np.arange(each)[::-1] * bits)
    return [padded(row) for row in parts.sum(-1).astype(np.uint8)]


def runs():
    """RLE8: each pixel a run of one, end of line, end of bitmap."""
    rows = [b"".join(bytes([1, i]) for i in row) + b"\0\0" for row in INDICES]
    return [rows[0] + b"\0\1", *rows[1:]]


def colours_of(bits):
    found = np.zeros((2**bits if bits < 8 else 256, 3), np.uint8)
    found[: min(len(found), 4)] = PALETTE[: len(found)]
    return [tuple(int(value) for value in colour) for colour in found]


def by_palette(bits):
    return np.array(colours_of(bits), np.uint8)[INDICES % 2**bits]


SIXTEEN = [
    padded((row[:, ::-1] // 255 * 31 @ [1, 32, 1024]).astype("<u2").tobytes())
    for row in EXTREME.astype(int)
]
MASKS = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
SIXTEEN_565 = [
    padded((row // 255 @ [0xF800, 0x07E0, 0x001F]).astype("<u2").tobytes())
    for row in EXTREME.astype(int)
]
FULL = [padded(row[:, ::-1].tobytes()) for row in EXTREME]
FOUR = [np.pad(row[:, ::-1], [(0, 0), (0, 1)]).tobytes() for row in EXTREME]

BMPS = {
    "1 bit": (bmp(1, packed(1), palette=colours_of(1)), by_palette(1)),
    "4 bits": (bmp(4, packed(4), palette=colours_of(4)), by_palette(4)),
    "8 bits": (bmp(8, packed(8), palette=colours_of(8)), by_palette(8)),
    "8 bits, top-down": (
        bmp(8, packed(8), palette=colours_of(8), top_down=True),
        by_palette(8),
    ),
    "8 bits, OS/2": (bmp(8, packed(8), palette=colours_of(8), old=True), by_palette(8)),
    "24 bits, OS/2": (bmp(24, FULL, palette=(), old=True), EXTREME),
    "RLE": (bmp(8, runs(), palette=colours_of(8), compression=1), by_palette(8)),
    "16 bits": (bmp(16, SIXTEEN), EXTREME),
    "16 bits, masks": (bmp(16, SIXTEEN_565, compression=3, masks=MASKS), EXTREME),
    "24 bits": (bmp(24, FULL), EXTREME),
    "24 bits, top-down": (bmp(24, FULL, top_down=True), EXTREME),
    "32 bits": (bmp(32, FOUR), EXTREME),
    "32 bits, top-down": (bmp(32, FOUR, top_down=True), EXTREME),
}


@pytest.mark.parametrize("kind", BMPS)
def test_bmp__pixels_of_every_kind(kind, tmp_path):
    content, expected = BMPS[kind]
    np.testing.assert_array_equal(decoded_file(tmp_path / "x.bmp", content), expected)


@pytest.mark.parametrize("kind", BMPS)
def test_bmp__size_limit(kind, tmp_path, monkeypatch):
    """By the header alone: neither Pillow nor TensorFlow decodes it."""
    (tmp_path / "x.bmp").write_bytes(BMPS[kind][0])
    monkeypatch.setattr(image_files, "MAX_PIXELS", 34)
    with pytest.raises(tf.errors.InvalidArgumentError, match="7 x 5 pixels"):
        image_files.decode(image_files.read(str(tmp_path / "x.bmp")))


# Other kinds -------------------------------------------------------------------------


def test_png__palette_with_transparency(tmp_path):
    image = Image.fromarray(picture()).quantize(16)
    content = saved(image, "PNG", transparency=3)
    found = decoded_file(tmp_path / "x.png", content)
    expected = np.where(np.asarray(image)[..., None] == 3, 255, image.convert("RGB"))
    np.testing.assert_array_equal(found, expected)


def test_webp__first_frame_of_an_animation_with_transparency(tmp_path):
    frames = [Image.fromarray(picture(seed=seed)).convert("RGBA") for seed in range(3)]
    content = saved(
        frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True
    )
    found = decoded_file(tmp_path / "x.webp", content)
    np.testing.assert_array_equal(found, picture(seed=0))


@FEW
@given(
    height=SIDES,
    width=SIDES,
    kind=st.sampled_from(["PNG", "GIF", "BMP", "WEBP", "WEBP lossless", "WEBP alpha"]),
    mode=st.sampled_from(["RGB", "P", "1", "L"]),
)
def test_size__equals_pillow(height, width, kind, mode):
    image = Image.fromarray(picture(height, width)).convert(mode)
    if kind == "WEBP alpha":
        image = image.convert("RGBA")
        image.putalpha(7)
    kind, *lossless = kind.split()
    content = saved(image, kind, **({"lossless": True} if lossless else {}))
    assert [int(side) for side in size(tf.constant(content))] == [height, width]


@FEW
@given(
    frames=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4),
    colours=st.integers(2, 256),
)
def test_gif__first_frame_of_any_animation(frames, colours):
    images = [
        Image.fromarray(picture(*sides, seed=i)).quantize(colours)
        for i, sides in enumerate(frames)
    ]
    content = saved(images[0], "GIF", save_all=True, append_images=images[1:])
    short = rewritten.first_frame(content)
    with Image.open(io.BytesIO(short)) as first:
        assert first.n_frames == 1
        np.testing.assert_array_equal(first.convert("RGB"), images[0].convert("RGB"))
    assert rewritten.first_frame(short) == short


WHOLE = {
    "JPEG": saved(Image.fromarray(picture()), "JPEG", exif=exif_of(6)),
    "PNG": saved(Image.fromarray(picture()), "PNG", exif=exif_of(6)),
    "GIF": saved(Image.fromarray(picture()), "GIF"),
    "WEBP": saved(Image.fromarray(picture()), "WEBP", exif=exif_of(6)),
    **{name: content for name, (content, _) in BMPS.items()},
}


@settings(FEW, max_examples=150)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    early=st.booleans(),
    noise=st.binary(max_size=20),
)
def test_problem__of_a_damaged_file(
    kind, cut, changes, early, noise, tmp_path, monkeypatch
):
    """Whatever is cut, changed and added: used, or one line says why it is not."""
    monkeypatch.setattr(image_files, "MAX_PIXELS", 10**6)
    content = bytearray(WHOLE[kind])
    for place, value in changes:  # also where the sizes and offsets stand
        content[int(place * (min(len(content), 80 if early else 10**9) - 1))] = value
    content = bytes(content[: int((1 - cut**3) * len(content))]) + noise
    (tmp_path / "x").write_bytes(content)
    try:
        image = image_files.decode(image_files.read(str(tmp_path / "x")))
        assert image.shape[-1] == 3 and image.shape[0] * image.shape[1] <= 10**6
    except tf.errors.InvalidArgumentError as error:
        reason = image_files.reason_of(error)
        assert reason and "\n" not in reason


@settings(FEW, max_examples=200)
@given(
    content=st.binary(max_size=60), start=st.sampled_from([b"GIF89a", b"BM", b"RIFF"])
)
def test_rewritten__of_any_bytes(content, start):
    """It never raises, and what it cannot read stays as it is."""
    content = start + content
    found = rewritten.rewritten(content, 1000)
    assert found == content or found.startswith((b"GIF8", b"BM"))


# EXIF --------------------------------------------------------------------------------


def tiff(order, entries, orientation, kind, thumbnail, gap):
    """A TIFF structure: entries, perhaps the orientation, that of a thumbnail."""
    little = order == "little"

    def number(value, count):
        return value.to_bytes(count, order)

    def directory(fields, following):
        parts = [number(len(fields), 2)]
        for tag, kind, value in sorted(fields):
            count = 2 if kind == 3 else 4
            parts.append(number(tag, 2) + number(kind, 2) + number(1, 4))
            parts.append(number(value, count).ljust(4, b"\0"))
        return b"".join(parts) + number(following, 4)

    fields = [(tag, 4, value) for tag, value in entries.items()]
    if orientation is not None:
        fields.append((0x0112, kind, orientation))
    start = 8 + len(gap)
    second = start + 2 + 12 * len(fields) + 4
    following = directory([(0x0112, 3, thumbnail)], 0) if thumbnail else b""
    return (
        (b"II*\0" if little else b"MM\0*")
        + number(start, 4)
        + gap
        + directory(fields, second if thumbnail else 0)
        + following
    )


def with_exif(kind, block, late):
    """A small file with the TIFF structure; in a PNG before or behind the image."""
    image = Image.fromarray(picture(6, 9))
    if kind == "JPEG":
        content = saved(image, "JPEG")
        segment = b"Exif\0\0" + block
        marker = b"\xff\xe1" + struct.pack(">H", len(segment) + 2)
        return content[:2] + marker + segment + content[2:]
    if kind == "PNG":
        content = saved(image, "PNG")
        at = content.index(b"IEND" if late else b"IDAT") - 4
        checked = b"eXIf" + block
        length, checksum = len(block), zlib.crc32(checked)
        chunk = struct.pack(">I", length) + checked + struct.pack(">I", checksum)
        return content[:at] + chunk + content[at:]
    content = saved(image, "WEBP", lossless=True)
    extended = struct.pack("<4sIBxxx", b"VP8X", 10, 0x08)
    sides = (8).to_bytes(3, "little") + (5).to_bytes(3, "little")
    chunk = struct.pack("<4sI", b"EXIF", len(block)) + block + bytes(len(block) % 2)
    body = b"WEBP" + extended + sides + content[12:] + chunk
    return struct.pack("<4sI", b"RIFF", len(body)) + body


@settings(FEW, max_examples=80)
@given(
    container=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    order=st.sampled_from(["little", "big"]),
    entries=st.dictionaries(
        st.integers(0x0100, 0x0130).filter(lambda tag: tag != 0x0112),
        st.sampled_from([0, 0x0112, 0x01120003, 0x03001201, 6, 2**32 - 1]),
        max_size=5,
    ),
    orientation_value=st.none() | st.integers(0, 9),
    kind=st.sampled_from([3, 4]),
    thumbnail=st.none() | st.integers(1, 8),
    gap=st.sampled_from([b"", b"\x12\x01\x03\x00\x01\x00\x00\x00\x03\x00\x00\x00"]),
    late=st.booleans(),
)
def test_exif__equals_pillow(
    container, order, entries, orientation_value, kind, thumbnail, gap, late
):
    """Also where the thumbnail is turned, or other bytes look like the entry."""
    block = tiff(order, entries, orientation_value, kind, thumbnail, gap)
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + block)
    known = exif.get(0x0112, 1)
    content = with_exif(container, block, late)
    found = int(orientation(tf.constant(content)))
    assert found == (known if known in range(1, 9) else 1)


@pytest.mark.parametrize("container", ["PNG", "WEBP"])
@pytest.mark.parametrize("number", range(1, 9))
def test_exif__png_and_webp_are_turned_upright(container, number, tmp_path):
    block = tiff("big", {}, number, 3, None, b"")
    for late in (False, True):
        content = with_exif(container, block, late)
        with Image.open(io.BytesIO(content)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        for found in (
            decoded_file(tmp_path / "x", content),
            image_files.decode_or_empty(tf.constant(content)),
        ):
            np.testing.assert_array_equal(found, expected)


def test_exif__behind_a_large_png(tmp_path):
    """Longer than what is searched from its start."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 250, 3), dtype=np.uint8)
    content = saved(Image.fromarray(noise), "PNG")
    assert len(content) > 200_000
    block = tiff("little", {}, 8, 3, None, b"")
    checked = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + checked
    chunk += struct.pack(">I", zlib.crc32(checked))
    content = content[:-12] + chunk + content[-12:]
    found = decoded_file(tmp_path / "x.png", content)
    np.testing.assert_array_equal(found, np.rot90(noise))
