import io

import numpy as np
import pytest
import tensorflow as tf
from images import black_png, picture, write_bad, write_good
from PIL import Image

from tf_dpred.data import image_files, rewritten

GOOD = ("animated.gif", "animated.png", "animated.webp", "cmyk.jpg", "exif6.png")
GOOD += ("exif6.webp", "gray.bmp", "gray.jpg", "gray.png", "gray_alpha.png")
GOOD += tuple(f"exif{number}.jpg" for number in range(2, 9))
GOOD += ("lossless_rgba.webp", "one_bit.bmp", "one_bit.png", "one_pixel.png")
GOOD += ("palette.bmp", "palette.png")
GOOD += ("plain.bmp", "plain.jpg", "plain.png", "plain.webp", "progressive.jpg")
GOOD += ("rgba.bmp", "rgba.png", "rgba.webp", "sixteen_bits.png")

BAD = ("cut_animated.webp", "cut_jpeg.jpg", "cut_palette.bmp", "cut_png.png")
BAD += ("empty.jpg", "huge.png", "text.jpg")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return folder, write_good(folder)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    return folder, write_bad(folder)


in_a_graph = tf.function(
    image_files.decode, input_signature=[tf.TensorSpec([], tf.string)]
)


def decode(content):
    """As the input pipeline does: traced for any content."""
    return in_a_graph(content).numpy()


def test_good__all_are_looked_at(good):
    assert sorted(good[1]) == sorted(GOOD)


def test_bad__all_are_looked_at(bad):
    assert sorted(bad[1]) == sorted(BAD)


@pytest.mark.parametrize("name", GOOD)
def test_good__equals_pillow(good, name):
    folder, expected = good
    assert image_files.problem(folder / name) is None
    found = decode(image_files.read(str(folder / name)))
    assert found.shape == expected[name].shape
    difference = np.abs(found.astype(int) - expected[name])
    # TensorFlow decodes JPEG by the fast integer transform, Pillow by the accurate one.
    assert difference.mean() <= (3 if name.endswith(".jpg") else 0)


@pytest.mark.parametrize(
    "name",
    BAD,
)
def test_bad__named_reason(bad, name):
    folder, reasons = bad
    reason = image_files.problem(folder / name)
    assert reason
    assert "\n" not in reason and "node" not in reason
    assert reasons[name] in reason
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode((folder / name).read_bytes())


def test_problem__missing_and_a_directory(tmp_path):
    assert "No such file" in image_files.problem(tmp_path / "missing.jpg")
    assert "directory" in image_files.problem(tmp_path)


def test_size_limit__in_every_format(tmp_path, monkeypatch):
    """The size is read from the header: one pixel less is accepted."""
    image = Image.fromarray(picture(30, 50))
    transparent = image.convert("RGBA")
    transparent.putalpha(image.getchannel("G"))
    for name in ("a.jpg", "a.png", "a.gif", "a.bmp", "a.webp"):
        image.save(tmp_path / name)
    transparent.save(tmp_path / "b.webp")
    transparent.save(tmp_path / "c.webp", lossless=True)
    for path in sorted(tmp_path.iterdir()):
        content = tf.constant(path.read_bytes())
        monkeypatch.setattr(image_files, "MAX_PIXELS", 30 * 50)
        assert image_files.decode(content).shape == (30, 50, 3), path
        monkeypatch.setattr(image_files, "MAX_PIXELS", 30 * 50 - 1)
        with pytest.raises(tf.errors.InvalidArgumentError, match="50 x 30 pixels"):
            image_files.decode(content)


def test_huge__is_a_valid_file_that_is_never_decoded(tmp_path):
    """Pillow reads a smaller one of its kind, so it is the size that is refused."""
    (tmp_path / "small.png").write_bytes(black_png(100))
    assert Image.open(tmp_path / "small.png").getpixel((99, 99)) == 0
    assert image_files.problem(tmp_path / "small.png") is None


@pytest.mark.parametrize("order", ("little", "big"))
def test_exif__byte_order_and_position(order):
    """Behind JFIF and a comment, in either byte order."""
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    comment = b"\xff\xfe\x00\x06abcd"

    def number(value, count):
        return value.to_bytes(count, order)

    entries = [(0x010F, 2, 4, 0), (0x0112, 3, 1, None)]
    tiff = (b"II" if order == "little" else b"MM") + number(42, 2) + number(8, 4)
    tiff += number(len(entries), 2)
    for tag, kind, count, value in entries:
        tiff += number(tag, 2) + number(kind, 2) + number(count, 4)
        tiff += number(value, 4) if value is not None else number(6, 2) + b"\0\0"
    exif = b"Exif\0\0" + tiff + number(0, 4)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    for before in (b"", jfif, jfif + comment):
        content = b"\xff\xd8" + before + segment + b"\xff\xdb\x00\x02"
        assert int(image_files.exif_orientation(tf.constant(content))) == 6
    without = b"\xff\xd8" + jfif + b"\xff\xdb\x00\x02"
    assert int(image_files.exif_orientation(tf.constant(without))) == 1


def test_exif__broken_blocks_are_upright(good):
    """No cut or changed byte of an EXIF block makes it fail."""
    content = (good[0] / "exif6.jpg").read_bytes()
    orientation = tf.function(
        image_files.exif_orientation, input_signature=[tf.TensorSpec([], tf.string)]
    )
    assert int(orientation(tf.constant(content))) == 6
    for length in range(60):
        assert int(orientation(tf.constant(content[:length]))) in (1, 6)
    for place in range(2, 80):
        for value in (0, 0x7F, 0xFF):
            changed = content[:place] + bytes([value]) + content[place + 1 :]
            assert 1 <= int(orientation(tf.constant(changed))) <= 8


def test_gif__frames_behind_the_first_are_not_unpacked(tmp_path):
    frames = [Image.fromarray(picture(40, 60, seed=seed)) for seed in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    content = (tmp_path / "a.gif").read_bytes()
    short = rewritten.first_frame(content)
    assert len(short) < len(content) / 3
    assert Image.open(io.BytesIO(short)).n_frames == 1
    np.testing.assert_array_equal(decode(short), decode(content))
    found = image_files.read(str(tmp_path / "a.gif"))
    assert found.numpy() == short
    for length in range(len(short) - 1):  # cut anywhere: as it is, for the decoder
        assert rewritten.first_frame(content[:length]) == content[:length]


def test_gif__a_frame_larger_than_the_screen_counts(tmp_path, monkeypatch):
    Image.fromarray(picture(40, 60)).save(tmp_path / "a.gif")
    content = (tmp_path / "a.gif").read_bytes()
    lying = content[:6] + bytes([1, 0, 1, 0]) + content[10:]
    (tmp_path / "a.gif").write_bytes(lying)
    monkeypatch.setattr(image_files, "MAX_PIXELS", 40 * 60 - 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="60 x 40 pixels"):
        image_files.decode(image_files.read(str(tmp_path / "a.gif")))
