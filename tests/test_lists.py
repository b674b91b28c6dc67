"""Lists of image files, and several places at once."""

import codecs
import os

import images
import numpy as np
import processes
import pyarrow
import pytest
import tensorflow as tf
from pyarrow import parquet
from test_recovery import pretraining

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import check, datasets, pipeline, places, shrink, views
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.file_list import FileList
from tf_dpred.data.folder import Folder
from tf_dpred.encoders import embed, search, settings
from tf_dpred.errors import Refused
from tf_dpred.evaluation import evaluate, labelled
from tf_dpred.records.workdir import Workdir
from tf_dpred.reports import preview
from tf_dpred.system import json_files

PNG = tf.io.encode_png(tf.zeros([8, 9, 3], tf.uint8)).numpy()
NAMES = ("a.png", "b c.png", "d/e.png", "f,g.png", 'h"i.png', "ü.png", "k.png")


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    return tmp_path


def write(path, content):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path, columns=None):
    """The list's images, each as text: path, label, split."""
    found = FileList(path, columns)
    each = [found.row(name) for name in found.files]
    return ["|".join(part or "" for part in row).rstrip("|") for row in each]


# Text ---------------------------------------------------------------------------------

HEADER = "path,label,split\n"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.txt", "a.png\nb c.png\n", ["a.png", "b c.png"]),
        ("x.txt", "a.png\r\n\r\nb c.png", ["a.png", "b c.png"]),
        ("x.txt", "  a.png \n./d/e.png\n", ["a.png", "./d/e.png"]),
        ("x.txt", "a.png 0\nb c.png 1\n", ["a.png|0", "b c.png|1"]),
        ("x.txt", "a.png\t0\nd/e.png\t1\n", ["a.png|0", "d/e.png|1"]),
        ("x.txt", "f,g.png\na.png\n", ["f,g.png", "a.png"]),
        ("x.txt", HEADER + "a.png,0,train\n", ["a.png|0|train"]),
        ("x.TXT", "a.png\n", ["a.png"]),
        ("x.csv", "path\na.png\n", ["a.png"]),
        ("x.csv", "a.png\nb c.png\n", ["a.png", "b c.png"]),
        ("x.csv", "a.png,cat\nb c.png,dog\n", ["a.png|cat", "b c.png|dog"]),
        ("x.csv", "a.png,c,train\nd/e.png,,val\n", ["a.png|c|train", "d/e.png||val"]),
        ("x.csv", 'path,label\n"f,g.png","a, b"\n', ["f,g.png|a, b"]),
        ("x.csv", 'path,label\n"h""i.png",0\n', ['h"i.png|0']),
        ("x.csv", 'path, label\na.png, "big cat"\n', ["a.png|big cat"]),
        ("x.csv", "label,Image Path\n3,a.png\n", ["a.png|3"]),
        ("x.csv", ",filename,class,x,set\n0,a.png,cat,7,val\n1,k.png,dog,8,train\n",
         ["a.png|cat|val", "k.png|dog|train"]),
        ("x.csv", "path;label\na.png;cat\nf,g.png;dog\n", ["a.png|cat", "f,g.png|dog"]),
        ("x.csv", "a.png;cat\nb c.png;dog\n", ["a.png|cat", "b c.png|dog"]),
        ("x.csv", "path\tlabel\na.png\tcat\n", ["a.png|cat"]),
        ("x.tsv", "path\tlabel\nb c.png\tbig cat\n", ["b c.png|big cat"]),
        ("x.tsv", "a.png\n", ["a.png"]),
        ("x.csv", HEADER + "a.png,cat\nk.png\n\n,,\n", ["a.png|cat", "k.png"]),
        ("x.csv", HEADER + "ü.png,Kätzchen,\n", ["ü.png|Kätzchen"]),
        ("x.csv", codecs.BOM_UTF8 + b"path,label\r\na.png,0\r\n", ["a.png|0"]),
        ("x.csv", "path,label\r\nü.png,é\r\n".encode("utf-16"), ["ü.png|é"]),
        ("x.csv", codecs.BOM_UTF8 + b"a.png,0\nk.png,1\n", ["a.png|0", "k.png|1"]),
    ],
)  # fmt: skip
def test_list__texts_as_people_write_them(name, content, expected, folder):
    assert rows(write(folder / name, content)) == expected


def test_list__names_that_are_no_utf8(folder):
    name = b"l\xe9.png"
    with open(os.fsencode(folder) + b"/" + name, "wb") as file:
        file.write(PNG)
    found = FileList(write(folder / "x.csv", b"path,label\n" + name + b",0\n"))
    assert list(map(os.fsencode, found.files)) == [name]
    source = Folder(str(found.path)).open(None, None, BadImages(), "split")
    assert source.load(next(iter(source.examples(None))))[0].shape == (8, 9, 3)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("id", ["a.png", "k.png"]),
        ("id,fold", ["a.png|train", "k.png|val"]),
        ("id,diagnosis,fold", ["a.png|x|train", "k.png|y|val"]),
        ("ID,,Fold", ["a.png||train", "k.png||val"]),
    ],
)
def test_list__columns_by_their_names(columns, expected, folder):
    text = "age,id,diagnosis,fold\n7,a.png,x,train\n8,k.png,y,val\n"
    assert rows(write(folder / "x.csv", text), columns) == expected


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("", None, "data_dir: .*, which is empty, accepted: at least one path"),
        ("path\n", None, "data_dir: .*, accepted: a list of images that exist"),
        ("path\nz.png\n", None, r"data_dir: .* \(missing: 1 of 1 \(z.png\)\), acc"),
        ("id,x\na,0\n", None, "columns: received None for .*x.csv with the columns i"),
        ("id,x\na.png,0\n", "no", "columns: received 'no' for .* with the columns id"),
        ("id,x\na.png,0\n", "id,y", "columns: received 'id,y' for .*, accepted: the"),
        ("path,x\na.png,0\n", "path,x,y,z", "columns: received 'path,x,y,z'"),
        ("a.png,1,2,3\n", None, "data_dir: .* with 4 columns, accepted: a header, or"),
        ('path\n"a.png\nk.png\n', None, r"data_dir: .* \(unexpected end of data\)"),
        ('path\n"a.png"x\n', None, "data_dir: .* accepted: a text of rows"),
        (b"\xff\xfea", None, "data_dir: .* accepted: a text of rows"),
        (HEADER + "a.png,0,val\nk.png,0,test\n", None,
         "data_dir: .* of the splits test, val, accepted: a split that is called"),
        (HEADER + "a.png,0,train\n./a.png,0,val\n", None,
         "data_dir: .*, where a.png is in train and val, accepted: one split for"),
    ],
)  # fmt: skip
def test_list__what_cannot_be_used_is_one_line(content, columns, message, folder):
    path = write(folder / "x.csv", content)
    with pytest.raises(Refused, match=f"^--{message}") as refused:
        Folder(str(path), columns=columns)
    assert "\n" not in str(refused.value)


def test_list__is_no_file(folder):
    os.mkfifo(folder / "x.csv")
    with pytest.raises(Refused, match=r"^--data_dir: .*x.csv', accepted: a file\."):
        Folder(str(folder / "x.csv"))
    for name in ("a.png", "none.csv"):
        message = "^--data_dir: .*, accepted: an existing directory, a list of image f"
        with pytest.raises(Refused, match=message):
            Folder(str(folder / name))
    with pytest.raises(Refused, match=r"^--columns: .* with a list of files"):
        Folder(str(folder), columns="path")


# Parquet ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "columns", "expected"),
    [
        ({"path": ["a.png", "k.png"]}, None, ["a.png", "k.png"]),
        ({"label": [1, 0], "file": ["a.png", "k.png"]}, None, ["a.png|1", "k.png|0"]),
        ({"path": ["a.png", "k.png"], "label": [1.0, None]}, None,
         ["a.png|1", "k.png"]),
        ({"path": ["a.png", "k.png"], "label": [float("nan"), 2.5]}, None,
         ["a.png", "k.png|2.5"]),
        ({"id": [b"a.png", b"k.png"], "y": [True, False], "s": ["train", "val"]},
         "id,y,s", ["a.png|True|train", "k.png|False|val"]),
        ({"path": pyarrow.array(["a.png", "a.png", None]).dictionary_encode()}, None,
         ["a.png"]),
    ],
)  # fmt: skip
def test_list__of_parquet(table, columns, expected, folder):
    parquet.write_table(pyarrow.table(table), folder / "x.parquet")
    assert rows(folder / "x.parquet", columns) == expected


def test_list__of_a_parquet_file_that_cannot_be_used(folder):
    path = write(folder / "x.parquet", b"PAR1 no more")
    with pytest.raises(Refused, match=r"^--data_dir: .* accepted: a Parquet file"):
        FileList(path)
    parquet.write_table(pyarrow.table({"image": [{"bytes": b"", "path": "a"}]}), path)
    with pytest.raises(Refused, match="with dict in its image, accepted: a column of"):
        FileList(path)
    parquet.write_table(pyarrow.table({"x": ["a.png"]}), path)
    with pytest.raises(Refused, match=r"^--columns: received None for .* columns x,"):
        FileList(path)


# What is in a list --------------------------------------------------------------------


def test_list__splits_and_labels(folder, caplog):
    path = write(
        folder / "x.csv",
        HEADER + "k.png,b,Training\na.png,a,training\nb c.png,,train\n"
        "d/e.png,a,val\n\"f,g.png\",,test\nü.png,,other\n",
    )  # fmt: skip
    found = Folder(str(path))
    assert list(found.splits) == ["train", "val", "test", "other"]
    assert (
        found.default_splits() == ("train", "val") and found.held_out_split() == "val"
    )
    train = found.open(None, None, None, "split")
    assert (train.num_examples, train.num_classes) == (3, 2)
    assert labelled.labels_of(train).tolist() == [1, 0, -1]
    files = [e["file"].numpy().decode() for e in train.examples(None)]
    assert files == [str(folder / name) for name in ("k.png", "a.png", "b c.png")]
    # An image without a label is trained on, and not evaluated with.
    searched = found.open("train", None, None, "eval_train_split")
    assert labelled.labels_of(searched).tolist() == [1, 0]
    assert found.open("validation", None, None, "split").split == "val"
    assert not caplog.messages


def test_list__duplicates_and_what_is_missing_are_counted_once(folder, caplog):
    path = write(
        folder / "x.csv",
        "path,label\na.png,0\n./a.png,0\nz.png,1\nk.png,1\nk.png,0\n,1\nd,0\nx.psd,0\n"
        "b c.png,1\n",
    )
    write(folder / "x.psd", b"")
    found = Folder(str(path))
    labels = labelled.labels_of(found.open(None, None, BadImages(), "split"))
    assert labels.tolist() == [0, -1, 1]
    two, said = caplog.messages
    assert two == f"in {path} more than one label, taken as unlabelled: 1 (k.png)"
    assert said == (
        f"left out in {path}: 1 .psd, which are not read; listed twice: 2 "
        "(a.png); no regular files: 1 (d: a directory); rows without a path: 1 (beside "
        "1); missing: 1 of 6 (z.png)"
    )


@pytest.mark.parametrize(("most", "refused"), [(3, False), (2, True), (0, True)])
def test_list__misses_more_than_a_run_may(most, refused, folder):
    path = write(folder / "x.txt", "1.png\na.png\n2.png\n3.png\n")
    given = {"dataset": "folder", "data_dir": str(path), "max_bad_images": most}
    config = Config.from_dict(given)
    bad_images = BadImages(most)
    if not refused:
        assert datasets.training_source(config, bad_images).num_examples == 1
        return
    message = rf"with 3 \(1.png\), accepted: at most --max_bad_images={most} files that"
    with pytest.raises(Refused, match=message):
        datasets.training_source(config, bad_images)


def test_list__is_told_from_others_by_its_names(folder):
    def fingerprint(text):
        found = Folder(str(write(folder / "x.txt", text)))
        return found.open(None, None, None, "split").fingerprint

    same = fingerprint("a.png\nk.png\n")
    assert fingerprint("a.png 0\nk.png 1\n") == same
    assert fingerprint("k.png\na.png\n") != same
    # A list of all files of a folder, sorted, is that folder.
    paths = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    everything = Folder(str(folder)).open(None, None, None, "split")
    assert fingerprint("\n".join(paths)) == everything.fingerprint


# Several places -----------------------------------------------------------------------


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PNG)


def files_of(found, split):
    source = found.open(split, None, BadImages(), "split")
    return [e["file"].numpy().decode() for e in source.examples(None)]


@pytest.mark.parametrize(
    ("paths", "given", "expected"),
    [
        (["a/1.png", "b/2.png"], "{0}/b,{0}/a", {"train": ["b/2.png", "a/1.png"]}),
        (["a/train/c/1.png", "a/val/c/2.png", "b/3.png"], "{0}/a,{0}/b",
         {"train": ["a/train/c/1.png", "b/3.png"], "val": ["a/val/c/2.png"]}),
        (["a/train/c/1.png", "a/Valid/c/2.png", "b/training/d/3.png", "b/val/c/4.png"],
         "{0}/a,{0}/b", {"train": ["a/train/c/1.png", "b/training/d/3.png"],
                         "val": ["a/Valid/c/2.png", "b/val/c/4.png"]}),
        # Called as splits are.
        (["train/c/1.png", "val/c/2.png"], "{0}/val,{0}/train",
         {"train": ["train/c/1.png"], "val": ["val/c/2.png"]}),
        (["x/train/1.png", "y/train/2.png", "test/3.png"],
         "{0}/x/train,{0}/test,{0}/y/train",
         {"train": ["x/train/1.png", "y/train/2.png"], "test": ["test/3.png"]}),
        (["train/1.png", "b/2.png"], "{0}/train,{0}/b",
         {"train": ["train/1.png", "b/2.png"]}),
        # One in the other: each image once.
        (["a/1.png", "a/b/2.png"], "{0}/a/b,{0}/a",
         {"train": ["a/b/2.png", "a/1.png"]}),
        (["a/1.png"], "{0}/a,{0}/link", {"train": ["a/1.png"]}),
        # A comma in a name that exists.
        (["a,b/1.png", "a/2.png", "b/3.png"], "{0}/a,b", {"train": ["a,b/1.png"]}),
    ],
)  # fmt: skip
def test_several__splits(paths, given, expected, tmp_path):
    tree(tmp_path, *paths)
    (tmp_path / "link").symlink_to("a")
    config = Config.from_dict({"data_dir": given.format(tmp_path)})
    found = Folder(config.data.data_dir)
    made = {split: files_of(found, split) for split in found.splits}
    assert made == {
        s: [str(tmp_path / f) for f in files] for s, files in expected.items()
    }


def test_several__classes_of_all_places(tmp_path):
    tree(
        tmp_path, "a/train/cat/1.png", "a/val/cat/2.png", "b/train/dog/3.png", "c/4.png"
    )
    tree(tmp_path, "l/5.png", "l/6.png")
    text = HEADER + "5.png,dog,test\n6.png,ant,train\n"
    given = ",".join(map(str, (tmp_path / "a", tmp_path / "b", tmp_path / "c")))
    found = Folder(f"{given},{write(tmp_path / 'l' / 'x.csv', text)}")
    train = found.open("train", None, BadImages(), "split")
    assert train.num_classes == 3
    assert labelled.labels_of(train).tolist() == [1, 2, -1, 0]
    searched, tested = (
        labelled.labels_of(found.open(split, None, BadImages(), "eval_test_split"))
        for split in ("train", "test")
    )
    assert searched.tolist() == [1, 2, 0] and tested.tolist() == [2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "{0}/a,{0}/none",
            "data_dir: received '.*/none', accepted: an existing direct",
        ),
        ("{0}/a,", "data_dir: received '.*/a,', accepted: a directory or a list"),
        ("{0}/a,,{0}/b", "data_dir: received '.*', accepted: a directory or a list"),
        ("{0}/a,{0}/b", "data_dir: .* with no images"),
    ],
)
def test_several__what_is_not_there_is_one_line(given, message, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(Refused, match=f"^--{message}"):
        data_dir = Config.from_dict({"data_dir": given.format(tmp_path)}).data.data_dir
        Folder(data_dir).open(None, None, None, "split")


# Modes --------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    """Images in two folders, their list with labels and splits -> list, contents."""
    made = images.write_pngs(tmp_path / "photos", 24)
    lines = [
        f"{name},{name[0]},{'val' if i % 3 == 0 else 'train'}\n"
        for i, name in enumerate(made)
    ]
    path = write(tmp_path / "photos" / "list.csv", HEADER + "".join(lines))
    return path, made


SETTINGS = {"dataset": "folder", "views": "cifar", "train_size": None, "batch_size": 8}


def test_training_views__of_a_list_are_those_of_the_folder(photos):
    path, made = photos
    write(path.parent / "all.txt", "\n".join(made))
    pair = views.of_config(Config.from_dict({"views": "cifar"}))
    batches = [
        next(iter(pipeline.training_views(Folder(data_dir).open(None, None, BadImages(),
                  "split"), pair, 16, 8, seed=3)))
        for data_dir in (
            str(path.parent),
            str(path.parent / "all.txt"),
            f"{path.parent}/a,{path.parent}/b",
        )
    ]  # fmt: skip
    for batch in batches[1:]:
        assert all(map(np.array_equal, batch, batches[0]))


def test_pretraining__on_a_list_goes_on(photos, tmp_path):
    path, made = photos
    listed = write(path.parent / "all.txt", "\n".join(made))
    given = {"data_dir": str(listed), **SETTINGS}
    pretraining(str(tmp_path / "w"), epochs=1, **given).train()
    assert pretraining(str(tmp_path / "w"), epochs=2, **given).train()["step"] == 6
    write(listed, "\n".join(list(made)[1:]))
    with pytest.raises(Refused, match="a run on 24 other images"):
        pretraining(str(tmp_path / "w"), epochs=3, **given)


def test_pretraining__with_the_labels_of_a_list(photos, tmp_path):
    path, _ = photos
    config = {"data_dir": str(path), **SETTINGS, "epochs": 1, "knn_every": 1}
    result = pretraining(str(tmp_path / "w"), **config).train()
    assert 0 <= result["knn"] <= 1
    drawn = Config.from_dict(
        {"workdir": str(tmp_path / "p"), **config, "image_size": 16}
    )
    preview.run(drawn, FilesConfig())
    assert (tmp_path / "p" / "preview.png").exists()


def test_modes__take_a_list(photos, exported, tmp_path, capsys):
    path, made = photos
    write(path, path.read_text() + "gone.png,a,train\n../photos/a/000.png,a,val\n")
    given = {"data_dir": str(path), "workdir": str(tmp_path / "w"), "dataset": "folder"}
    config = Config.from_dict(given)
    assert check.run(config, FilesConfig()) == 1
    assert capsys.readouterr().out == "gone.png\tthere is no such file\n"
    small = tmp_path / "small"
    assert shrink.run(config, FilesConfig(output=str(small), short_side=8)) == 1
    again = Folder(str(small / "images.csv"))
    assert [len(split.files) for split in again.splits.values()] == [16, 9]
    before = Folder(str(path))
    for split in ("train", "val"):
        one, other = (f.open(split, None, None, "split") for f in (before, again))
        np.testing.assert_array_equal(*map(labelled.labels_of, (one, other)))
    of_encoder = settings.of_encoder(given | {"export_dir": str(exported)})
    output = tmp_path / "out.npz"
    embed.run(of_encoder, FilesConfig(output=str(output)))
    assert "25 of 26 images" in capsys.readouterr().out
    expected = [*made, "../photos/a/000.png"]
    assert np.load(output)["files"].tolist() == expected
    query = str(path.parent / "b" / "001.png")
    files = FilesConfig(
        output=str(tmp_path / "n.png"), features=str(output), query=query
    )
    search.run(of_encoder, files)
    assert capsys.readouterr().out.startswith("1.0000  b/001.png\n")
    evaluate.knn(of_encoder, FilesConfig())
    assert "| online, step 7 |" in capsys.readouterr().out


def test_settings__columns_are_those_of_the_recorded_list(tmp_path):
    given = {"dataset": "folder", "data_dir": "x.csv", "columns": "id"}
    record = {"flags": Config.from_dict(given).to_dict()}
    json_files.write(Workdir(tmp_path).flags, record)
    for change, columns in (
        ({}, "id"),
        ({"data_dir": "x.csv"}, "id"),
        ({"data_dir": "folder"}, None),
        ({"data_dir": "y.csv", "columns": "file"}, "file"),
    ):
        config = settings.of_directory({"workdir": str(tmp_path), **change})
        assert config.data.columns == columns


def test_modes__take_several_folders(exported, tmp_path, capsys):
    images.write_pngs(tmp_path, 6)
    given = {"data_dir": f"{tmp_path}/b,{tmp_path}/a", "export_dir": str(exported)}
    config = settings.of_encoder(given)
    assert check.run(config, FilesConfig()) == 0
    output = tmp_path / "out.npz"
    embed.run(config, FilesConfig(output=str(output)))
    names = [
        "b/001.png",
        "b/003.png",
        "b/005.png",
        "a/000.png",
        "a/002.png",
        "a/004.png",
    ]
    assert np.load(output)["files"].tolist() == names
    query = str(tmp_path / "b" / "003.png")
    files = FilesConfig(
        output=str(tmp_path / "n.png"), features=str(output), query=query
    )
    search.run(config, files)
    assert "1.0000  b/003.png\n" in capsys.readouterr().out
    message = r"^--output: .* accepted: a folder outside of .*/b, .*/a\."
    with pytest.raises(Refused, match=message):
        shrink.run(config, FilesConfig(output=str(tmp_path / "a" / "small")))
    small = tmp_path / "small"
    assert shrink.run(config, FilesConfig(output=str(small))) == 0
    assert (small / "b" / "001.png.jpg").exists() and not (
        small / "images.csv"
    ).exists()


def test_shrink__never_writes_outside_of_its_output(tmp_path):
    outside = tmp_path / "outside" / "1.png"
    tree(tmp_path, "outside/1.png", "l/2.png")
    text = f"{outside}\n../outside/../outside/1.png\n2.png\n"
    path = write(tmp_path / "l" / "x.txt", text)
    before = sorted(tmp_path.rglob("*"))
    small = tmp_path / "small"
    config = Config.from_dict({"data_dir": str(path)})
    assert shrink.run(config, FilesConfig(output=str(small))) == 0
    after = [p for p in sorted(tmp_path.rglob("*")) if p not in before]
    assert all(p.is_relative_to(small) for p in after)
    assert (
        Folder(str(small / "images.csv")).open(None, None, None, "split").num_examples
    )


def test_list__as_a_user_runs_it(photos):
    path, _ = photos
    write(path, path.read_text() + "gone.png,a,train\n")
    flags = ["--mode=check_images", f"--data_dir={path}", "--columns=path"]
    done = processes.run_module("tf_dpred.main", *flags)
    assert (done.returncode, done.stdout) == (1, "gone.png\tthere is no such file\n")
    flags[-1] = "--columns=id"
    done = processes.run_module("tf_dpred.main", *flags)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "--columns: received 'id' for" in line


def test_list__of_very_many_rows_is_read_once(tmp_path, monkeypatch):
    """One look at each file, and no walk."""
    tree(tmp_path, *(f"{i}.png" for i in range(700)))
    text = "".join(f"{i}.png\n" for i in range(700))
    looked = []
    stat = os.stat
    monkeypatch.setattr(
        os, "stat", lambda p, **kw: looked.append(str(p)) or stat(p, **kw)
    )
    monkeypatch.setattr(os, "scandir", None)
    path = write(tmp_path / "x.txt", text)
    looked.clear()
    assert places.open_places(str(path)).files == text.split()
    assert len([p for p in looked if p.endswith(".png")]) == 700
