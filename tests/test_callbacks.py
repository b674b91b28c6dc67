"""Callbacks: what they log, when they act, what they save."""

import json
import logging
import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_dpred.callbacks import guards, knn, monitor
from tf_dpred.callbacks.checkpoint import Checkpoints, training_state
from tf_dpred.callbacks.history import EpochLog
from tf_dpred.config import EvaluationConfig
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.predictors import MLP, Direct, Identity


def compiled(predictor=None, optimizer=None, **kwargs):
    model = toys.model(predictor, **kwargs)
    model.compile(optimizer or SGD(0.1), run_eagerly=True)
    return model


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


# Guards.


def spreads(callback, values):
    for epoch, value in enumerate(values):
        callback.on_epoch_end(epoch, {"feature_std": value})


def test_collapse_warning__once_for_each_collapse(caplog):
    spreads(guards.CollapseWarning(0.1), [0.9, 0.05, 0.01, 0.5, 0.02])
    found = [m.split(":")[0] for m in messages(caplog)]
    assert found == ["epoch 2", "epoch 5"]
    assert "0.0500 (1 = spread, 0 = collapsed)" in messages(caplog)[0]


def test_collapse_warning__none_above_the_threshold(caplog):
    callback = guards.CollapseWarning(0.1)
    spreads(callback, [0.9, 0.1])
    callback.on_epoch_end(2, {})
    callback.on_epoch_end(3, None)
    assert messages(caplog) == []


def test_collapse_warning__in_a_run_that_collapses(caplog):
    model = compiled(Identity(), target=False, stop_gradient=False, loss="mse")
    dense = model.online.get_layer("projection")
    dense.kernel.assign(1e-4 * dense.kernel)
    dense.bias.assign(np.ones(toys.DIM))
    toys.fit(model, toys.views(1), callbacks=[guards.CollapseWarning()])
    assert len(messages(caplog)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stop_on_non_finite__ends_the_run_with_a_name_and_a_step(value):
    model = compiled()
    first, second = toys.views(4)
    first[2, 0, 0] = value
    with pytest.raises(FloatingPointError, match="loss is not finite at step 2"):
        toys.fit(model, (first, second), callbacks=[guards.StopOnNonFinite()])
    assert model.steps_done == 3


def test_stop_on_non_finite__lets_a_finite_run_go_on():
    model = compiled()
    toys.fit(model, toys.views(3), callbacks=[guards.StopOnNonFinite()])
    assert model.steps_done == 3


# kNN.


def labelled():
    """Two far classes, which any network tells apart; in batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, toys.INPUTS)).astype(np.float32)
    y = np.arange(12) % 2
    x[:, 0] += 100 * (2 * y - 1)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(5)


def knn_monitor(every, epochs):
    config = EvaluationConfig(knn_every=every, knn_k=3)
    return knn.KNNMonitor(labelled(), labelled(), 2, config, epochs)


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
    callback = knn_monitor(every, epochs)
    monkeypatch.setattr(callback, "_evaluate", lambda epoch: 0.5)
    logs = {epoch: {} for epoch in range(epochs)}
    for epoch in range(epochs):
        callback.on_epoch_end(epoch, logs[epoch])
    assert [epoch + 1 for epoch in logs if "knn" in logs[epoch]] == expected


def test_knn_monitor__in_a_run(caplog):
    model = compiled()
    with caplog.at_level(logging.INFO, logger="absl"):
        history = toys.fit(
            model, toys.views(1), callbacks=[knn_monitor(5, 2)], epochs=2
        ).history
    assert history["knn"] == [1.0]
    # Before training and after the last epoch.
    assert messages(caplog) == [
        f"epoch {epoch}: kNN 1.0000 (k=3, T=0.1; 12 train, 12 test images)"
        for epoch in (0, 2)
    ]


def test_knn_monitor__a_continued_run_is_not_evaluated_at_its_start(caplog):
    model = compiled()
    toys.fit(model, toys.views(1))
    with caplog.at_level(logging.INFO, logger="absl"):
        toys.fit(model, toys.views(1), callbacks=[knn_monitor(5, 9)])
    assert messages(caplog) == []


# Progress.


def progress(model, epochs=2, seconds=0.0):
    return monitor.Progress(toys.BATCH, 2, epochs, seconds=seconds)


def test_progress__lines(caplog):
    model = compiled(optimizer=SGD(0.125))
    with caplog.at_level(logging.INFO, logger="absl"):
        toys.fit(model, toys.views(2), callbacks=[progress(model)], epochs=2)
    lines = messages(caplog)
    # The first step is left out of the speed; then each step, and each epoch's end.
    assert [line.split("  ")[:2] for line in lines] == [
        ["epoch 1/2", "step 2"],
        ["epoch 1/2", "step 2"],
        ["epoch 2/2", "step 3"],
        ["epoch 2/2", "step 4"],
        ["epoch 2/2", "step 4"],
    ]
    pattern = (
        r"epoch 1/2  step 2  feature_std [\d.]+  loss -[\d.]+  tau 0\.9  lr 0\.125"
        r"  \d+ images/s  ETA \d+:\d\d"
    )
    assert re.fullmatch(pattern, lines[0])


def test_progress__quiet_between_the_ends_of_epochs(caplog):
    model = compiled()
    with caplog.at_level(logging.INFO, logger="absl"):
        toys.fit(model, toys.views(2), callbacks=[progress(model, seconds=1e9)])
    assert len(messages(caplog)) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")],
)
def test_duration__text(seconds, text):
    assert monitor._duration(seconds) == text


# TensorBoard.


def events(directory):
    found = EventAccumulator(str(directory), {"tensors": 0})
    found.Reload()
    return {
        tag: {
            event.step: float(tf.make_ndarray(event.tensor_proto))
            for event in found.Tensors(tag)
        }
        for tag in found.Tags()["tensors"]
    }


TRAIN_TAGS = {"loss", "feature_std", "tau", "learning_rate", "images_per_second"}
EPOCH_TAGS = {"loss", "feature_std", "tau"}


def test_tensorboard__tags_and_steps(tmp_path):
    model = compiled()
    callback = monitor.TensorBoard(str(tmp_path), toys.BATCH, log_every=2)
    history = toys.fit(
        model,
        toys.views(3),
        callbacks=[knn_monitor(2, 2), callback],
        epochs=2,
    ).history
    found = events(tmp_path)
    assert set(found) == (
        {f"train/{tag}" for tag in TRAIN_TAGS}
        | {f"epoch/{tag}" for tag in EPOCH_TAGS | {"knn"}}
    )
    for tag in TRAIN_TAGS:
        assert list(found[f"train/{tag}"]) == [2, 4, 6]
    for tag in EPOCH_TAGS:
        np.testing.assert_allclose(
            list(found[f"epoch/{tag}"].values()), history[tag], rtol=1e-6
        )
        assert list(found[f"epoch/{tag}"]) == [3, 6]
    assert list(found["epoch/knn"]) == [0, 6]  # untrained, and after the last
    assert set(found["train/learning_rate"].values()) == {np.float32(0.1)}


def test_tensorboard__learning_rate_of_a_schedule(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    model = compiled(optimizer=SGD(schedule))
    callback = monitor.TensorBoard(str(tmp_path), toys.BATCH, log_every=1)
    toys.fit(model, toys.views(3), callbacks=[callback])
    found = events(tmp_path)["train/learning_rate"]
    # The rate of the step to come.
    assert found == pytest.approx({1: 0.75, 2: 0.5, 3: 0.25})


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_tensorboard__memory_does_not_grow(tmp_path):
    """4.5 MB in 1000 steps, once, when it was given Python numbers."""

    def megabytes():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    model = compiled()
    board = monitor.TensorBoard(str(tmp_path), 4, 1)
    board.set_model(model)
    board.on_epoch_begin(0)
    before = None
    for step in range(1000):
        if step == 200:
            before = megabytes()
        logs = {f"metric{i}": step * 1.1 + i for i in range(5)}
        model.optimizer.iterations.assign_add(1)
        board.on_train_batch_end(step, logs)
    assert megabytes() - before < 2


# Epochs as text.


def test_epoch_log__lines_and_truncation(tmp_path):
    path = tmp_path / "epochs.jsonl"
    model = compiled()
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
        return compiled(predictor(), optimizer(0.1), **settings)

    model = new()
    start = values(model)
    saver = Checkpoints(model, tmp_path, steps_per_epoch=3)
    assert saver.restore() is None
    toys.fit(model, toys.views(3), callbacks=[saver])
    expected = values(model)
    other = new()
    path = Checkpoints(other, tmp_path, steps_per_epoch=3).restore()
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
    model = compiled()
    saver = Checkpoints(model, tmp_path, steps_per_epoch=3, every=every, keep=keep)
    toys.fit(model, toys.views(3), callbacks=[saver], epochs=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"step-{step:08d}.npz" for step in expected]
