"""Representations of a folder's images: what is written, left out and refused."""

import os

import numpy as np
import pytest
import tensorflow as tf
from images import write_pngs

from tf_dpred.config import FilesConfig
from tf_dpred.encoders import embed, settings
from tf_dpred.errors import Refused


def run(exported, folder, output):
    given = {"export_dir": str(exported), "data_dir": str(folder)}
    output = None if output is None else str(output)
    embed.run(settings.of_encoder(given), FilesConfig(output=output))


def test_embed__rows_belong_to_files(exported, tmp_path, capsys, caplog):
    folder = tmp_path / "images"
    images = write_pngs(folder, 70)  # more than a batch
    (folder / "a" / "bad.jpg").write_bytes(b"\xff\xd8\xff no more")
    (folder / "a" / "link.jpg").symlink_to(folder / "gone.jpg")
    (folder / "b" / "loop.jpg").symlink_to("loop.jpg")
    (folder / "notes.txt").write_text("no image")
    output = tmp_path / "features"  # np.savez would make features.npz of it
    caplog.set_level("INFO", logger="absl")
    run(exported, folder, output)
    features = np.load(output)
    assert features["files"].tolist() == list(images)
    encoder = tf.saved_model.load(str(exported))
    for row in (0, 33, 69):
        image = images[str(features["files"][row])]
        expected = encoder(image[None])
        for name in ("representation", "projection"):
            np.testing.assert_allclose(
                features[name][row], expected[name][0], rtol=1e-4, atol=1e-5
            )
    assert "left out a/bad.jpg" in caplog.text
    assert "left out a/link.jpg" in caplog.text and "No such file" in caplog.text
    assert "left out b/loop.jpg" in caplog.text
    assert f"online network of {exported}" in caplog.text
    printed = capsys.readouterr().out
    expected = "70 of 73 images, representations of length 4"
    assert printed == f"wrote {output}: {expected}\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features", "images"]


@pytest.mark.parametrize(
    ("make", "kind"), [(os.mkdir, "a directory"), (os.mkfifo, "a named pipe")]
)
def test_embed__what_is_no_file_by_the_time_it_is_read(
    exported, tmp_path, caplog, make, kind
):
    names = list(write_pngs(tmp_path, 3))
    make(tmp_path / "other.png")
    given = {"export_dir": str(exported), "data_dir": str(tmp_path)}
    encode = embed.open_file_encoder(settings.of_encoder(given))
    parts = list(embed.embed(encode, tmp_path, [*names, "other.png"]))
    assert [name for kept, _ in parts for name in kept] == names
    assert sum(len(outputs["projection"]) for _, outputs in parts) == 3
    assert caplog.messages[-1] == f"left out other.png: {kind}, not a regular file"


@pytest.mark.parametrize(
    ("folder", "output", "message"),
    [
        ("none", "out.npz", r"--data_dir: received '.*none', accepted: a folder with"),
        ("images", None, "--output: received None, accepted: the name of an npz file"),
        ("images", "no/out.npz", "--output: received '.*no/out.npz', accepted: the na"),
        ("images", "images", "--output: received '.*images', accepted: the name of an"),
        ("bad", "out.npz", "--data_dir: received '.*', accepted: a folder with an ima"),
    ],
)
def test_embed__refuses_in_one_line(folder, output, message, exported, tmp_path):
    write_pngs(tmp_path / "images", 1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "bad.png").write_text("no image")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Refused, match=f"^{message}"):
        run(exported, tmp_path / folder, output and tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


def test_embed__an_export_of_another_network(exported, tmp_path):
    write_pngs(tmp_path, 1)
    given = {"export_dir": str(exported), "data_dir": str(tmp_path)}
    config = settings.of_encoder(given | {"encoder": "target"})
    with pytest.raises(Refused, match="--encoder: received 'target', accepted: online"):
        embed.run(config, FilesConfig(output=str(tmp_path / "out.npz")))
