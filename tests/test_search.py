"""The nearest neighbours of an image: list, picture, JSON and refusals."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from images import write_pngs

from tf_dpred.config import FilesConfig
from tf_dpred.encoders import embed, search, settings, sheets
from tf_dpred.errors import Refused


@pytest.fixture(scope="module")
def home(exported, tmp_path_factory):
    """A directory with `images` and their `features.npz` -> it, names."""
    home = tmp_path_factory.mktemp("home")
    images = write_pngs(home / "images", 6)
    given = {"export_dir": str(exported), "data_dir": str(home / "images")}
    files = FilesConfig(output=str(home / "features.npz"))
    embed.run(settings.of_encoder(given), files)
    return home, list(images)


def run(exported, home, data_dir="images", **files):
    """Runs the mode; names are below `home`, and None is a flag that is not given."""

    def below(name):
        return None if name is None else str(home / name)

    config = settings.of_encoder(
        {"export_dir": str(exported), "data_dir": below(data_dir)}
    )
    names = {"features": "features.npz", "query": "images/a/000.png"} | files
    names |= {"output": files.get("output", "out.png")}
    index = names.pop("index", "exact")
    paths = {name: below(value) for name, value in names.items()}
    search.run(config, FilesConfig(neighbours=3, index=index, **paths))


def test_search__finds_the_image_itself_first(exported, home, capsys):
    home, names = home
    name = names[4]
    run(exported, home, query=f"images/{name}", output="picture")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"1.0000  {name}"
    similarity = [float(line.split()[0]) for line in lines]
    assert len(lines) == 3 and similarity == sorted(similarity, reverse=True)
    picture = tf.io.decode_png((home / "picture").read_bytes()).numpy()
    side, gap = sheets.SIDE, sheets.GAP
    tiles = 4 * side + gap + 4 * gap + 3 * gap
    assert picture.shape == (side + 2 * gap, tiles, 3)
    query_tile = picture[:, gap : gap + side]
    first = 5 * gap + side
    np.testing.assert_array_equal(query_tile, picture[:, first : first + side])
    assert not np.array_equal(query_tile, picture[:, -side - gap : -gap])


def test_search__those_of_numpy(exported, home, capsys):
    home, names = home
    run(exported, home, query=f"images/{names[2]}")
    rows = np.load(home / "features.npz")["representation"]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit[2]
    expected = [f"{cosine[i]:.4f}  {names[i]}" for i in np.argsort(-cosine)[:3]]
    assert capsys.readouterr().out.splitlines() == expected


REFUSED = [
    ({"output": None}, "--output: received None, accepted: the name of a png file"),
    ({"output": "no/out.png"}, "--output: received '.*', accepted: the name of a png"),
    ({"query": None}, "--query: received None, accepted: an image file"),
    ({"query": "empty"}, "--query: .* accepted: a folder with images, or an image fil"),
    ({"query": "none.png"}, r"--query: received '.*none.png' \(.*No such file.*\)"),
    ({"query": "features.npz"}, r"--query: received '.*' \(4 arrays \(files, "),
    ({"features": None}, "--features: received None, accepted: a file that --mode=em"),
    ({"features": "no.npz"}, r"--features: received '.*no.npz' \(.*No such file.*\)"),
    ({"features": "text"}, r"--features: received '.*text' \(File is not a zip file\)"),
    ({"features": "pipe"}, "--features: received '.*pipe', accepted: a file that --m"),
    ({"features": "other.npz"}, "--features: .*no item named 'representation.npy'"),
    ({"features": "short.npz"}, r"--features: .* with \(2,\) files and \(3, 4\) repr"),
    ({"features": "wide.npz"}, "--features: .* with representations of length 5, acc"),
    ({"data_dir": "none"}, "--data_dir: received '.*none', accepted: the folder whose"),
    ({"data_dir": "."}, r"--data_dir: received '.*' without a usable a/000.png \(.*N"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_search__refuses_in_one_line(given, message, exported, home):
    home, names = home
    (home / "empty").mkdir(exist_ok=True)
    (home / "text").write_text("no archive")
    (home / "pipe").unlink(missing_ok=True)
    os.mkfifo(home / "pipe")
    np.savez(home / "other.npz", files=names)
    np.savez(home / "short.npz", files=names[:2], representation=np.ones((3, 4)))
    np.savez(home / "wide.npz", files=names, representation=np.ones((6, 5)))
    with pytest.raises(Refused, match=f"^{message}") as refusal:
        run(exported, home, **given, **({} if "output" in given else {"output": "no"}))
    assert "\n" not in str(refusal.value)
    assert not (home / "no").exists()


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_search__a_folder_of_queries_as_json(index, exported, home, capsys):
    """No images are needed for it, and a query that is none is left out."""
    if index == "hnsw":
        pytest.importorskip("faiss")
    home, _ = home
    shutil.copytree(home / "images" / "b", home / index / "c")
    (home / index / "bad.png").write_text("no image")
    run(exported, home, None, query=index, output="out.json", index=index)
    found = json.loads((home / "out.json").read_text())
    assert found["index"] == index and len(found["weights"]) == 16
    queries = sorted((home / index / "c").iterdir())
    assert [answer["query"] for answer in found["queries"]] == list(map(str, queries))
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3 * (1 + 3)
    for answer, query in zip(found["queries"], queries, strict=True):
        first, *others = answer["neighbours"]
        assert first == {"file": f"b/{query.name}", "similarity": 1.0}
        assert len(others) == 2 and others[0]["similarity"] >= others[1]["similarity"]
        assert f"{others[0]['similarity']:.4f}  {others[0]['file']}" in printed


def test_search__a_folder_of_queries_as_a_picture(exported, home, monkeypatch, caplog):
    monkeypatch.setattr(search, "DRAWN", 2)
    home, _ = home
    run(exported, home, query="images", output="out.png")
    picture = tf.io.decode_png((home / "out.png").read_bytes()).numpy()
    assert picture.shape[0] == 2 * (sheets.SIDE + 2 * sheets.GAP)
    assert "drew the first 2 of 6 queries" in caplog.text


def test_search__features_of_another_encoder_are_refused(exported, home):
    """Of the same length: only the weights tell."""
    home, _ = home
    with np.load(home / "features.npz") as file:
        arrays = dict(file)
    assert len(str(arrays["weights"])) == 16
    other, early = home / "other.npz", home / "early.npz"
    np.savez(other, **arrays | {"weights": np.array("0123456789abcdef")})
    del arrays["weights"]
    np.savez(early, **arrays)
    line = "of an encoder with other weights, 0123456789abcdef, accepted: those of this"
    with pytest.raises(Refused, match=line):
        run(exported, home, features="other.npz", output="none.png")
    run(exported, home, features="early.npz", output="some.png")
    assert (home / "some.png").exists() and not (home / "none.png").exists()
