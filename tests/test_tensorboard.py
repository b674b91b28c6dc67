"""What TensorBoard is given: curves, histograms, settings, pictures, a trace."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tf_dpred.callbacks.knn_monitor import KNNMonitor
from tf_dpred.callbacks.pictures import Pictures
from tf_dpred.callbacks.profile import Profile
from tf_dpred.callbacks.tensorboard import TensorBoard
from tf_dpred.callbacks.theory_monitor import TheoryMonitor
from tf_dpred.config import EvaluationConfig
from tf_dpred.optimizers import SGD
from tf_dpred.reports import tiles


def monitor():
    """Of vectors: before training and at the second epoch's end."""
    config = EvaluationConfig(knn_every=2, knn_k=3)
    return KNNMonitor(toys.labelled(), toys.labelled(), 2, config, 2)


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


STEP_TAGS = {
    "train/loss",
    "train/feature_std",
    "schedule/tau",
    "schedule/learning_rate",
    "speed/images_per_second",
}
EPOCH_TAGS = {"loss", "feature_std", "tau"}


def test_tensorboard__tags_and_steps(tmp_path):
    model = toys.compiled()
    callback = TensorBoard(str(tmp_path), toys.BATCH, log_every=2)
    history = toys.fit(
        model,
        toys.views(3),
        callbacks=[monitor(), callback],
        epochs=2,
    ).history
    found = events(tmp_path)
    assert set(found) == (
        STEP_TAGS | {f"epoch/{tag}" for tag in EPOCH_TAGS} | {"eval/knn"}
    )
    for tag in STEP_TAGS:
        assert list(found[tag]) == [2, 4, 6]
    for tag in EPOCH_TAGS:
        np.testing.assert_allclose(
            list(found[f"epoch/{tag}"].values()), history[tag], rtol=1e-6
        )
        assert list(found[f"epoch/{tag}"]) == [3, 6]
    assert list(found["eval/knn"]) == [0, 6]  # untrained, and after the last
    assert set(found["schedule/learning_rate"].values()) == {np.float32(0.1)}


def test_tensorboard__learning_rate_of_a_schedule(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 4, 0.0)
    model = toys.compiled(optimizer=SGD(schedule))
    callback = TensorBoard(str(tmp_path), toys.BATCH, log_every=1)
    toys.fit(model, toys.views(3), callbacks=[callback])
    found = events(tmp_path)["schedule/learning_rate"]
    # The rate of the step to come.
    assert found == pytest.approx({1: 0.75, 2: 0.5, 3: 0.25})


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
@pytest.mark.slow
def test_tensorboard__memory_does_not_grow(tmp_path):
    """4.5 MB in 1000 steps, once, when it was given Python numbers."""

    def megabytes():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    model = toys.compiled()
    board = TensorBoard(str(tmp_path), 4, 1)
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


def accumulated(directory):
    return EventAccumulator(str(directory), {"tensors": 0}).Reload()


def test_tensorboard__settings_as_text_and_for_comparison(tmp_path):
    settings = {"rho": 0.3, "predictor": "direct", "split": None, "ema": True}
    model = toys.compiled()
    callback = TensorBoard(str(tmp_path), toys.BATCH, 1, settings)
    toys.fit(model, toys.views(1), callbacks=[callback])
    found = accumulated(tmp_path)
    text = tf.make_ndarray(found.Tensors("settings")[0].tensor_proto)
    assert "| rho       | 0.3    |" in text.item().decode().splitlines()
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    values = {name: value for name, value in info.hparams.items()}
    assert values["rho"].number_value == 0.3
    assert values["predictor"].string_value == "direct"
    assert values["ema"].bool_value is True and "split" not in values


def test_tensorboard__settings_are_written_once(tmp_path):
    model = toys.compiled()
    for _ in range(2):
        callback = TensorBoard(str(tmp_path), toys.BATCH, 1, {"rho": 0.3})
        toys.fit(model, toys.views(1), callbacks=[callback])
    assert len(accumulated(tmp_path).Tensors("settings")) == 1


def test_theory__spectra_as_histograms(tmp_path):
    model = toys.compiled()
    board = TensorBoard(str(tmp_path / "events"), toys.BATCH, 1)
    theory = TheoryMonitor(tmp_path / "theory.jsonl", 2, board)
    toys.fit(model, toys.views(4), callbacks=[board, theory])
    found = accumulated(tmp_path / "events")
    events = found.Tensors("spectrum/log10_F")
    assert [event.step for event in events] == [2, 4]
    # Rows of left, right, count.
    counts = tf.make_ndarray(events[-1].tensor_proto)[:, 2]
    assert counts.sum() == toys.DIM
    last = tf.make_ndarray(found.Tensors("spectrum/W")[-1].tensor_proto)
    assert last[-1, 1] == pytest.approx(max(theory.entries[-1]["eigenvalues_w"]))


class Features:
    """Stands for the kNN monitor: images of one colour, and features that tell it."""

    def __init__(self):
        shades = np.arange(24, dtype=np.uint8)
        images = np.tile(shades[:, None, None, None], (1, 5, 5, 3))
        labels = shades // 4
        self.bank = tf.data.Dataset.from_tensor_slices((images, labels)).batch(7)
        self.test = self.bank
        features = np.stack([np.cos(shades / 9), np.sin(shades / 9)], axis=1)
        self.features = {"bank": (features, labels), "test": (features, labels)}


def picture_of(event):
    width, height, encoded = tf.make_ndarray(event.tensor_proto)[:3]
    picture = tf.io.decode_png(encoded).numpy()
    assert picture.shape[:2] == (int(height), int(width))
    return picture


def test_pictures__neighbours_and_map(tmp_path):
    model = toys.compiled()
    board = TensorBoard(str(tmp_path), toys.BATCH, 1)
    drawn = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    callback = Pictures(board, lambda: drawn, Features(), after=2)
    callback.set_model(model), board.set_model(model)
    toys.fit(model, toys.views(3), callbacks=[board, callback])
    callback.on_epoch_end(0, {"knn": 1.0})
    found = accumulated(tmp_path)
    (views,) = found.Tensors("views")
    assert views.step == 2
    np.testing.assert_array_equal(picture_of(views), drawn)
    (event,) = found.Tensors("neighbours")
    picture = picture_of(event)
    # Test image 3 and its nearest, itself, in the fourth line; the frame tells that
    # both are of class 0.
    side = 64 + 2 * tiles.GAP
    line = picture[3 * side : 4 * side]
    assert (line[side // 2, side // 2] == 3).all()
    assert (line[side // 2, side + tiles.GAP + side // 2] == 3).all()
    assert tuple(line[0, side + tiles.GAP]) == tiles.RIGHT
    # The last of the eight is of another class.
    assert tuple(line[0, 8 * (side + tiles.GAP)]) == tiles.WRONG
    table = np.loadtxt(tmp_path / "projector/features.tsv")
    np.testing.assert_allclose(table, Features().features["test"][0], atol=1e-3)
    labels = (tmp_path / "projector/labels.tsv").read_text().split()
    assert labels == [str(i // 4) for i in range(24)]
    sprite = tf.io.decode_png((tmp_path / "projector/images.png").read_bytes())
    assert sprite.shape == (5 * 32, 5 * 32, 3) and (sprite[40, 40].numpy() == 6).all()
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "projector/features.tsv"' in config


def test_pictures__views_alone_without_a_knn_monitor(tmp_path):
    model = toys.compiled()
    board = TensorBoard(str(tmp_path), toys.BATCH, 1)
    drawn = np.zeros((2, 2, 3), np.uint8)
    callback = Pictures(board, lambda: drawn, None, after=1)
    toys.fit(model, toys.views(3), callbacks=[board, callback], epochs=2)
    assert len(accumulated(tmp_path).Tensors("views")) == 1


def test_profile__writes_a_trace(tmp_path):
    model = toys.compiled()
    toys.fit(model, toys.views(5), callbacks=[Profile(str(tmp_path), 2, 4)])
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


def test_profile__ends_with_the_run(tmp_path):
    model = toys.compiled()
    for _ in range(2):
        toys.fit(model, toys.views(3), callbacks=[Profile(str(tmp_path), 2, 99)])
