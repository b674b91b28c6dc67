"""Small upright copies of photographs, made once."""

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import shrink
from tf_dpred.errors import Refused


def write(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = np.linspace(0, 255, height * width).reshape(height, width, 1)
    pixels = np.tile(shades, (1, 1, 3)).astype(np.uint8)
    path.write_bytes(tf.io.encode_png(pixels).numpy())
    return pixels


def run(folder, output, **settings):
    config = Config.from_dict({"data_dir": str(folder)})
    output = None if output is None else str(output)
    return shrink.run(config, FilesConfig(output=output, **settings))


def test_shrink__sizes_names_and_pixels(tmp_path, capsys):
    photos, small = tmp_path / "photos", tmp_path / "small"
    large = write(photos / "a/large.png", 64, 128)
    write(photos / "own.png", 20, 30)
    assert run(photos, small, short_side=32, quality=100) == 0
    assert "2 images: 2 written, 0 there before, 0 left out" in capsys.readouterr().out
    names = sorted(str(p.relative_to(small)) for p in small.rglob("*.*"))
    assert names == ["a/large.png.jpg", "own.png.jpg", "shrink_images.json"]
    copy = tf.io.decode_jpeg((small / "a/large.png.jpg").read_bytes()).numpy()
    means = large.reshape(32, 2, 64, 2, 3).astype(float).mean(axis=(1, 3))
    # What JPEG rounds away, also at its best quality.
    assert np.abs(copy - means).max() < 6 and np.abs(copy - means).mean() < 2
    own = tf.io.decode_jpeg((small / "own.png.jpg").read_bytes())
    assert own.shape == (20, 30, 3)


def test_shrink__continues_and_names_what_it_leaves_out(tmp_path, capsys, caplog):
    photos, small = tmp_path / "photos", tmp_path / "small"
    write(photos / "a.png", 40, 40)
    assert run(photos, small) == 0
    kept = (small / "a.png.jpg").stat().st_mtime_ns
    (photos / "bad.jpg").write_bytes(b"no image")
    write(photos / "b.png", 40, 40)
    capsys.readouterr()
    assert run(photos, small) == 1
    assert capsys.readouterr().out == (
        "3 images: 1 written, 1 there before, 1 left out\n"
    )
    (said,) = caplog.messages
    assert said.startswith("left out bad.jpg: not a file of one of the kinds")
    assert (small / "a.png.jpg").stat().st_mtime_ns == kept
    with pytest.raises(
        Refused, match=r"^--short_side: received 99, accepted: 512, wit"
    ):
        run(photos, small, short_side=99)
    with pytest.raises(Refused, match=r"^--quality: received 50, accepted: 95, with w"):
        run(photos, small, quality=50)
    (small / "shrink_images.json").write_text('{"short_side":')
    with pytest.raises(
        Refused, match=r"^--output: .* with a damaged shrink_images.json"
    ):
        run(photos, small)


def test_shrink__a_link_to_nothing_is_left_out(tmp_path, capsys, caplog):
    photos, small = tmp_path / "photos", tmp_path / "small"
    write(photos / "a.png", 40, 40)
    (photos / "b.png").symlink_to(photos / "gone.png")
    assert run(photos, small) == 1
    assert caplog.messages == ["left out b.png: may not be read"]
    assert capsys.readouterr().out == (
        "2 images: 1 written, 0 there before, 1 left out\n"
    )


def test_shrink__a_picture_longer_than_a_jpeg_can_be(tmp_path, capsys, caplog):
    """A panorama, a scanned strip: the others are made."""
    photos, small = tmp_path / "photos", tmp_path / "small"
    write(photos / "a.png", 40, 40)
    write(photos / "long.png", 10, 70_000)
    write(photos / "z.png", 40, 40)
    assert run(photos, small) == 1
    assert caplog.messages == [
        "left out long.png: a copy of more than 65,500 pixels in a row or column"
    ]
    assert capsys.readouterr().out.startswith("3 images: 2 written")
    # A smaller copy of it is short enough.
    assert run(photos, tmp_path / "smaller", short_side=9) == 0


def test_shrink__an_unreadable_file_is_left_out(tmp_path, capsys, caplog, monkeypatch):
    """The disk fails when it is read: here, the name is that of a directory by then."""
    photos, small = tmp_path / "photos", tmp_path / "small"
    for name in ("a.png", "b.png", "c.png"):
        write(photos / name, 40, 40)
    remember = shrink.remember

    def replace(*arguments):
        (photos / "b.png").unlink()
        (photos / "b.png").mkdir()
        remember(*arguments)

    monkeypatch.setattr(shrink, "remember", replace)
    assert run(photos, small) == 1
    assert caplog.messages == ["left out b.png: a directory, not a regular file"]
    assert capsys.readouterr().out.startswith("3 images: 2 written")


def test_shrink__refuses(tmp_path):
    photos = tmp_path / "photos"
    write(photos / "a.png", 9, 9)
    for output in (photos / "small", photos, photos / "a.png", None):
        with pytest.raises(
            Refused, match=r"^--output: .* accepted: a folder outside of"
        ):
            run(photos, output)
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match=r"^--output: .* accepted: a folder outside of"):
        run(photos, tmp_path / "file")
    with pytest.raises(
        Refused, match=r"^--data_dir: .* accepted: a folder with images"
    ):
        run(tmp_path / "none", tmp_path / "small")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "photos"]


def test_shrink__two_names_that_are_one_where_the_copies_lie(tmp_path, capsys, caplog):
    """As x.png and X.png are on many disks; here, two names of one folder."""
    photos, small = tmp_path / "photos", tmp_path / "small"
    for folder in ("a", "A"):
        write(photos / folder / "x.png", 20, 30)
    (small / "a").mkdir(parents=True)
    (small / "A").symlink_to("a")
    assert run(photos, small) == 1
    assert "2 images: 1 written, 0 there before, 1 left out" in capsys.readouterr().out
    assert "left out a/x.png: a file system that ignores case" in caplog.text
