"""Image files that cannot be used: a run names them and goes on with the others."""

import os
import resource
import shutil
import sys
from pathlib import Path

import numpy as np
import processes
import pytest
from images import picture, write_bad, write_good
from PIL import Image
from test_recovery import assert_bit_equal, last, pretraining

from tf_dpred.data import check, image_files, listing, pipeline
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.datasets import open_source
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.views import view_pair
from tf_dpred.errors import TooManyBadImages, UnreadableImage


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Good and bad files, and the same where the next good one replaces each bad."""
    root = tmp_path_factory.mktemp("images")
    mixed, replaced = root / "mixed", root / "replaced"
    write_good(mixed)
    bad = write_bad(mixed)
    replaced.mkdir()
    names = sorted(path.name for path in mixed.iterdir())
    for index, name in enumerate(names):
        circle = names[index:] + names[:index]
        usable = next(other for other in circle if other not in bad)
        shutil.copy(mixed / usable, replaced / name)
    return mixed, replaced, bad


def stream(folder, count, bad_images=None, **start):
    source = open_source("folder", None, str(folder), bad_images=bad_images)
    views = pipeline.training_views(source, view_pair("cifar"), 16, 4, seed=1, **start)
    with named_errors():
        return [np.stack(pair) for pair in views.take(count).as_numpy_iterator()]


def test_stream__next_file_takes_the_place(folders, tmp_path, monkeypatch):
    """Also of several in a row, in a second epoch, and where the stream is resumed."""
    mixed, replaced, bad = folders
    record = tmp_path / "bad_images.txt"
    expected = stream(replaced, 16)
    register = BadImages(len(bad), record=record)
    np.testing.assert_array_equal(stream(mixed, 16, register), expected)
    assert len(register) == len(bad)
    # Prepared in smaller chunks.
    monkeypatch.setattr(pipeline, "ATTEMPTED_IMAGES", 2)
    resumed = stream(mixed, 13, BadImages(record=record), start_step=3)
    np.testing.assert_array_equal(resumed, expected[3:])
    # Each file is recorded once.
    lines = [line.split("\t") for line in record.read_text().splitlines()]
    assert sorted(Path(path).name for path, _ in lines) == sorted(bad)
    for path, reason in lines:
        assert bad[Path(path).name] in reason


def test_folder__a_pipe_in_place_of_a_listed_file(tmp_path):
    """Reading it would wait for ever: it is left out by whoever reads images."""
    for index in range(6):
        Image.fromarray(picture(seed=index)).save(tmp_path / f"{index}.png")
    register = BadImages()
    source = open_source("folder", None, str(tmp_path), bad_images=register)
    found = listing.Listing(tmp_path)
    (tmp_path / "2.png").unlink()
    os.mkfifo(tmp_path / "2.png")
    views = pipeline.training_views(source, view_pair("cifar"), 16, 3, seed=1)
    assert len(list(views.take(4))) == 4
    (images,) = pipeline.evaluation_images(source, Preprocessing(), 24, 6).map(
        lambda images, labels: images
    )
    np.testing.assert_array_equal(images[2], images[3])
    assert list(register._reasons.values()) == ["a named pipe, not a regular file"]
    known = list(check.unusable(tmp_path, found.names))
    assert known == [("2.png", "a named pipe, not a regular file")]


def test_labels__follow_the_image(tmp_path):
    for split in ("train", "val"):
        for index, name in enumerate(("cat", "dog")):
            directory = tmp_path / split / name
            directory.mkdir(parents=True)
            Image.fromarray(picture(seed=index)).save(directory / "b.png")
    (tmp_path / "train" / "cat" / "c.png").write_bytes(b"not a png")
    source = open_source("folder", "train", str(tmp_path))
    batches = pipeline.evaluation_images(source, Preprocessing(), 24, 8)
    ((images, labels),) = batches.as_numpy_iterator()
    assert labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(images[1], images[2])


def test_limit__one_more_ends_the_stream(folders):
    with pytest.raises(TooManyBadImages, match="--max_bad_images: received 2, and 3"):
        stream(folders[0], 8, BadImages(2))


def clean(source):
    """Its images for evaluation: a stream that is quicker to build."""
    return pipeline.evaluation_images(source, Preprocessing(), 16, 4)


def test_none_is_usable(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_text("no image")
    with pytest.raises(TooManyBadImages, match="none of 4 image files can be used"):
        with named_errors():
            next(iter(clean(open_source("folder", None, str(tmp_path)))))


def test_vanished_file(tmp_path):
    for name in "abcd":
        Image.fromarray(picture()).save(tmp_path / f"{name}.png")
    source = open_source("folder", None, str(tmp_path))
    (tmp_path / "b.png").unlink()
    with pytest.raises(UnreadableImage, match=r"b\.png; No such file"), named_errors():
        next(iter(clean(source)))


def test_other_kinds__are_said(tmp_path, caplog):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "b.JXL").touch()
    (tmp_path / "c.psd").touch()
    (tmp_path / "notes.txt").touch()
    source = open_source("folder", None, str(tmp_path))
    assert source.num_examples == 1
    assert "1 .jxl, 1 .psd, which are not read" in caplog.text


SETTINGS = {"dataset": "folder", "views": "cifar", "train_size": None}


def test_pretraining__names_them_and_goes_on(folders, tmp_path, caplog):
    run = pretraining(str(tmp_path), data_dir=str(folders[0]), **SETTINGS)
    assert np.isfinite(run.train()["loss"])
    assert "7 image files could not be used" in caplog.text
    assert len((tmp_path / "bad_images.txt").read_text().splitlines()) == 7


@pytest.mark.slow
def test_pretraining__equals_the_replaced_folder(folders, tmp_path):
    for folder, workdir in zip(folders, ("mixed", "replaced"), strict=False):
        run = pretraining(str(tmp_path / workdir), data_dir=str(folder), **SETTINGS)
        run.train()
    assert_bit_equal(last(tmp_path / "mixed"), last(tmp_path / "replaced"))
    assert not (tmp_path / "replaced" / "bad_images.txt").exists()


def look_at(small, huge):
    """Prints what is wrong with `huge`; fails if looking takes much memory."""
    assert image_files.problem(small) is None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(image_files.problem(huge), flush=True)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kilobytes = 1024 if sys.platform == "darwin" else 1
    assert after - before < 50_000 * kilobytes, after - before


def test_memory__stays_bounded_on_a_huge_picture(folders):
    """Decoded, the 30000 x 30000 picture would take 2.7 GB."""
    mixed = folders[0]
    # In a process of its own: the highest use of memory never falls.
    done = processes.run(look_at, mixed / "plain.png", mixed / "huge.png")
    assert done.returncode == 0, done.stderr
    assert "30000 x 30000" in done.stdout


def test_names_that_are_no_text(tmp_path, caplog):
    """Bytes that are not UTF-8, good and bad; a tab and a line break."""
    folder = os.fsencode(tmp_path)
    Image.fromarray(picture()).save(tmp_path / "a.png")
    os.rename(folder + b"/a.png", folder + b"/a\xff.png")
    with open(folder + b"/b\xfe.png", "wb") as file:
        file.write(b"no image")
    (tmp_path / "c\td\n.png").write_text("no image")
    record = tmp_path / "bad.txt"
    register = BadImages(record=record)
    source = open_source("folder", None, str(tmp_path), bad_images=register)
    (batch,) = pipeline.evaluation_images(source, Preprocessing(), 24, 4)
    assert batch[0].shape[0] == 3
    for shown in (record.read_text(), caplog.text):
        assert "b\\udcfe.png" in shown and "c\\td\\n.png" in shown
        shown.encode()
    lines = [line.split("\t") for line in record.read_text().splitlines()]
    assert [len(line) for line in lines] == [2, 2]
