"""tools/shrink_images.py: small upright copies, made once."""

import numpy as np
import pytest
import tensorflow as tf

from tools import shrink_images


def write(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = np.linspace(0, 255, height * width).reshape(height, width, 1)
    pixels = np.tile(shades, (1, 1, 3)).astype(np.uint8)
    path.write_bytes(tf.io.encode_png(pixels).numpy())
    return pixels


def shrink(folder, output, *more):
    shrink_images.main([str(folder), str(output), *more])


def test_shrink__sizes_names_and_pixels(tmp_path, capsys):
    photos, small = tmp_path / "photos", tmp_path / "small"
    large = write(photos / "a/large.png", 64, 128)
    write(photos / "own.png", 20, 30)
    shrink(photos, small, "--short_side=32", "--quality=100")
    assert "2 images: 2 written, 0 there before, 0 left out" in capsys.readouterr().out
    names = sorted(str(p.relative_to(small)) for p in small.rglob("*.*"))
    assert names == ["a/large.png.jpg", "own.png.jpg", "shrink_images.json"]
    copy = tf.io.decode_jpeg((small / "a/large.png.jpg").read_bytes()).numpy()
    means = large.reshape(32, 2, 64, 2, 3).astype(float).mean(axis=(1, 3))
    # What JPEG rounds away, also at its best quality.
    assert np.abs(copy - means).max() < 6 and np.abs(copy - means).mean() < 2
    own = tf.io.decode_jpeg((small / "own.png.jpg").read_bytes())
    assert own.shape == (20, 30, 3)


def test_shrink__continues_and_names_what_it_leaves_out(tmp_path, capsys):
    photos, small = tmp_path / "photos", tmp_path / "small"
    write(photos / "a.png", 40, 40)
    shrink(photos, small)
    kept = (small / "a.png.jpg").stat().st_mtime_ns
    (photos / "bad.jpg").write_bytes(b"no image")
    write(photos / "b.png", 40, 40)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        shrink(photos, small)
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("left out bad.jpg: not a file of one of the kinds")
    assert lines[1] == "3 images: 1 written, 1 there before, 1 left out"
    assert (small / "a.png.jpg").stat().st_mtime_ns == kept
    with pytest.raises(SystemExit, match=r"'short_side': 99.*, accepted: .* 512"):
        shrink(photos, small, "--short_side=99")


def test_shrink__a_link_to_nothing_is_left_out(tmp_path, capsys):
    photos, small = tmp_path / "photos", tmp_path / "small"
    write(photos / "a.png", 40, 40)
    (photos / "b.png").symlink_to(photos / "gone.png")
    with pytest.raises(SystemExit):
        shrink(photos, small)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "left out b.png: may not be read"
    assert lines[1] == "2 images: 1 written, 0 there before, 1 left out"


def test_shrink__refuses(tmp_path):
    write(tmp_path / "a.png", 9, 9)
    with pytest.raises(SystemExit, match="accepted: a folder outside"):
        shrink(tmp_path, tmp_path / "small")
    with pytest.raises(SystemExit, match="accepted: a folder with images"):
        shrink(tmp_path / "none", tmp_path.parent / "small")
    with pytest.raises(SystemExit):
        shrink(tmp_path, tmp_path.parent / "small", "--quality=0")
