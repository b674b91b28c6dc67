"""Features on the disk: their kinds, what continues them, and what is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
from images import write_pngs

from tf_dpred.config import FilesConfig
from tf_dpred.encoders import embed, feature_store, settings
from tf_dpred.encoders.embeddings import Embeddings
from tf_dpred.encoders.feature_store import Store, Target
from tf_dpred.errors import Refused

KINDS = ["features.npz", "features.parquet", "features/"]


@pytest.fixture(scope="module")
def encoder(exported):
    given = {"export_dir": str(exported)}
    return embed.open_file_encoder(settings.of_encoder(given))


@pytest.fixture(autouse=True)
def often(encoder, monkeypatch):
    """Small batches, so that few images are many; the encoder is loaded once."""
    monkeypatch.setattr(embed, "open_file_encoder", lambda config: encoder)
    monkeypatch.setattr(embed, "BATCH", 4)
    monkeypatch.setattr(embed, "SAVED_EVERY", 8)
    monkeypatch.setattr(feature_store, "BLOCK", 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """22 images and two files that are none."""
    folder = tmp_path_factory.mktemp("images")
    write_pngs(folder, 22)
    (folder / "a" / "005.png").write_bytes(b"\x89PNG no more")
    (folder / "b" / "020.jpg").write_text("no image")
    return folder


def run(exported, folder, output, **given):
    given = {"export_dir": str(exported), "data_dir": str(folder)} | given
    embed.run(settings.of_encoder(given), FilesConfig(output=str(output)))


def contents(path):
    """Name -> bytes of a file, or of all files in a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return {file.name: file.read_bytes() for file in files}


def test_embed__every_kind_holds_the_same(exported, folder, tmp_path, capsys):
    read = {}
    for name in KINDS:
        run(exported, folder, f"{tmp_path}/{name}")
        read[name] = Embeddings.read(f"{tmp_path}/{name}")
        assert "22 of 24 images, representations of length 4" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "features",
        "features.npz",
        "features.parquet",
    ]
    assert isinstance(read["features/"].representation, np.memmap)
    with np.load(tmp_path / "features.npz") as expected:
        projection = np.load(tmp_path / "features" / "projection.npy", mmap_mode="r")
        np.testing.assert_array_equal(projection, expected["projection"])
        for found in read.values():
            assert list(found.files) == expected["files"].tolist()
            np.testing.assert_array_equal(
                found.representation, expected["representation"]
            )
            assert found.weights == str(expected["weights"]) != ""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "features.parquet").to_pydict()
    np.testing.assert_array_equal(np.array(table["projection"]), projection)
    manifest = json.loads((tmp_path / "features" / "manifest.json").read_text())
    expected = {"listed": 24, "done": 24, "rows": 22}
    assert {name: manifest[name] for name in expected} == expected
    assert manifest["widths"] == {"representation": 4, "projection": 3}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("appended", "saved"),
    [(0, 0), (1, 0), (3, 0), (4, 8), (5, 8), (6, 16)],
    # The first batch is of three, one after the other: one of its files is none.
)
def test_embed__continues_to_the_same_bytes(
    name, appended, saved, exported, folder, tmp_path, monkeypatch, caplog
):
    """Also where the killed process had written more than it had put on the disk."""
    run(exported, folder, f"{tmp_path}/whole-{name}")
    killed = tmp_path / f"killed-{name}"
    append, calls = Store.append, []

    def kill(store, names, outputs):
        if len(calls) == appended:
            for file in store._files.values():
                file.write(b"cut sh")
                file.flush()
            raise KeyboardInterrupt
        calls.append(names)
        append(store, names, outputs)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "append", kill)
        with pytest.raises(KeyboardInterrupt):
            run(exported, folder, f"{tmp_path}/killed-{name}")
    assert killed.exists() == (name == "features/")
    caplog.set_level("INFO", logger="absl")
    run(exported, folder, f"{tmp_path}/killed-{name}")
    assert (f"continued at {saved} of 24" in caplog.text) == (saved > 0)
    whole = contents(tmp_path / f"whole-{name}")
    found = contents(killed)
    assert list(found.values()) == [whole[n.replace("killed", "whole")] for n in found]
    assert not list(tmp_path.glob(".*"))


def test_embed__a_folder_that_is_complete_is_kept(
    exported, folder, tmp_path, monkeypatch, capsys
):
    run(exported, folder, f"{tmp_path}/features/")
    before = contents(tmp_path / "features")
    monkeypatch.setattr(embed.FileEncoder, "__call__", None)
    run(exported, folder, tmp_path / "features")
    assert capsys.readouterr().out.splitlines()[1].startswith("kept ")
    assert contents(tmp_path / "features") == before


def test_embed__of_other_images(exported, folder, tmp_path, caplog):
    """A folder of features is refused, what a file is made of is begun anew."""
    other = tmp_path / "other"
    write_pngs(other, 3)
    run(exported, folder, f"{tmp_path}/features/")
    line = r"--output: received '.*features', which holds features with the images \w+"
    with pytest.raises(Refused, match=line):
        run(exported, other, f"{tmp_path}/features/")
    shutil.copytree(tmp_path / "features", tmp_path / ".features.npz.part")
    caplog.set_level("INFO", logger="absl")
    run(exported, other, tmp_path / "features.npz")
    assert "has other images: begun anew" in caplog.text
    assert len(Embeddings.read(f"{tmp_path}/features.npz").files) == 3


def test_store__of_other_weights_or_cut_short(tmp_path):
    names, rows = ["a", "b"], {"representation": np.ones((1, 3), np.float32)}
    with Store(tmp_path / "a", "1", names) as store:
        store.append(["a"], rows)
        store.save(1)
        with pytest.raises(Refused, match="a directory that no other run uses"):
            Store(tmp_path / "a", "1", names)
    with pytest.raises(Refused, match="which holds features with the weights 1"):
        Store(tmp_path / "a", "2", names)
    with (tmp_path / "a" / "representation.npy").open("r+b") as file:
        file.truncate(100)
    with Store(tmp_path / "a", "1", names) as store:
        with pytest.raises(Refused, match=r"with a representation\.npy that was cut"):
            store.append(["b"], rows)


def test_store__names_of_every_kind(tmp_path):
    names = ["\udcfe.jpg", "a\nb.jpg", "\u732b.jpg", 'q".jpg']
    with Store(tmp_path / "f", "", names) as store:
        store.append(names, {"representation": np.ones((4, 2), np.float32)})
        store.save(4)
        for kind in ("npz", "parquet"):
            shutil.copytree(tmp_path / "f", tmp_path / f".f.{kind}.part")
            Target(tmp_path / f"f.{kind}", kind).finish(store)
    assert list(Embeddings.read(f"{tmp_path}/f").files) == names
    assert list(Embeddings.read(f"{tmp_path}/f.npz").files) == names
    shown = ["\\udcfe.jpg", "a\\nb.jpg", "\u732b.jpg", 'q".jpg']
    assert list(Embeddings.read(f"{tmp_path}/f.parquet").files) == shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("full/", "accepted: the name of a new folder, or one that --mode=embed began"),
        ("file/", "accepted: the name of a new folder, or one that --mode=embed began"),
        ("no/features/", "began, in a directory that exists"),
        ("full", r"the name of an npz file \(or .parquet, or a folder: features/\) in"),
        ("a.parquet", "accepted: a name without .parquet, or pip install pyarrow fir"),
    ],
)
def test_target__refuses_in_one_line(name, message, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    (tmp_path / "file").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Refused, match=f"^--output: received '.*{name}'.*{message}"):
        Target.of(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "a folder without manife"),
        (lambda folder: (folder / "files.jsonl").unlink(), "No such file"),
        (lambda folder: (folder / "representation.npy").write_text("?"), "ile"),
        (
            lambda folder: (folder / "files.jsonl").write_text('"a"\n'),
            "with .1,. files a",
        ),
    ],
)
def test_embeddings__a_folder_that_is_damaged(change, message, tmp_path):
    with Store(tmp_path / "f", "1", ["a", "b", "c"]) as store:
        store.append(["a", "b"], {"representation": np.ones((2, 3), np.float32)})
        store.save(2)
        with pytest.raises(Refused, match=r"2 of 3 images: the same --mode=embed cont"):
            Embeddings.read(f"{tmp_path}/f")
        store.save(3)
    assert len(Embeddings.read(f"{tmp_path}/f").files) == 2
    change(tmp_path / "f")
    with pytest.raises(Refused, match=f"^--features: received .*{message}"):
        Embeddings.read(f"{tmp_path}/f")
