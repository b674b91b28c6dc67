"""Folders as people have them: splits, links, other programs' files, special files."""

import os
import socket
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from images import write_pngs
from test_recovery import pretraining

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import check, datasets, layout, listing, shrink
from tf_dpred.data.folder import Folder
from tf_dpred.encoders import embed, settings
from tf_dpred.errors import Refused
from tf_dpred.records.workdir import Workdir

PNG = tf.io.encode_png(tf.zeros([8, 9, 3], tf.uint8)).numpy()
CLASSES = ("a/1.png", "b/2.png")


def write(root, *paths):
    """Writes small images -> the folder, for the settings."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PNG)
    return str(root)


def each(*directories, files=CLASSES):
    return [f"{directory}/{file}" for directory in directories for file in files]


# Splits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (each("train", "val"), ("train", "val")),
        (each("train", "valid", "test"), ("train", "valid")),
        (each("train", "validation", "test"), ("train", "validation")),
        (each("training", "validation", "testing"), ("training", "validation")),
        (each("training", "testing"), ("training", "testing")),
        (each("Train", "Val"), ("Train", "Val")),
        (each("TRAIN", "TEST"), ("TRAIN", "TEST")),
        (each("train", "valid", "val"), ("train", "val")),
        (each("train2017", "val2017"), ("train2017", "val2017")),
        (each("training_set", "test_set"), ("training_set", "test_set")),
        (each("seg_train", "seg_test"), ("seg_train", "seg_test")),
        # An archive within an archive.
        (each("train/train", "test/test"), ("train", "test")),
        (each("seg_train/seg_train", "seg_test"), ("seg_train", "seg_test")),
        (each("archive/train", "archive/val"), ("train", "val")),
        (each("a b/c/train", "a b/c/val"), ("train", "val")),
        # The test split with labels is the one that is taken.
        ([*each("train", "test"), "val/x.png"], ("train", "test")),
        # Classes that hold directories.
        (each("train", "val", files=("a/b/1.png", "c/d/e/2.png")), ("train", "val")),
    ],
)
def test_splits__layouts_that_are_known(paths, expected, tmp_path, caplog):
    found = Folder(write(tmp_path, *paths, ".DS_Store", "labels/x.txt"))
    assert found.default_splits() == expected
    sources = [found.open(split, None, None, "split") for split in expected]
    assert [(s.num_examples, s.num_classes) for s in sources] == [(2, 2), (2, 2)]
    files = [e["file"].numpy().decode() for e in sources[0].examples(None)]
    train = [path for path in paths if f"{expected[0]}/" in path]
    assert files == [str(tmp_path / path) for path in sorted(train)]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("val", "Valid"), ("Valid", "Valid"), ("train", "Train"), ("test", None)],
)
def test_open__a_split_is_found_by_what_it_is_for(wanted, found, tmp_path):
    folder = Folder(write(tmp_path, *each("Train", "Valid")))
    if found:
        assert folder.open(wanted, None, None, "split").split == found
        return
    with pytest.raises(Refused, match=r"^--split: .*'test', accepted: Train, Valid in"):
        folder.open(wanted, None, None, "split")


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (
            [*each("train", "valid"), "cover.png"],
            "train, valid are no splits, with 1 image outside of them (cover.png)",
        ),
        (
            each("train", "val", "extra"),
            "train, val are no splits, with 2 images outside of them (extra/a/1.png)",
        ),
        (each("val", "test"), "val, test are no splits: no training directories"),
        (each("test", "cats"), "test is no split: no training directories"),
        (
            each("train", "training", "val"),
            "train, training, val are no splits: 2 training directories",
        ),
        (each("one/train", "one/test", "two/train"), "one/test is no split, so deep"),
        (each("a/test", "b"), "a/test is no split, so deep"),
    ],
)
def test_splits__what_is_none_is_said(paths, said, tmp_path, caplog):
    """All images are trained on then, those for testing as well."""
    found = Folder(write(tmp_path, *paths))
    assert found.default_splits() == ("train", None)
    assert found.open(None, None, None, "split").num_examples == len(paths)
    (message,) = caplog.messages
    assert message.startswith(f"in {tmp_path} {said}")
    assert message.endswith(
        f": all {len(paths)} images are one split without labels, those for testing "
        "among them"
    )


def test_splits__an_empty_train_is_no_reason_to_train_on_val(tmp_path):
    (tmp_path / "train").mkdir()
    folder = Folder(write(tmp_path, *each("val")))
    with pytest.raises(Refused, match=f"with no images in {tmp_path}/train"):
        folder.open(None, None, None, "split")


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (
            [*each("train", "val"), "train/cover.png"],
            "train has no labels: 1 of its 3 images are in no directory of a class "
            "(cover.png)",
        ),
        (
            each("train", "val", files=("images/1.png",)),
            "train has no labels: images is not a class",
        ),
        (
            each("train", "val", files=("images/1.png", "masks/1.png")),
            "train has no labels: images, masks is not a class",
        ),
        (
            each("train", "val", files=("dogs/1.png",)),
            "train has no labels: dogs is its only class",
        ),
    ],
)
def test_labels__that_are_none_are_said_once(paths, said, tmp_path, caplog):
    found = Folder(write(tmp_path, *paths))
    assert found.default_splits() == ("train", None)
    for _ in range(2):
        assert found.open("train", None, None, "split").num_classes is None
    assert caplog.messages == [said]


# Links -------------------------------------------------------------------------------


def test_links__class_directories_that_are_links(tmp_path, caplog):
    """To directories outside, also to hidden ones inside, and links to links."""
    write(tmp_path / "store", *each("train", "val"))
    root = tmp_path / "D"
    write(root, "train/c/3.png", ".hidden/4.png")
    (root / "train/a").symlink_to(tmp_path / "store/train/a")
    (root / "train/b").symlink_to(tmp_path / "again")
    (tmp_path / "again").symlink_to("store/train/b")
    (root / "train/d").symlink_to("../.hidden")
    (root / "val").symlink_to(tmp_path / "store/val")
    found = Folder(str(root))
    train, test = (found.open(s, None, None, "split") for s in ("train", "val"))
    assert (train.num_examples, train.num_classes) == (4, 4)
    assert (test.num_examples, test.num_classes) == (2, 4)
    assert caplog.messages == [f"left out in {root}: hidden: 1 (.hidden)"]


def test_links__train_and_val_of_one_class_may_be_the_same(tmp_path):
    write(tmp_path / "store", *CLASSES)
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "D" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "D" / name).symlink_to(tmp_path / "store" / name[-1])
    assert Folder(str(tmp_path / "D")).default_splits() == ("train", "val")


def test_links__walks_end_and_list_each_image_once(tmp_path, caplog):
    root = tmp_path / "D"
    write(root, *CLASSES)
    (root / "a/up").symlink_to("..")  # around
    (root / "a/itself").symlink_to("itself")  # in a circle: leads nowhere
    (root / "above").symlink_to("/")  # the whole machine
    (root / "b/other").symlink_to("../a")  # is listed itself
    outside = tmp_path / "outside"
    write(outside, "c/3.png")
    (outside / "c/back").symlink_to("..")
    (outside / "c/home").symlink_to(root)
    (root / "out").symlink_to(outside)
    found = listing.Listing(root)
    assert found.files == ["a/1.png", "b/2.png", "out/c/3.png"]
    found.log_losses()
    (message,) = caplog.messages
    assert message.startswith(
        f"left out in {root}: links to directories listed elsewhere: 5 (a/up)"
    )


def test_links__many_to_each_other(tmp_path):
    """Followed without a guard, twelve directories have 12! paths."""
    for i in range(12):
        write(tmp_path / "far", f"{i}/{i}.png")
        for other in range(12):
            (tmp_path / f"far/{i}/to{other}").symlink_to(f"../{other}")
    (tmp_path / "D").mkdir()
    (tmp_path / "D/far").symlink_to(tmp_path / "far")
    assert len(listing.Listing(tmp_path / "D").files) == 12


# Files that are no images of the user ------------------------------------------------


def make_special(root):
    """Special files with names of images -> how many."""
    os.mkfifo(root / "x.jpg")
    os.mkfifo(root / "a" / "y.png")
    (root / "link.png").symlink_to("x.jpg")
    (root / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(root)  # the path of a socket must be short
        server.bind("s.bmp")
        os.chdir(before)
    return 5


def clutter(root):
    """What lies beside people's images -> what is said of it."""
    write(root, *CLASSES, "dir.jpg/3.png", "new\nline/4.png")  # these are used
    write(root, "a/._1.png", ".DS_Store", ".git/5.png", ".thumbnails/6.png")
    write(root, "a/@eaDir/1.png", "__MACOSX/a/7.png", "#recycle/8.png")
    write(root, "runs/w/preview.png", "photo.JXL", "scan.psd", "Thumbs.db", "a.txt")
    (root / "runs/w/flags.json").write_text("{}")
    special = make_special(root)
    with (root / "a" / "large.png").open("wb") as file:
        file.truncate(2**31)
    return (
        "directories of other programs: 3 (#recycle); hidden: 3 (.git); "
        "larger than 1,073,741,824 bytes: 1 (a/large.png); "
        f"no regular files: {special} (link.png: a named pipe); "
        "work directories: 1 (runs/w)"
    )


USED = ["a/1.png", "b/2.png", "dir.jpg/3.png", "new\nline/4.png"]


def test_listing__leaves_out_and_counts(tmp_path, caplog):
    said = clutter(tmp_path)
    found = listing.Listing(tmp_path)
    assert found.files == USED
    found.log_losses()
    kinds = "1 .jxl, 1 .psd, which are not read; "
    assert caplog.messages == [f"left out in {tmp_path}: {kinds}{said}"]


def test_modes__leave_out_the_same(exported, tmp_path, capsys, caplog):
    """Training, embed, shrink_images, check_images: the same files, the same counts."""
    root = tmp_path / "D"
    root.mkdir()
    clutter(root)
    (root / "gone.png").symlink_to("nowhere.png")
    caplog.set_level("INFO", logger="absl")
    given = {"data_dir": str(root), "workdir": str(tmp_path / "other")}
    config = Config.from_dict(given | {"dataset": "folder"})
    source = datasets.training_source(config)
    files = [example["file"].numpy().decode() for example in source.examples(None)]
    assert files == [str(root / name) for name in USED]
    assert "links to nothing: 1 (gone.png)" in caplog.messages[-1]
    assert check.run(config, FilesConfig()) == 1
    assert capsys.readouterr().out == "gone.png\tmay not be read\n"
    assert caplog.messages[-1].startswith("4 images can be used, 1 cannot; not looked")
    small = tmp_path / "small"
    assert shrink.run(config, FilesConfig(output=str(small))) == 1
    assert capsys.readouterr().out.startswith("5 images: 4 written")
    of_encoder = settings.of_encoder(given | {"export_dir": str(exported)})
    embed.run(of_encoder, FilesConfig(output=str(tmp_path / "out.npz")))
    assert "4 of 5 images" in capsys.readouterr().out
    counted = [m for m in caplog.messages if "no regular files: 5" in m]
    assert len(counted) == 4


@pytest.mark.parametrize("name", ["x.jpg", "zero.jpg", "s.bmp", "a"])
def test_problem__special_files_are_never_opened(name, tmp_path):
    write(tmp_path, "a/1.png")
    make_special(tmp_path)
    reason = check.image_files.problem(tmp_path / name)
    assert reason.endswith(", not a regular file")


def test_listing__unreadable_directories(tmp_path, caplog, monkeypatch):
    """Also of a failing disk; users that may read all do not meet permissions."""
    write(tmp_path, *CLASSES)
    scandir = os.scandir

    def failing(path):
        if Path(path).name == "b":
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    found = Folder(str(tmp_path))
    assert found.open(None, None, None, "split").num_examples == 1
    said = "unreadable directories: 1 (b: Input/output error)"
    assert caplog.messages == [f"left out in {tmp_path}: {said}"]
    monkeypatch.setattr(os, "scandir", lambda path: failing("b"))
    with pytest.raises(Refused, match=r"--data_dir: .* can be read \(Input/output err"):
        Folder(str(tmp_path))


def test_require_images__says_what_else_was_there(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    config = Config.from_dict({"data_dir": str(tmp_path)})
    message = "which holds no image \\(no regular files: 1 .*, accepted: a folder with"
    with pytest.raises(Refused, match=message):
        check.run(config, FilesConfig())


def test_listing__opacity_is_said(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    clear = tf.io.encode_png(tf.zeros([4, 4, 4], tf.uint8)).numpy()
    write(tmp_path, *(f"{i:03}.png" for i in range(100)))
    for i in range(0, 100, 4):
        (tmp_path / f"{i:03}.png").write_bytes(clear)
    (tmp_path / "cut.png").write_bytes(clear[:20])
    (tmp_path / "empty.png").touch()
    listing.Listing(tmp_path).log_losses()
    (said,) = caplog.messages
    expected = "25 of 51 PNG files that were looked at have opacity (000.png"
    assert said.startswith(f"in {tmp_path} {expected}")


# The work directory ------------------------------------------------------------------


def test_workdir_mark__is_the_name_that_a_run_writes(tmp_path):
    assert Workdir(tmp_path).flags.name == listing.WORKDIR_MARK


def test_workdir__in_the_folder_is_skipped_and_the_folder_itself_refused(
    tmp_path, caplog
):
    """Also before it has a flags.json: --mode=preview writes into an empty one."""
    write(tmp_path, *CLASSES, "w/preview.png")
    given = {"dataset": "folder", "data_dir": str(tmp_path)}
    config = Config.from_dict(given | {"workdir": f"{tmp_path}/./w"})
    assert datasets.training_source(config).num_examples == 2
    assert caplog.messages == [f"left out in {tmp_path}: work directories: 1 (w)"]
    with pytest.raises(
        Refused, match=r"^--workdir: .*a directory other than --data_dir"
    ):
        datasets.training_source(Config.from_dict(given | {"workdir": str(tmp_path)}))


SETTINGS = {"dataset": "folder", "views": "cifar", "train_size": None}


def test_pretraining__with_its_workdir_in_the_folder_resumes(tmp_path):
    write_pngs(tmp_path, 24)
    given = {"data_dir": str(tmp_path), **SETTINGS, "batch_size": 8}
    pretraining(str(tmp_path / "w"), epochs=1, **given).train()
    write(tmp_path / "w", "preview.png")
    again = pretraining(str(tmp_path / "w"), epochs=2, **given)
    assert again.source.num_examples == 24 and again.restored


# Any layout --------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["train", "Val", "test", "valid", "training", "images", "a", "b", "@eaDir", ".x"]
)
PATHS = st.lists(NAMES, max_size=4).map(lambda parts: "/".join([*parts, "1.png"]))


@hypothesis_settings(max_examples=60)
@given(paths=st.sets(PATHS, min_size=1, max_size=8))
def test_splits__of_any_layout(paths, tmp_path_factory):
    """Each image is in at most one split, or it is in the list; none is lost unsaid."""
    root = tmp_path_factory.mktemp("any")
    write(root, *paths)
    found = listing.Listing(root)
    wanted = {p for p in paths if not {"@eaDir", ".x"} & set(p.split("/"))}
    assert found.files == sorted(wanted)
    assert bool(found.left_out()) == (wanted != paths)
    splits = layout.splits(found)
    assert layout.purpose(next(iter(splits))) == layout.TRAIN
    files = [
        os.path.join(split.below, file)
        for split in splits.values()
        for file in split.files
    ]
    assert sorted(files) == found.files
