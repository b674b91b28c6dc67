"""Values to pixels: transparency, depth and ranges, against Pillow and NumPy."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from images import picture
from PIL import Image

from tf_dpred.config import Config, FilesConfig, PixelConfig
from tf_dpred.data import check, image_files, value_range
from tf_dpred.data.pixels import Pixels
from tf_dpred.errors import Refused

COLOUR = Image.fromarray(picture(24, 36))
GRAY = COLOUR.convert("L")
FEW = COLOUR.quantize(15)
RED, WHITE = (255, 0, 0), (255, 255, 255)


def transparent(image, mode="RGBA"):
    image = image.convert("RGBA")
    image.putalpha(COLOUR.getchannel("G"))
    return image.convert(mode)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def on_a_larger_screen():
    content = saved(FEW, "GIF")
    return content[:6] + bytes([40, 0, 30, 0]) + content[10:]


def ycck():
    content = bytearray(saved(COLOUR.convert("CMYK"), "JPEG", quality=95))
    adobe = content.index(b"Adobe")
    content[adobe + 11] = 2  # its transform
    return bytes(content)


def pixel(image, place=(3, 4)):
    found = image.getpixel(place)
    return found if isinstance(found, int) else tuple(found)


FRAMES = {"save_all": True, "append_images": [transparent(COLOUR.rotate(180))]}
KINDS = {
    "RGBA PNG": saved(transparent(COLOUR), "PNG"),
    "gray PNG with opacity": saved(transparent(GRAY, "LA"), "PNG"),
    "palette PNG, one colour transparent": saved(FEW, "PNG", transparency=3),
    "palette PNG, opacity of each": saved(FEW, "PNG", transparency=bytes(range(15))),
    "RGB PNG, one colour transparent": saved(COLOUR, "PNG", transparency=pixel(COLOUR)),
    "gray PNG, one value transparent": saved(GRAY, "PNG", transparency=pixel(GRAY)),
    "1-bit PNG, transparent": saved(GRAY.convert("1"), "PNG", transparency=0),
    "transparent GIF": saved(FEW, "GIF", transparency=3),
    "GIF with frames": saved(FEW, "GIF", transparency=3, **FRAMES),
    "WebP": saved(transparent(COLOUR), "WEBP"),
    "lossless WebP": saved(transparent(COLOUR), "WEBP", lossless=True),
    "animated WebP": saved(transparent(COLOUR), "WEBP", lossless=True, **FRAMES),
    "palette BMP": saved(FEW, "BMP"),
    "1-bit BMP": saved(GRAY.convert("1"), "BMP"),
    "32-bit BMP": saved(transparent(COLOUR), "BMP"),
    "palette PNG": saved(FEW, "PNG"),
    "CMYK JPEG": saved(COLOUR.convert("CMYK"), "JPEG", quality=95),
    "progressive CMYK JPEG": saved(COLOUR.convert("CMYK"), "JPEG", progressive=True),
    "YCCK JPEG": ycck(),
}


def by_pillow(content, background):
    image = Image.open(io.BytesIO(content))
    if image.mode == "CMYK":
        return np.asarray(image.convert("RGB"))
    colours = image.convert("RGBA")
    if background is None:
        return np.asarray(colours)[..., :3]
    ground = Image.new("RGBA", colours.size, (*background, 255))
    return np.asarray(Image.alpha_composite(ground, colours))[..., :3]


@functools.cache
def in_a_graph(**settings):
    pixels = Pixels(PixelConfig(**settings))
    specs = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda x: image_files.decode(x, pixels), specs)


def decoded(content, tmp_path, **settings):
    path = tmp_path / "x"
    path.write_bytes(content)
    found = in_a_graph(**settings)(image_files.read(str(path)))
    assert found.dtype == tf.uint8
    return found.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_decode__transparency_and_odd_kinds_equal_pillow(kind, tmp_path):
    for text, background in (("white", WHITE), ("255,0,0", RED), ("stored", None)):
        found = decoded(KINDS[kind], tmp_path, background=text)
        difference = np.abs(found.astype(int) - by_pillow(KINDS[kind], background))
        # Both round where opacity mixes two colours.
        assert difference.max() <= (0 if background is None else 1), text


def test_decode__what_no_frame_of_a_gif_covers_is_transparent(tmp_path):
    found = decoded(on_a_larger_screen(), tmp_path)
    assert found.shape == (30, 40, 3)
    np.testing.assert_array_equal(found[:24, :36], FEW.convert("RGB"))
    assert (found[24:] == 255).all() and (found[:, 36:] == 255).all()


def test_decode__a_bmp_whose_fourth_byte_is_never_set_is_opaque(tmp_path):
    """As many programs write it: masks that name opacity, and zeros there."""
    content = bytearray(saved(COLOUR, "BMP"))
    rows = np.asarray(COLOUR)[::-1, :, ::-1]
    four = np.dstack([rows, np.zeros_like(rows[..., :1])]).tobytes()
    masks = b"".join(
        m.to_bytes(4, "little") for m in (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    )
    header = bytearray(content[:54])
    header[10:14] = (14 + 108).to_bytes(4, "little")
    header[14:18] = (108).to_bytes(4, "little")
    header[28:30], header[30:34] = b"\x20\0", b"\x03\0\0\0"
    found = decoded(bytes(header + masks + bytes(52) + four), tmp_path)
    np.testing.assert_array_equal(found, COLOUR)


DEEP = np.random.default_rng(0).integers(0, 65536, (24, 36, 4), dtype=np.uint16)
RANGES = {
    "auto": (0, 65535),
    "16bit": (0, 65535),
    "12bit": (0, 4095),
    "8bit": (0, 255),
    "1000,60000": (1000, 60000),
    "0,10000,5000,50000,0,65535": ([0, 5000, 0], [10000, 50000, 65535]),
}


@pytest.mark.parametrize("text", RANGES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4], ids=["L", "LA", "RGB", "RGBA"])
def test_decode__sixteen_bits(channels, text, tmp_path):
    content = png16(DEEP[..., :channels])
    low, high = np.array(RANGES[text], float)
    colours = DEEP[..., : channels - 1 if channels in (2, 4) else channels]
    expected = np.clip((colours - low) / (high - low), 0, 1) * 255
    if channels in (2, 4):
        opacity = DEEP[..., channels - 1 : channels] / 65535
        expected = 255 + (expected - 255) * opacity
    found = decoded(content, tmp_path, value_range=text)
    assert np.abs(found - np.broadcast_to(expected, found.shape)).max() <= 0.501


def png16(values):
    return tf.io.encode_png(values).numpy()


def test_decode__eight_bits_stay_but_for_numbers(tmp_path):
    content = saved(COLOUR, "PNG")
    for name in ("auto", "8bit", "12bit", "16bit"):
        found = decoded(content, tmp_path, value_range=name)
        np.testing.assert_array_equal(found, COLOUR)
    found = decoded(content, tmp_path, value_range="50,150")
    expected = np.clip((np.asarray(COLOUR, float) - 50) * 2.55, 0, 255)
    assert np.abs(found - expected).max() <= 0.501


# What the images say ------------------------------------------------------------------


def write(folder, most, count=6, kind=np.uint16):
    folder.mkdir(exist_ok=True)
    for index in range(count):
        ramp = np.linspace(0, most, 24 * 36).reshape(24, 36, 1).astype(kind)
        (folder / f"{most}_{index}.png").write_bytes(png16(ramp))


def settled(folder, given="auto"):
    config = Config.from_dict({"value_range": given})
    files = sorted(path.name for path in folder.iterdir())
    samples = value_range.samples(folder, files, config.pixels)
    return value_range.settled(config, samples).pixels.value_range


@pytest.mark.parametrize(
    ("most", "name"), [(255, "8bit"), (900, "12bit"), (4095, "12bit"), (4096, "16bit")]
)
def test_settled__auto_is_the_least_depth_of_cameras(most, name, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    write(tmp_path, most)
    assert settled(tmp_path) == name
    assert caplog.messages[0].startswith(
        f"--value_range=auto: 0 to {2 ** int(name[:-3]) - 1} "
    )


def test_settled__eight_bits_are_not_looked_at(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    COLOUR.save(tmp_path / "a.png")
    COLOUR.save(tmp_path / "b.jpg")
    assert settled(tmp_path) == "auto" and not caplog.messages


def test_settled__narrow_images_warn(tmp_path, caplog):
    write(tmp_path, 3000)
    assert settled(tmp_path, "16bit") == "16bit"
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert line.startswith("6 of 6 images of more than 8 bits") and "3000_0.png" in line
    caplog.clear()
    assert settled(tmp_path) == "12bit"
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_settled__percentiles_leave_outliers_out(tmp_path):
    values = np.random.default_rng(0).integers(500, 1500, (100, 100, 1))
    values[0, :3] = 60000
    (tmp_path / "a.png").write_bytes(png16(values.astype(np.uint16)))
    low, high = map(float, settled(tmp_path, "percentile").split(","))
    np.testing.assert_allclose(
        (low, high), np.percentile(values, [0.1, 99.9]), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"value_range": "11bit"},
            "--value_range: received '11bit', accepted: auto, 8b",
        ),
        ({"value_range": "5,5"}, "min below max"),
        ({"value_range": "1,2,3"}, "two numbers, or two for each of 3 channels"),
        ({"value_range": "nan,1"}, "two numbers"),
        (
            {"background": "puce"},
            "--background: received 'puce', accepted: white, gray",
        ),
        ({"background": "0,0,256"}, "three whole numbers from 0 to 255"),
    ],
)
def test_config__refused(settings, line):
    with pytest.raises(Refused) as error:
        Config.from_dict(settings)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_check_images__settles_and_says_opacity(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    write(tmp_path, 4000, 2)
    (tmp_path / "t.png").write_bytes(KINDS["RGBA PNG"])
    config = Config.from_dict({"data_dir": str(tmp_path)})
    assert check.run(config, FilesConfig()) == 0
    said = "\n".join(caplog.messages)
    assert "1 of 3 PNG files that were looked at have opacity (t.png)" in said
    assert "--value_range=auto: 0 to 4095 become 0 to 255" in said
