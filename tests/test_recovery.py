"""A run that was stopped, by whatever, goes on as if it had not been."""

import os
import shutil
import signal
import subprocess
import sys
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import toys

from tf_dpred import train
from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.callbacks.health import StopOnNonFinite
from tf_dpred.callbacks.pictures import Pictures
from tf_dpred.callbacks.preemption import Preemption
from tf_dpred.config import Config
from tf_dpred.encoders import restore, settings
from tf_dpred.errors import Preempted, Refused
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.optimizers import SGD
from tf_dpred.records import checkpoints
from tf_dpred.records.workdir import Workdir
from tf_dpred.step.finite import QUANTITIES, FiniteCheck
from tf_dpred.system import json_files

CHECKOUT = Path(__file__).parent.parent
TINY = {
    "image_size": 16,
    "projector_hidden": 32,
    "projector_dim": 16,
    "batch_size": 8,
    "train_size": 40,
    "epochs": 2,
    "knn_every": 0,
    "quality_every": 0,
    "log_every": 1,
}


class At(keras.callbacks.Callback):
    """Does something after a step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps_done == self.step:
            self.action()


def pretraining(workdir, *, pictures=False, callbacks=(), make=None, **settings):
    """Pictures of the views would take longer than all else of it."""
    config = Config.from_dict(TINY | settings | {"workdir": workdir})
    run = train.Pretraining(config, backbone=make or backbone, callbacks=callbacks)
    if not pictures:
        order = run.callbacks.in_order
        order[:] = [c for c in order if not isinstance(c, Pictures)]
    return run


def backbone():
    """A convolution and BatchNorm: what a ResNet is made of, but quickly traced."""
    image = keras.Input((16, 16, 3))
    # A backbone comes with its weights; these are equal every time.
    kernel = keras.initializers.HeNormal(seed=0)
    x = keras.layers.Conv2D(8, 3, 2, use_bias=False, kernel_initializer=kernel)(image)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def last(workdir):
    return checkpoints.load_latest(Path(workdir) / "checkpoints")[1]


def assert_bit_equal(a, b):
    assert a.keys() == b.keys()
    differing = [name for name in a if a[name].tobytes() != b[name].tobytes()]
    assert not differing


@pytest.mark.parametrize(
    "settings",
    [
        {"background_checkpoints": True, "accumulation_steps": 2},
        {"keep_last_batch": True, "train_size": 35},
        *(
            pytest.param(alone, marks=pytest.mark.slow)
            for alone in (
                {"pictures": True},
                {"background_checkpoints": True},
                {"accumulation_steps": 2},
            )
        ),
    ],
    ids=str,
)
def test_resume__in_the_middle_of_an_epoch_is_bit_equal(tmp_path, settings):
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    settings = {"checkpoint_every": 2, "keep_checkpoints": 9, **settings}
    pretraining(whole, **settings).train()

    def fail():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        pretraining(broken, callbacks=[At(8, fail)], **settings).train()
    run = pretraining(broken, **settings)
    run.callbacks.checkpoints.wait()
    # Steps 2, 4, 5 (end of the epoch) and 6 were saved; 7 and 8 are trained again.
    assert run.restored.name == "step-00000006.npz"
    result = run.train()
    assert_bit_equal(last(whole), last(broken))
    assert result == json_files.read(Workdir(whole).result)


def test_preemption__saves_the_step_and_continues(tmp_path, monkeypatch, caplog):
    """Elsewhere, and says so."""
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    stop = At(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run = pretraining(str(tmp_path), callbacks=[stop])
    handlers = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="SIGTERM: saved step 3; the same command"):
        run.train()
    assert signal.getsignal(signal.SIGTERM) == handlers
    again = pretraining(str(tmp_path))
    assert again.restored.name == "step-00000003.npz"
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "63")
    assert again.train()["step"] == 10
    change = "from here on: TF_NUM_INTRAOP_THREADS: not set -> 63"
    assert caplog.text.count("may differ") == 1 and change in caplog.text


def test_preemption__sigusr1_is_a_warning_of_sigterm(tmp_path, caplog):
    """As Slurm sends it: to every process, sometimes twice; then SIGTERM."""

    def send():
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
            os.kill(os.getpid(), number)

    handler = signal.getsignal(signal.SIGUSR1)
    run = pretraining(str(tmp_path), callbacks=[At(3, send)])
    with pytest.raises(Preempted, match="SIGTERM: saved step 3; the same command"):
        run.train()
    assert signal.getsignal(signal.SIGUSR1) == handler
    alone = At(7, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(Preempted, match="SIGUSR1: saved step 7; the same command"):
        pretraining(str(tmp_path), callbacks=[alone]).train()
    assert caplog.text.count("SIGUSR1: stopping after this step") == 2


def test_preemption__in_a_thread(tmp_path, caplog):
    """Of a web application, or of an agent that tries settings."""
    caplog.set_level("INFO", logger="absl")
    handlers = [signal.getsignal(number) for number in Preemption.SIGNALS]
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(pretraining, str(tmp_path), epochs=1).result()
        assert pool.submit(made.train).result()["step"] == 5
    run = pretraining(str(tmp_path))  # and one that was made in the main thread
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run.train).result()["step"] == 10
    assert caplog.text.count("not in the main thread") == 2
    assert [signal.getsignal(number) for number in Preemption.SIGNALS] == handlers


def test_preemption__leaves_a_handler_alone_that_is_not_pythons(monkeypatch):
    """Python could not put it back."""
    known = signal.getsignal
    monkeypatch.setattr(
        signal, "getsignal", lambda n: None if n == signal.SIGUSR1 else known(n)
    )
    before = known(signal.SIGUSR1)
    with Preemption(None):
        assert known(signal.SIGUSR1) == before
        assert known(signal.SIGTERM) != signal.SIG_DFL
    assert known(signal.SIGTERM) == signal.SIG_DFL


def test_preemption__after_the_last_step_the_metrics_are_kept(tmp_path):
    stop = At(5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    run = pretraining(str(tmp_path), epochs=1, callbacks=[stop])
    with pytest.raises(Preempted, match="saved step 5"):
        run.train()
    result = pretraining(str(tmp_path), epochs=1).train()
    assert result["epoch"] == 1 and np.isfinite(result["loss"])


def test_steps_per_execution__must_divide_the_epoch(tmp_path):
    with pytest.raises(Refused, match="received 2, accepted: a divisor of the 5"):
        pretraining(str(tmp_path), steps_per_execution=2)
    assert pretraining(str(tmp_path / "b"), steps_per_execution=5).train()["step"] == 10


def test_keep_last_batch__needs_one_device(tmp_path, monkeypatch):
    two = types.SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(train.devices, "setup", lambda _: two)
    with pytest.raises(Refused, match=r"--keep_last_batch: .* false on 2 devices"):
        pretraining(str(tmp_path), keep_last_batch=True)


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_main__signals_and_the_lock(tmp_path):
    settings = TINY | {"width": 1 / 16, "epochs": 10_000}
    flags = [f"--{k}={v}" for k, v in settings.items()]
    flags += [f"--workdir={tmp_path}", "--checkpoint_every=5"]
    command = [sys.executable, "-m", "tf_dpred.main", *flags]
    with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE) as first:
        wait_for(lambda: checkpoints.list_all(tmp_path / "checkpoints"))
        second = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
        assert second.returncode == 2
        assert f"process {first.pid} on" in second.stderr
        first.send_signal(signal.SIGINT)
        assert first.wait() == 75
    # A crash leaves no lock behind.
    with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE) as third:
        newest = checkpoints.list_all(tmp_path / "checkpoints")[-1]
        wait_for(lambda: checkpoints.list_all(tmp_path / "checkpoints")[-1] > newest)
        third.kill()
    with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE) as fourth:
        newest = checkpoints.list_all(tmp_path / "checkpoints")[-1]
        wait_for(lambda: checkpoints.list_all(tmp_path / "checkpoints")[-1] > newest)
        fourth.send_signal(signal.SIGTERM)
        assert fourth.wait() == 75


def test_lock__a_second_run_of_this_process_takes_over(tmp_path):
    """A notebook's cell that makes the run is executed twice."""
    first, second = pretraining(str(tmp_path)), pretraining(str(tmp_path))
    with pytest.raises(Refused, match="a later run of this process has begun"):
        first.train()
    assert second.train()["step"] == 10


def test_lock__is_free_after_a_refusal(tmp_path):
    """A notebook's cell is corrected and executed again."""
    with pytest.raises(Refused, match="--batch_size") as refusal:
        pretraining(str(tmp_path), batch_size=64)
    assert pretraining(str(tmp_path)).train()["step"] == 10
    del refusal  # its traceback held the first run until here


def test_train__again_after_an_error(tmp_path):
    """A notebook's cell that trains is interrupted and executed again."""
    failures = [RuntimeError("a bug")]

    def fail():
        if failures:
            raise failures.pop()

    run = pretraining(str(tmp_path / "a"), callbacks=[At(7, fail)])
    with pytest.raises(RuntimeError, match="a bug"):
        run.train()
    assert run.train()["step"] == 10
    pretraining(str(tmp_path / "b")).train()
    assert_bit_equal(last(tmp_path / "a"), last(tmp_path / "b"))


def test_train__not_again_where_another_run_went_further(tmp_path):
    def fail():
        raise RuntimeError("a bug")

    run = pretraining(str(tmp_path), callbacks=[At(7, fail)])
    with pytest.raises(RuntimeError, match="a bug"):
        run.train()
    checkpoints.save(checkpoints.path_of(tmp_path / "checkpoints", 9), last(tmp_path))
    with pytest.raises(Refused, match=r"step-00000009\.npz, which is newer than"):
        run.train()


def test_restore__a_copy_under_another_name_does_not_count(tmp_path, caplog):
    pretraining(str(tmp_path), epochs=1).train()
    directory = tmp_path / "checkpoints"
    (first,) = checkpoints.list_all(directory)
    kept = directory / "step-best.npz"
    kept.write_bytes(first.read_bytes())
    assert pretraining(str(tmp_path)).train()["step"] == 10
    run = pretraining(str(tmp_path))
    assert run.restored.name == "step-00000010.npz"
    assert kept.exists()
    assert f"{kept} is not a checkpoint by its name: left alone" in caplog.text


def test_restore__a_checkpoint_of_another_run_is_refused(finished, tmp_path):
    """Of the same shapes: only its identity tells."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    for workdir, seed in ((mine, 1), (other, 2)):
        pretraining(str(workdir), epochs=1, seed=seed).train()
    runs = [json_files.read(Workdir(w).flags)["run"] for w in (mine, other)]
    assert runs[0].startswith("mine-") and runs[1].startswith("other-")
    foreign = checkpoints.path_of(mine / "checkpoints", 7)
    shutil.copy(checkpoints.path_of(other / "checkpoints", 5), foreign)
    before = sorted(mine.rglob("*"))
    with pytest.raises(Refused, match=f"{foreign}', a checkpoint of the run ") as error:
        pretraining(str(mine), seed=1)
    assert all(run in str(error.value) for run in runs)
    with pytest.raises(Refused, match=f"{foreign}', a checkpoint of the run {runs[1]}"):
        restore.open_encoder(settings.of_encoder({"workdir": str(mine)}))
    assert sorted(mine.rglob("*")) == before
    foreign.unlink()
    assert pretraining(str(mine), seed=1).train()["step"] == 10
    # The identity stays that of the first start.
    assert json_files.read(Workdir(mine).flags)["run"] == runs[0]
    assert checkpoints.run_of(checkpoints.list_all(mine / "checkpoints")[-1]) == runs[0]


def test_restore__a_finished_run_without_its_checkpoints_is_refused(finished, tmp_path):
    """It would begin anew and write over its curves and its result."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json*")}
    with pytest.raises(Refused, match="ended at step 10 and whose checkpoints are mi"):
        pretraining(str(tmp_path))
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json*")}


def test_restore__a_run_that_begins_anew_says_so(finished, tmp_path, caplog):
    """Killed before it ended, and copied without its checkpoints."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "result.json").unlink()
    assert pretraining(str(tmp_path)).restored is None
    assert "epochs.jsonl goes up to step 10: the run begins anew" in caplog.text


def test_restore__a_run_of_an_early_version_goes_on(finished, tmp_path, caplog):
    """Neither its flags.json nor its checkpoints have an identity."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = Workdir(tmp_path).flags
    record = json_files.read(path)
    del record["run"]
    json_files.write(path, record)
    for checkpoint in checkpoints.list_all(tmp_path / "checkpoints"):
        checkpoints.save(checkpoint, checkpoints.load(checkpoint))
    assert pretraining(str(tmp_path), epochs=3).train()["step"] == 15
    run = json_files.read(path)["run"]
    newest = checkpoints.list_all(tmp_path / "checkpoints")[-1]
    assert checkpoints.run_of(newest) == run
    assert "may differ" not in caplog.text


def test_restore__without_flags_json_the_checkpoint_says_which_run_it_is(
    finished, tmp_path
):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = Workdir(tmp_path).flags
    run = json_files.read(path)["run"]
    path.unlink()
    pretraining(str(tmp_path), epochs=3).train()
    assert json_files.read(path)["run"] == run


def test_lock__is_free_when_training_fails(tmp_path):
    def fail():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug") as failure:
        pretraining(str(tmp_path), callbacks=[At(2, fail)]).train()
    assert pretraining(str(tmp_path)).train()["step"] == 10
    del failure


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The work directory of a run that came to its end; not to be changed."""
    workdir = tmp_path_factory.mktemp("finished")
    pretraining(str(workdir)).train()
    return workdir


def test_restore__damaged_checkpoint_is_passed_over(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    newest = checkpoints.list_all(tmp_path / "checkpoints")[-1]
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    run = pretraining(str(tmp_path))
    assert run.restored.name == "step-00000005.npz"
    set_aside = newest.with_name("step-00000010.npz.damaged")
    assert set_aside.read_bytes() == damaged
    assert run.train()["step"] == 10
    assert [path.name for path in checkpoints.list_all(newest.parent)] == [
        "step-00000005.npz",
        "step-00000010.npz",
    ]


@pytest.mark.parametrize(
    ("lines", "lost"), [([0, 1], None), ([0], "2"), ([1], "1"), ([], "1, 2")], ids=str
)
def test_restore__names_epochs_whose_metrics_are_lost(
    finished, tmp_path, caplog, lines, lost
):
    """A file that was cut, or removed: the checkpoints go further."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "epochs.jsonl"
    found = path.read_text().splitlines(keepends=True)
    path.write_text("".join(found[line] for line in lines))
    pretraining(str(tmp_path))
    if lost is None:
        assert "lacks epochs" not in caplog.text
    else:
        words = "epochs.jsonl lacks epochs that were trained, whose metrics are lost: "
        assert f"{words}{lost}\n" in caplog.text


def test_restore__other_variables_are_refused(tmp_path):
    model = toys.model()
    model.compile(SGD(), run_eagerly=True)
    saver = Checkpointing(model, tmp_path, steps_per_epoch=4)
    toys.fit(model, toys.views(1), callbacks=[saver])
    other = toys.model(target=False)
    other.compile(SGD(), run_eagerly=True)
    with pytest.raises(Refused, match=r"not in the model .*target"):
        Checkpointing(other, tmp_path, steps_per_epoch=4).restore()


def test_load__a_disk_that_fails_is_not_a_damaged_file(finished, monkeypatch):
    def load(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(OSError, match="Input/output"):
        pretraining(str(finished))
    assert len(checkpoints.list_all(finished / "checkpoints")) == 2


@pytest.mark.parametrize("index", range(len(QUANTITIES)))
def test_guard__names_quantity_and_first_step(index):
    guard = FiniteCheck()
    fine = [np.float32(1.0)] * len(QUANTITIES)
    bad = list(fine)
    bad[index] = np.array([1.0, np.inf], np.float32)
    for step, values in enumerate([fine, fine, bad, [np.float32(np.nan)] * 4]):
        guard.observe(np.int64(step), values)
    assert guard.describe() == f"{QUANTITIES[index]} is not finite at step 2"
    assert int(guard.count) == 2


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_nonfinite__stops_at_the_step(tmp_path, steps_per_execution):
    model = toys.model()
    model.compile(SGD(), steps_per_execution=steps_per_execution)
    first, second = toys.views(6)
    first[4, 0, 0] = np.nan
    saver = Checkpointing(model, tmp_path, steps_per_epoch=6, every=1)
    with pytest.raises(FloatingPointError, match="loss is not finite at step 4"):
        toys.fit(model, (first, second), callbacks=[StopOnNonFinite(), saver])
    good = checkpoints.load_latest(tmp_path)[1]
    assert all(np.isfinite(array).all() for array in good.values())


def test_nonfinite__skip_drops_the_update_and_counts(policy):
    policy("float64")
    first, second = toys.views(6)
    first[3, 0, 0] = np.inf
    model = toys.model(skip_nonfinite=True)
    model.compile(SGD(0.05, 0.9, 1e-3), run_eagerly=True)
    toys.fit(model, (first, second))
    without = toys.model()
    without.compile(SGD(0.05, 0.9, 1e-3), run_eagerly=True)
    good = [0, 1, 2, 4, 5]
    toys.fit(without, (first[good], second[good]))
    pairs = (
        toys.arrays([*m.variables, *m.loss_tracker.variables, *m.feature_std.variables])
        for m in (model, without)
    )
    for a, b in zip(*pairs, strict=True):
        if a.dtype == np.float64:
            np.testing.assert_array_equal(a, b)
    assert int(model.finite.count) == 1
    assert int(model.optimizer.iterations) == 6
