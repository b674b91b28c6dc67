"""Every line of docs/what_can_go_wrong.md is what the program prints, now and here."""

import os
import re
import shutil
from pathlib import Path

import images
import processes
import pytest

from tf_dpred import errors
from tf_dpred.records import checkpoints
from tf_dpred.system import quiet
from tools.chaos.inside import Inside, Strike
from tools.chaos.page import PAGE, entries

PHOTOS, CATS = Path("photos"), Path("runs/cats")
# Forty pictures, five steps an epoch.
TRAIN = (
    "--dataset=folder",
    "--data_dir=photos",
    "--workdir=runs/cats",
    "--image_size=16",
    "--projector_hidden=16",
    "--projector_dim=8",
    "--batch_size=8",
    "--epochs=2",
    "--knn_every=0",
    "--log_every=100",
    "--precision=float32",
    "--checkpoint_every=2",
)
CASES = {}


def case(heading, *, trains=False):
    """What the page says under a heading; the slow ones train."""

    def add(function):
        CASES[heading] = pytest.param(
            heading,
            function,
            id=function.__name__,
            marks=[pytest.mark.slow] if trains else [],
        )
        return function

    return add


def go(*arguments, strikes=()):
    """Runs the program in this directory -> (exit code, lines)."""
    found = processes.run(_program, arguments, strikes, directory=Path.cwd())
    lines = [shown(line) for line in found.stderr.splitlines()]
    return found.returncode, lines


def _program(arguments, strikes):
    from tools.chaos.start import run_program

    with quiet.start():
        pass
    files = sorted(PHOTOS.iterdir()) if PHOTOS.is_dir() else []
    inside = Inside(list(strikes), CATS.resolve(), [f.resolve() for f in files], print)
    run_program(["tf_dpred", *arguments], inside, small=True)


def shown(line):
    """A line without what is another one every time."""
    line = re.sub(r"^\d\d:\d\d:\d\d ", "12:00:00 ", line)
    line = re.sub(r"process \d+ on \S+", "process 4711 on laptop", line)
    return line.replace(str(Path.cwd()) + "/", "")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A directory in which the run of the page came to its end; not to be changed."""
    directory = tmp_path_factory.mktemp("trained")
    before = os.getcwd()
    os.chdir(directory)
    try:
        images.write_pngs(directory / "all", 40)
        PHOTOS.mkdir()
        for index, path in enumerate(sorted(Path("all").rglob("*.png"))):
            path.rename(PHOTOS / f"{index:02}.png")
        shutil.rmtree("all")
        code, lines = go(*TRAIN)
        assert code == 0, lines
    finally:
        os.chdir(before)
    return directory


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """Works in a copy of it."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@case("A flag is misspelt")
def misspelt():
    return go("--epoch=3")


@case("A value is out of range")
def out_of_range():
    return go("--epochs=0")


@case("Two settings do not go together")
def contradiction():
    return go("--batch_size=9", "--accumulation_steps=2")


@case("There is no such folder of images")
def no_folder():
    return go("--dataset=folder", "--data_dir=photo", "--workdir=runs/new")


@case("There is no image in the folder")
def no_images():
    Path("empty").mkdir()
    return go("--dataset=folder", "--data_dir=empty", "--workdir=runs/new")


@case("Images were added, removed or renamed")
def other_images():
    (PHOTOS / "07.png").unlink()
    return go(*TRAIN)


@case("An image cannot be used", trains=True)
def bad_image():
    (PHOTOS / "07.png").write_text("This is not an image.")
    shutil.rmtree(CATS)
    return go(*TRAIN)


@case("Too many images cannot be used", trains=True)
def too_many():
    shutil.rmtree(CATS)
    (PHOTOS / "07.png").write_text("This is not an image.")
    return go(*TRAIN, "--max_bad_images=0")


@case("An image vanishes", trains=True)
def vanished():
    """So many epochs that it is not read beforehand."""
    shutil.rmtree(CATS)
    strike = Strike("image_vanishes", step=1, lasts=9999, number=7)
    return go(*TRAIN, "--epochs=20", strikes=[strike])


@case("The work directory cannot be written to")
def not_writable():
    Path("file").touch()
    return go(*TRAIN, "--workdir=file/cats")


@case("Other settings than those of the run")
def other_settings():
    return go(*TRAIN, "--projector_dim=4")


@case("Another process trains in the work directory", trains=True)
def two_at_once():
    from tf_dpred.records.lock import Lock

    lock = Lock(CATS / ".lock")
    lock.acquire()
    try:
        return go(*TRAIN)
    finally:
        lock.release()


@case("flags.json is damaged")
def damaged_flags():
    (CATS / "flags.json").write_text('{"flags": ')
    return go(*TRAIN)


@case("A line of epochs.jsonl is damaged", trains=True)
def damaged_line():
    path = CATS / "epochs.jsonl"
    path.write_text(path.read_text().replace(":", "", 1))
    return go(*TRAIN)


@case("Lines of epochs.jsonl are missing", trains=True)
def missing_line():
    path = CATS / "epochs.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"epoch": 1,' not in line))
    return go(*TRAIN)


@case("There is no run to evaluate or export")
def no_run():
    return go("--mode=knn", "--workdir=runs/dogs")


@case("The run has come to its end already", trains=True)
def nothing_to_do():
    return go(*TRAIN)


@case("The newest checkpoint is damaged", trains=True)
def damaged_checkpoint():
    os.truncate(checkpoints.list_all(CATS / "checkpoints")[-1], 5000)
    return go(*TRAIN)


@case("All checkpoints are damaged", trains=True)
def all_damaged():
    for path in checkpoints.list_all(CATS / "checkpoints"):
        os.truncate(path, 5000)
    return go(*TRAIN)


@case("A checkpoint cannot be read", trains=True)
def unreadable_checkpoint():
    return go(*TRAIN, strikes=[Strike("no_reads", lasts=99, only="step-")])


@case("The disk is full for a while", trains=True)
def full_disk():
    shutil.rmtree(CATS)
    return go(*TRAIN, strikes=[Strike("no_writes", lasts=999, only=".step-00000004")])


@case("The disk is full to the end", trains=True)
def full_to_the_end():
    shutil.rmtree(CATS)
    return go(*TRAIN, strikes=[Strike("no_writes", lasts=999, only=".step-")])


@case("SIGTERM, SIGUSR1 or Ctrl-C while it trains", trains=True)
def stopped():
    shutil.rmtree(CATS)
    return go(*TRAIN, strikes=[Strike("stop", step=3)])


@case("Ctrl-C before the first step, or in another mode")
def interrupted():
    return go(*TRAIN, strikes=[Strike("stop", at=3, number=1)])


@case("A loss, gradient, F or W is not finite", trains=True)
def not_finite():
    shutil.rmtree(CATS)
    return go(*TRAIN, "--base_lr=1e30", "--warmup_epochs=0")


@pytest.mark.parametrize(("heading", "function"), CASES.values())
def test_page__says_what_the_program_says(heading, function, here):
    code, lines = function()
    expected_code, expected = entries()[heading]
    assert code == expected_code, lines
    missing = [line for line in expected if line not in lines]
    assert not missing, "\n".join(lines)
    assert expected == [line for line in lines if line in expected]
    last = [line for line in lines if line.startswith("tf_dpred: ")]
    assert len(last) == (code in (1, 2, 130)) and set(last) <= set(expected)


def test_page__has_a_case_for_each_entry():
    assert list(entries()) == list(CASES)


def test_page__names_every_exit_code():
    rows = re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)
    codes = {errors.REFUSED, errors.FAILED, errors.INTERRUPTED, errors.PREEMPTED}
    assert codes | {0} <= {int(row) for row in rows}
