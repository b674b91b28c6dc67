"""Near duplicates and outliers: planted ones are found, and nothing else."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from images import picture
from PIL import Image
from scipy.spatial.distance import mahalanobis

from tf_dpred.config import Config, FilesConfig
from tf_dpred.encoders import (
    duplicates,
    embed,
    export,
    likeness,
    outliers,
    restore,
    settings,
    sheets,
)
from tf_dpred.encoders.embeddings import Embeddings
from tf_dpred.errors import Refused

COUNT = 40


def copies(image):
    """Name -> the image as people have it a second time."""
    width, height = image.size
    return {
        "same.png": image,
        "small.png": image.resize((width // 2, height // 2)),
        "large.png": image.resize((2 * width, 2 * height)),
        "cropped.png": image.crop((2, 1, width - 1, height - 2)),
        "corner.png": image.crop((3, 3, width, height)),
        "squeezed.png": image.resize((width, height - 2)),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 smooth pictures, copies of some, and three that are like none."""
    folder = tmp_path_factory.mktemp("images")
    images = [Image.fromarray(picture(48, 60, seed)) for seed in range(COUNT)]
    for number, image in enumerate(images):
        image.save(folder / f"{number:02}.png")
    for number, (name, copy) in enumerate(copies(images[0]).items()):
        copy.save(folder / f"{number:02}_{name}")
    for number in (10, 11):
        images[number].save(folder / f"{number}_again.jpg", quality=60)
        images[number].save(folder / f"{number}_again.webp", quality=60)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "strange_noise.png")
    Image.new("RGB", (40, 40), (255, 0, 255)).save(folder / "strange_plain.png")
    board = (np.indices((40, 40)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(folder / "strange_board.png")
    return folder


def numbered(folder):
    """Copies that `copies` makes carry another number than their image."""
    return [f"{n:02}_{name}" for n, name in enumerate(copies(Image.new("RGB", (9, 9))))]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export of random filters: images of 16 -> how much 32 of them answer."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(32, 3, activation="relu")(images / 127.5 - 1)
    representation = keras.layers.GlobalAveragePooling2D()(x)
    outputs = [representation, keras.layers.Dense(3)(representation)]
    network = keras.Model(images, outputs)
    path = tmp_path_factory.mktemp("export")
    config = Config.from_dict({"image_size": 16})
    return export.write_encoder(
        restore.Encoder(network, config, "online", 7), path, path
    )


@pytest.fixture(scope="module")
def features(exported, folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("features") / "f.npz"
    given = {"export_dir": str(exported), "data_dir": str(folder)}
    embed.run(settings.of_encoder(given), FilesConfig(output=str(path)))
    return path


def run(mode, folder, features, output, **files):
    config = settings.of_directory({"data_dir": str(folder)})
    paths = {"features": str(features), "output": output and str(output)}
    mode.run(config, FilesConfig(**paths, **files))


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_duplicates__planted_copies_and_nothing_else(
    index, folder, features, tmp_path, capsys
):
    if index == "hnsw":
        pytest.importorskip("faiss")
    run(duplicates, folder, features, tmp_path / "found", index=index)
    table = read(tmp_path / "found" / "duplicates.csv")
    groups = {}
    for row in table:
        groups.setdefault(row["group"], []).append(row["file"])
    expected = [
        sorted(["00.png", *numbered(folder)]),
        ["10.png", "10_again.jpg", "10_again.webp"],
        ["11.png", "11_again.jpg", "11_again.webp"],
    ]
    assert list(map(sorted, groups.values())) == expected
    assert list(groups) == ["1", "2", "3"]
    for row in table:
        assert row["most_like"] in groups[row["group"]]
        assert row["most_like"] != row["file"] and 0.93 <= float(row["likeness"]) <= 1
    drawn = (tmp_path / "found" / "duplicates.png").read_bytes()
    side = sheets.SIDE + sheets.GAP
    shape = (3 * (side + sheets.GAP), 7 * side + sheets.GAP, 3)
    assert tf.io.decode_png(drawn).shape == shape
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.endswith("3 groups of near duplicates, 13 of 53 images")
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == [
        "duplicates.csv",
        "duplicates.png",
    ]


def test_duplicates__none(folder, features, tmp_path, capsys):
    """A picture of an earlier search does not stay."""
    run(duplicates, folder, features, tmp_path)
    assert (tmp_path / "duplicates.png").exists()
    found = Embeddings.read(str(features))
    chosen = [i for i, name in enumerate(found.files) if "_" not in name]
    other = tmp_path / "other.npz"
    files = [found.files[i] for i in chosen]
    np.savez(other, files=files, representation=found.representation[chosen])
    run(duplicates, folder, other, tmp_path)
    assert read(tmp_path / "duplicates.csv") == []
    assert not (tmp_path / "duplicates.png").exists()
    assert "0 groups of near duplicates, 0 of 40" in capsys.readouterr().out


def test_outliers__planted_ones_come_first(folder, features, tmp_path, capsys):
    run(outliers, folder, features, tmp_path)
    table = read(tmp_path / "outliers.csv")
    strange = {f"strange_{name}.png" for name in ("noise", "plain", "board")}
    assert {row["file"] for row in table[:3]} == strange
    assert [row["rank"] for row in table] == [str(i) for i in range(1, 54)]
    distance = [float(row["distance"]) for row in table]
    assert distance == sorted(distance, reverse=True)
    drawn = (tmp_path / "outliers.png").read_bytes()
    side = sheets.SIDE + sheets.GAP
    shape = (7 * (side + sheets.GAP), 8 * side + sheets.GAP, 3)
    assert tf.io.decode_png(drawn).shape == shape
    assert "of 53 images are more than 5 deviations" in capsys.readouterr().out


@pytest.mark.parametrize("block", [4, 9, 100])
def test_distances__those_of_scipy(block, monkeypatch):
    monkeypatch.setattr(outliers, "BLOCK", block)
    monkeypatch.setattr(outliers, "RIDGE", 0)
    rng = np.random.default_rng(0)
    rows = (rng.normal(1, 1, (9, 3)) * [1, 2, 0.5]).astype(np.float32)
    unit = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    inverse = np.linalg.inv(np.cov(unit.T, bias=True))
    expected = [mahalanobis(row, unit.mean(axis=0), inverse) for row in unit]
    np.testing.assert_allclose(outliers.distances(rows), expected, rtol=1e-3)


def test_distances__where_nothing_varies():
    same = np.ones((5, 3), np.float32)
    np.testing.assert_allclose(outliers.distances(same), 0, atol=1e-6)
    one = same * [[1, 1, 1], [2, 2, 2], [1, 1, 1], [1, 1, 1], [2, 1, 1]]
    assert outliers.distances(one.astype(np.float32)).argmax() == 4


def test_deviations__of_a_normal_distribution():
    values = np.random.default_rng(0).normal(3, 2, 20_001)
    values[0] = 3 + 20
    assert outliers.deviations(values)[0] == pytest.approx(10, rel=0.05)
    assert outliers.deviations(np.ones(4)).tolist() == [0, 0, 0, 0]


def test_groups__of_pairs():
    pairs = np.array([[5, 9], [2, 3], [3, 7]])
    found = duplicates.groups(pairs, np.array([0.95, 0.96, 0.99]))
    assert found == [
        [(2, 3, 0.96), (3, 7, 0.99), (7, 3, 0.99)],
        [(5, 9, 0.95), (9, 5, 0.95)],
    ]
    assert duplicates.groups(np.empty((0, 2), int), np.empty(0)) == []


LIKE = [
    ("a crop of a corner", lambda image: image.crop((0, 0, 54, 44)), 0.93, 1.0),
    ("a half", lambda image: image.crop((0, 0, 30, 48)), -1.0, 0.9),
    ("mirrored", lambda image: image.transpose(0), -1.0, 0.9),
    ("brighter", lambda image: image.point(lambda v: v // 2 + 100), 0.99, 1.0),
    ("other colours", lambda i: Image.merge("RGB", i.split()[::-1]), -1.0, 0.9),
    ("gray", lambda image: image.convert("L"), -1.0, 0.93),
    ("one colour", lambda image: Image.new("RGB", image.size), 0.0, 0.0),
]


@pytest.mark.parametrize(("change", "least", "most"), [c[1:] for c in LIKE])
def test_likeness__of_changes(change, least, most, tmp_path):
    image = Image.fromarray(picture(48, 60))
    image.save(tmp_path / "a.png")
    change(image).save(tmp_path / "b.png")
    thumbs = likeness.thumbnails(tmp_path, ["a.png", "b.png"], tmp_path)
    (found,) = likeness.of_pairs(thumbs, np.array([[0, 1]]))
    (other,) = likeness.of_pairs(thumbs, np.array([[1, 0]]))
    assert least <= found <= most + 1e-6
    assert other == pytest.approx(found, abs=1e-6)


def test_likeness__images_of_one_colour(tmp_path, caplog):
    colours = {"a": (9, 9, 9), "b": (10, 9, 9), "c": (250, 9, 9)}
    for name, colour in colours.items():
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_text("no image")
    names = ["a.png", "b.png", "c.png", "d.png"]
    thumbs = likeness.thumbnails(tmp_path, names, tmp_path)
    found = likeness.of_pairs(thumbs, np.array([[0, 1], [0, 2], [1, 2]]))
    assert found.tolist() == [1, 0, 0]
    assert caplog.messages == ["left out d.png"]


@pytest.mark.parametrize("mode", [duplicates, outliers])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"output": None},
            "--output: received None, accepted: the name of a folder",
        ),
        ({"output": "file"}, "--output: received '.*file', accepted: a directory that"),
        ({"features": "none.npz"}, "--features: received '.*none.npz' .*No such file"),
        ({"folder": "none"}, "--data_dir: received '.*none', accepted: the folder wh"),
        (
            {"folder": "."},
            "--data_dir: received '.*', accepted: the folder of .*00",
        ),
    ],
)
def test_run__refuses_in_one_line(mode, change, message, folder, features, tmp_path):
    (tmp_path / "file").write_text("")
    below = {k: v and tmp_path / v for k, v in change.items()}
    given = {"folder": folder, "features": features, "output": tmp_path / "o"} | below
    with pytest.raises(Refused, match=f"^{message}") as refusal:
        run(mode, **given)
    assert "\n" not in str(refusal.value)
