"""Callbacks: what they log, when they act, what they save."""

import json
import logging
import re

import numpy as np
import pytest
import toys

from tf_dpred.callbacks import health, knn_monitor, progress
from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.callbacks.json_lines import EpochLog
from tf_dpred.config import EvaluationConfig
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.predictors import MLP, Direct, Identity
from tf_dpred.records.state import training_state
from tf_dpred.system import json_files


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


# Guards.


def spreads(callback, values):
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"feature_std": value})


def test_collapse_warning__once_for_each_collapse(caplog):
    spreads(health.CollapseWarning(0.1), [0.9, 0.05, 0.01, 0.5, 0.02])
    found = [m.split(":")[0] for m in messages(caplog)]
    assert found == ["epoch 2", "epoch 5"]
    assert "0.0500 (1 = spread, 0 = collapsed)" in messages(caplog)[0]


def test_collapse_warning__none_above_the_threshold(caplog):
    callback = health.CollapseWarning(0.1)
    spreads(callback, [0.9, 0.1])
    callback.on_epoch_end(2, {})
    callback.on_epoch_end(3, None)
    assert messages(caplog) == []


def test_collapse_warning__in_a_run_that_collapses(caplog):
    model = toys.compiled(Identity(), target=False, stop_gradient=False, loss="mse")
    dense = model.online.get_layer("projection")
    dense.kernel.assign(1e-4 * dense.kernel)
    dense.bias.assign(np.ones(toys.DIM))
    toys.fit(model, toys.views(1), callbacks=[health.CollapseWarning()])
    assert len(messages(caplog)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stop_on_non_finite__ends_the_run_with_a_name_and_a_step(value):
    model = toys.compiled()
    first, second = toys.views(4)
    first[2, 0, 0] = value
    with pytest.raises(FloatingPointError, match="loss is not finite at step 2"):
        toys.fit(model, (first, second), callbacks=[health.StopOnNonFinite()])
    assert model.steps_done == 3


def test_stop_on_non_finite__lets_a_finite_run_go_on():
    model = toys.compiled()
    toys.fit(model, toys.views(3), callbacks=[health.StopOnNonFinite()])
    assert model.steps_done == 3


def test_report_skipped__counts_from_where_it_began(caplog):
    model = toys.model(skip_nonfinite=True)
    model.compile(SGD(0.1), run_eagerly=True)
    first, second = toys.views(4)
    first[[1, 3], 0, 0] = np.nan
    for expected in (2, 4):
        caplog.clear()
        log = {}
        report = health.ReportSkipped()
        toys.fit(model, (first, second), callbacks=[report])
        report.on_epoch_end(0, log)
        assert log == {"skipped_updates": expected}
        found = [m.partition(" that")[0] for m in messages(caplog)]
        counts = (expected - 1, expected)
        assert found == [f"skipped {count} updates so far" for count in counts]
        assert "the first: loss is not finite at step 1" in messages(caplog)[0]


# kNN.


def new_knn_monitor(every, epochs):
    config = EvaluationConfig(knn_every=every, knn_k=3)
    return knn_monitor.KNNMonitor(toys.labelled(), toys.labelled(), 2, config, epochs)


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [
        (2, 5, [2, 4, 5]),
        (2, 4, [2, 4]),
        (1, 3, [1, 2, 3]),
        (10, 3, [3]),
    ],
)
def test_knn_monitor__every_n_epochs_and_after_the_last(
    every, epochs, expected, monkeypatch
):
    callback = new_knn_monitor(every, epochs)
    monkeypatch.setattr(callback, "_evaluate", lambda epoch: 0.5)
    logs = {epoch: {} for epoch in range(epochs)}
    for epoch in range(epochs):
        callback.on_epoch_end(epoch, logs[epoch])
    assert [epoch + 1 for epoch in logs if "knn" in logs[epoch]] == expected


def test_knn_monitor__in_a_run(caplog):
    model = toys.compiled()
    with caplog.at_level(logging.INFO, logger="absl"):
        history = toys.fit(
            model, toys.views(1), callbacks=[new_knn_monitor(5, 2)], epochs=2
        ).history
    assert history["knn"] == [1.0]
    # Before training and after the last epoch.
    assert messages(caplog) == [
        f"epoch {epoch}: kNN 1.0000 (k=3, T=0.1; 12 train, 12 test images)"
        for epoch in (0, 2)
    ]


def test_knn_monitor__a_continued_run_is_not_evaluated_at_its_start(caplog):
    model = toys.compiled()
    toys.fit(model, toys.views(1))
    with caplog.at_level(logging.INFO, logger="absl"):
        toys.fit(model, toys.views(1), callbacks=[new_knn_monitor(5, 9)])
    assert messages(caplog) == []


# Progress.


def new_progress(model, epochs=2, seconds=0.0):
    return progress.Progress(toys.BATCH, 2, epochs, seconds=seconds)


def test_progress__lines(caplog):
    model = toys.compiled(optimizer=SGD(0.125))
    with caplog.at_level(logging.INFO, logger="absl"):
        toys.fit(model, toys.views(2), callbacks=[new_progress(model)], epochs=2)
    lines = messages(caplog)
    # The first step is left out of the speed; then each step, and each epoch's end.
    assert [line.split("  ")[0] for line in lines] == [
        "epoch 1/2",
        "epoch 1/2",
        "epoch 1.5/2",
        "epoch 2/2",
        "epoch 2/2",
    ]
    pattern = (
        r"epoch 1/2  loss -\d\.\d{4}  std \d\.\d{3}  lr 0\.125"
        r"  \d+ images/s  ETA \d+:\d\d"
    )
    assert re.fullmatch(pattern, lines[0])


def test_progress__fits_a_console(caplog):
    model = toys.compiled(optimizer=SGD(0.000123456))
    callback = progress.Progress(4096, 312, 1000)
    callback.set_model(model)
    model.optimizer.iterations.assign(312 * 998 + 100)
    callback._epoch = 998
    callback._mark = (312 * 998, 0.0)
    callback._now = (312 * 998 + 100, 654.321)
    logs = {"loss": -3.98765432, "feature_std": 0.987654321, "tau": 0.99987654321}
    with caplog.at_level(logging.INFO, logger="absl"):
        callback._report(logs, 100 / 312)
        callback._mark = (311_164, 0.0)
        callback._report(logs | {"knn": 0.698765432})
        callback._report(logs | {"knn": 0.7, "skipped_updates": 12})
    within, end, with_skips = messages(caplog)
    # 100 steps of 4096 images in 654 s; 524 are left.
    speed = "lr 0.000123  626 images/s  ETA 57:09"
    assert within == f"epoch 998.32/1000  loss -3.9877  std 0.988  {speed}"
    assert end.startswith("epoch 999/1000  loss -3.9877  std 0.988  kNN 0.6988  lr ")
    assert "kNN 0.7000  skipped 12  lr" in with_skips
    # Behind the time of the day.
    assert max(len(f"12:34:56 {line}") for line in (within, end)) <= 100


def test_progress__quiet_between_the_ends_of_epochs(caplog):
    model = toys.compiled()
    with caplog.at_level(logging.INFO, logger="absl"):
        toys.fit(model, toys.views(2), callbacks=[new_progress(model, seconds=1e9)])
    assert len(messages(caplog)) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_duration__text(seconds, text):
    assert progress._duration(seconds) == text


# Epochs as text.


def test_epoch_log__lines_and_truncation(tmp_path):
    path = tmp_path / "epochs.jsonl"
    model = toys.compiled()
    log = EpochLog(path)
    history = toys.fit(model, toys.views(2), callbacks=[log], epochs=3).history
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert log.entries == entries
    assert [(e["epoch"], e["step"]) for e in entries] == [(1, 2), (2, 4), (3, 6)]
    assert [e["loss"] for e in entries] == history["loss"]
    with path.open("a") as file:
        file.write('{"epoch": 4, "st')
    for step, kept in ((6, 3), (4, 2), (0, 0)):
        log.resume(step)
        assert log.entries == entries[:kept]


def test_epoch_log__what_was_measured_before_training_is_epoch_0(tmp_path):
    log = EpochLog(tmp_path / "epochs.jsonl")
    log.set_model(toys.compiled())
    log.on_train_begin({})
    log.on_train_begin({"knn": 0.25})
    assert json_files.read_lines(log.path) == [{"epoch": 0, "step": 0, "knn": 0.25}]


# Checkpoints.


def values(model):
    return {name: v.numpy().copy() for name, v in training_state(model).items()}


@pytest.mark.parametrize(
    ("predictor", "settings", "optimizer"),
    [
        (lambda: Direct(freq=2, centered=True), {}, LARS),
        (lambda: MLP(predictor_hidden=8), {"target": False}, SGD),
    ],
    ids=["direct_lars", "mlp_without_target"],
)
def test_checkpoints__restore_every_variable_bit_by_bit(
    predictor, settings, optimizer, tmp_path
):
    def new():
        return toys.compiled(predictor(), optimizer(0.1), **settings)

    model = new()
    start = values(model)
    saver = Checkpointing(model, tmp_path, steps_per_epoch=3)
    assert saver.restore() is None
    toys.fit(model, toys.views(3), callbacks=[saver])
    expected = values(model)
    other = new()
    path = Checkpointing(other, tmp_path, steps_per_epoch=3).restore()
    assert path == tmp_path / "step-00000003.npz"
    found = values(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].tobytes() == value.tobytes(), name
    changed = [n for n in start if start[n].tobytes() != expected[n].tobytes()]
    assert {name.split("/")[0] for name in changed} >= {
        "online",
        "predictor",
        "optimizer",
        "metrics",
    }
    # And it goes on as the first one does.
    for each in (model, other):
        toys.fit(each, toys.views(2, seed=1))
    for name, value in values(model).items():
        assert values(other)[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize(
    ("every", "keep", "expected"),
    [(0, 9, [3, 6]), (2, 3, [3, 4, 6])],
)
def test_checkpoints__every_n_steps_and_after_each_epoch(
    every, keep, expected, tmp_path
):
    model = toys.compiled()
    saver = Checkpointing(model, tmp_path, steps_per_epoch=3, every=every, keep=keep)
    toys.fit(model, toys.views(3), callbacks=[saver], epochs=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"step-{step:08d}.npz" for step in expected]
