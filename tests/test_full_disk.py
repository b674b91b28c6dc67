"""A disk that is full costs no run and no checkpoint."""

import json
import os
import signal
import subprocess

import pytest
import toys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_recovery import (
    At,
    assert_bit_equal,
    last,
    pretraining,
)

from tf_dpred.callbacks import json_lines
from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.callbacks.tensorboard import TensorBoard
from tf_dpred.errors import Preempted
from tf_dpred.optimizers import SGD
from tf_dpred.records import checkpoints


def train_with_checkpoints(directory, *, every, steps_per_epoch=5, epochs=1):
    model = toys.compiled()
    saver = Checkpointing(
        model, directory, steps_per_epoch=steps_per_epoch, every=every
    )
    pair = toys.views(steps_per_epoch)
    toys.fit(model, pair, callbacks=[saver], epochs=epochs)
    assert model.steps_done == steps_per_epoch * epochs


def test_checkpoints__full_disk_is_reported_and_training_goes_on(tmp_path, monkeypatch):
    real, calls = checkpoints.save, []

    def save(path, state, run):
        calls.append(path.name)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(path, state, run)

    monkeypatch.setattr(checkpoints, "save", save)
    train_with_checkpoints(tmp_path, every=2, epochs=2)
    assert calls[:3] == [f"step-0000000{n}.npz" for n in (2, 4, 5)]


def test_checkpoints__a_full_disk_is_tried_again_at_the_next_one(tmp_path, monkeypatch):
    steps = []

    def save(path, state, run):
        steps.append(int(path.stem.rpartition("-")[2]))
        if steps[-1] < 20:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", save)
    train_with_checkpoints(tmp_path, every=4, steps_per_epoch=20)
    assert steps[:5] == [4, 8, 12, 16, 20]


def test_epoch_log__is_complete_before_the_next_checkpoint(tmp_path, monkeypatch):
    """A disk that is full at the end of an epoch, and a stop in the next one."""
    real, failing = json_lines.write_whole, [True]

    def write_whole(path, text):
        if failing and failing.pop():
            raise OSError(28, "No space left on device")
        real(path, text)

    monkeypatch.setattr(json_lines, "write_whole", write_whole)
    stop = At(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Preempted):
        pretraining(str(tmp_path), callbacks=[stop]).train()
    assert pretraining(str(tmp_path)).train()["step"] == 10
    lines = (tmp_path / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


@pytest.mark.parametrize("failures", [1, 2])
def test_checkpoints__none_before_the_epoch_log_is_complete(
    tmp_path, monkeypatch, failures
):
    """A disk that fails for a moment at the end of an epoch, and then a power cut."""
    real, failing = json_lines.write_whole, [True] * failures

    def write_whole(path, text):
        if path.name == "epochs.jsonl" and failing and failing.pop():
            raise OSError(5, "Input/output error")
        real(path, text)

    def fail():
        raise RuntimeError("power cut")

    monkeypatch.setattr(json_lines, "write_whole", write_whole)
    with pytest.raises(RuntimeError):
        pretraining(str(tmp_path), callbacks=[At(6, fail)]).train()
    found = checkpoints.list_all(tmp_path / "checkpoints")
    assert [checkpoints.step_of(path) for path in found] == [5][failures - 1 :]
    assert pretraining(str(tmp_path)).train()["step"] == 10
    lines = (tmp_path / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a file system")
    yield disk
    # Lazily: event files may still be open.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_up(path):
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))


@pytest.mark.slow
def test_full_disk__all_files_recover(small_disk, tmp_path, caplog):
    """From step 3 to 8 nothing can be written; then all that matters is."""
    fill = small_disk / "fill"
    workdir = small_disk / "run"
    full = [At(3, lambda: fill_up(fill)), At(8, fill.unlink)]
    run = pretraining(str(workdir), checkpoint_every=2, epochs=3, callbacks=full)
    assert run.train()["step"] == 15
    assert "no checkpoint at step 4: [Errno 28] No space left" in caplog.text
    assert "Training goes on; the last good checkpoint is intact." in caplog.text
    assert "epochs.jsonl lacks its latest lines" in caplog.text
    assert not list(workdir.rglob(".*tmp"))
    lines = (workdir / "epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]
    pretraining(str(tmp_path / "whole"), checkpoint_every=2, epochs=3).train()
    assert_bit_equal(last(workdir), last(tmp_path / "whole"))


def test_full_disk__curves_go_on_with_the_next_epoch(small_disk, caplog):
    fill, curves = small_disk / "fill", small_disk / "tensorboard"
    model = toys.model()
    model.compile(SGD())
    board = TensorBoard(str(curves), toys.BATCH, 1)
    board.set_model(model)
    board.on_epoch_begin(0)
    fill_up(fill)
    for _ in range(200):  # some room is left in the last block of a file
        board.on_train_batch_end(0, {"loss": 1.0})
        model.optimizer.iterations.assign_add(1)
    assert board.failed
    assert caplog.text.count("till the next epoch") == 1
    assert "No space left on device" in caplog.text
    fill.unlink()
    board.on_epoch_begin(1)
    model.optimizer.iterations.assign_add(1)
    board.on_train_batch_end(0, {"loss": 2.0})
    last_file = max(curves.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    events = EventAccumulator(str(last_file)).Reload()
    assert [event.step for event in events.Tensors("train/loss")] == [201]


@pytest.mark.slow
def test_full_disk__kills_nothing_that_was_saved(small_disk):
    """Full till the end: an error at the end, and the checkpoint of before is whole."""
    fill = small_disk / "fill"
    workdir = small_disk / "run"
    full = [At(7, lambda: fill_up(fill))]
    run = pretraining(str(workdir), checkpoint_every=2, callbacks=full)
    with pytest.raises(OSError, match="No space left"):
        run.train()
    path, _ = checkpoints.load_latest(workdir / "checkpoints")
    assert path.name == "step-00000006.npz"
    fill.unlink()
    assert pretraining(str(workdir), checkpoint_every=2).train()["step"] == 10


def test_checkpoints__last_one_that_fails_is_an_error(tmp_path, monkeypatch):
    def save(path, state, run):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save", save)
    with pytest.raises(OSError, match="No space left"):
        pretraining(str(tmp_path)).train()
