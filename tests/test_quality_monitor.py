"""Label-free measures while training, and the best checkpoint by one of them."""

import json
import logging
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys

from tf_dpred import monitors, quality
from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.callbacks.json_lines import EpochLog
from tf_dpred.callbacks.quality_monitor import QualityMonitor
from tf_dpred.callbacks.tensorboard import MEASURED
from tf_dpred.config import Config
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.source import from_arrays
from tf_dpred.data.views import view_pair
from tf_dpred.evaluation import views
from tf_dpred.predictors import MLP


def held_out(count=600, value=None):
    """Vectors in place of images, for the toy networks."""
    first, second = (pair[0] for pair in toys.views(1, batch=count, seed=5))
    if value is not None:
        first[0, 0] = value
    return views.HeldOutViews(first, second, True)


def monitor(every=5, epochs=2, **kwargs):
    return QualityMonitor(lambda: held_out(**kwargs), every, epochs)


def trained(callbacks, epochs=2, **settings):
    model = toys.compiled(**settings)
    toys.fit(model, toys.views(2), callbacks=callbacks, epochs=epochs)
    return model


def test_monitor__is_numpy_on_the_networks_features(tmp_path):
    log = EpochLog(tmp_path / "epochs.jsonl")
    model = trained([monitor(), log])
    assert [entry["epoch"] for entry in log.entries] == [0, 1, 2]
    last = json.loads((tmp_path / "epochs.jsonl").read_text().splitlines()[-1])
    pair = held_out()
    for prefix, network in (("", model.online), ("target_", model.target)):
        for index, part in enumerate(("", "projection_")):
            f1, f2 = (
                network(x, training=False)[index].numpy()
                for x in (pair.first, pair.second)
            )
            expected = quality.measure(f1, f2)
            found = {name: last[f"{prefix}{part}{name}"] for name in expected}
            assert found == pytest.approx(expected, rel=1e-4)
    assert last["view_images"] == 600 and last["view_held_out"] is True
    assert "view_top1" not in log.entries[1], "measured every 5 epochs and at the end"
    before = log.entries[0]
    assert before["view_top1"] != last["view_top1"] and "loss" not in before


def test_monitor__without_a_target():
    history = {}
    callback = monitor()
    callback.set_model(toys.compiled(MLP(predictor_hidden=8), target=False))
    callback.on_epoch_end(1, history)
    measured = {name for name in history if not name.startswith("view_")}
    assert not [name for name in measured if name.startswith("target_")]
    of_projection = {f"projection_{name}" for name in quality.MEASURES}
    # Four dimensions are too few for the decay of a spectrum.
    assert of_projection - set(history) == {"projection_alpha_req"}


def test_monitor__training_is_equal_to_the_bit():
    alone, watched = trained([]), trained([monitor(every=1)])
    for name, value in toys.state_of(alone).items():
        assert value.tobytes() == toys.state_of(watched)[name].tobytes(), name


def test_monitor__features_that_are_not_finite(caplog):
    logs = {}
    callback = monitor(value=np.nan)
    callback.set_model(toys.compiled())
    callback.on_epoch_end(1, logs)
    assert logs == {}
    assert "no view retrieval: Invalid features: received NaN" in caplog.text


def test_monitor__says_what_it_found(caplog):
    callback = monitor()
    callback.set_model(toys.compiled())
    with caplog.at_level(logging.INFO, logger="absl"):
        callback.on_train_begin({})
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("epoch 0: view retrieval 0.") and "600 held-out" in line


def test_monitor__a_continued_run_is_not_measured_at_its_start():
    model = trained([])
    callback = monitor()
    callback.set_model(model)
    logs = {}
    callback.on_train_begin(logs)
    assert logs == {}


def test_monitors__trace_a_network_once():
    """kNN and views are measured by the same function of the online network."""
    traced = []
    images = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(images / 255.0)
    noted = keras.layers.Lambda(lambda x: traced.append(x) or x)(pooled)
    network = keras.Model(images, [noted, keras.layers.Dense(2)(noted)])
    pixels = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), dtype=np.uint8)
    source = from_arrays(pixels, np.arange(21) % 3)
    given = types.SimpleNamespace(
        source=source, labelled=None, pair=view_pair("digits")
    )
    config = Config.from_dict({"image_size": 8, "knn_k": 3})
    traced.clear()
    model = types.SimpleNamespace(
        online=network, has_separate_target=False, steps_done=0
    )
    logs = {}
    for callback in monitors.of_config(config, BadImages(), None, given):
        callback.set_model(model)
        for _ in range(2):
            callback.on_train_begin(logs)
    assert len(traced) == 1
    assert {"knn", "view_top1", "projection_view_top1"} <= logs.keys()


def test_tensorboard__knows_every_measure():
    logs = {}
    callback = monitor()
    callback.set_model(toys.compiled())
    callback.on_epoch_end(1, logs)
    assert logs.keys() <= MEASURED.keys()


# Which images.


def images(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


def opened(**settings):
    config = Config.from_dict({"image_size": 8, **settings})
    found = views.held_out_source(config, BadImages())
    return views.HeldOutViews.of_source(*found, view_pair("digits"), 8)


def test_held_out__of_the_test_split_and_always_the_same():
    found, again = opened(), opened(seed=7)
    assert found.held_out and found.first.shape == (360, 8, 8, 3)
    np.testing.assert_array_equal(found.first, again.first)
    np.testing.assert_array_equal(found.second, again.second)
    assert (found.first != found.second).any()
    asked = opened(eval_test_split="train")
    assert len(asked.first) == views.IMAGES


@pytest.mark.parametrize(("splits", "held"), [(("train", "val"), True), ("", False)])
def test_held_out__of_a_folder_without_labels(tmp_path, splits, held):
    for split in splits or ("a", "b"):
        (tmp_path / split).mkdir()
        for i, image in enumerate(images(6 if split == "val" else 9)):
            path = tmp_path / split / f"{i}.png"
            path.write_bytes(tf.io.encode_png(image).numpy())
    found = opened(dataset="folder", data_dir=str(tmp_path))
    assert found.held_out is held
    assert len(found.first) == (6 if held else 18)


def test_held_out__of_a_source():
    source = from_arrays(images(20))
    found = views.held_out_source(Config(), BadImages(), None, source)
    assert found == (source, False)


# The best checkpoint.


def best_of(tmp_path, values, start=0, **settings):
    """Saves after epochs of these values -> the names of what is left."""
    model = toys.compiled()
    saver = Checkpointing(
        model, tmp_path, steps_per_epoch=3, keep=1, best="knn", **settings
    )
    saver.resume_best(
        [{"step": 3 * e, "knn": v} for e, v in enumerate(values[:start], 1)]
    )
    for epoch, value in list(enumerate(values, 1))[start:]:
        model.optimizer.iterations.assign(3 * epoch)
        saver.on_epoch_end(epoch - 1, {} if value is None else {"knn": value})
    saver.wait()
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.3, 0.5, 0.4], 6),
        ([0.5, None, 0.5], 3),  # the first of equals
        ([None, np.nan, 0.0], 9),
    ],
)
def test_keep_best__highest_beside_the_last(tmp_path, values, best, background):
    assert best_of(tmp_path, values, background=background) == [
        f"best-{best:08d}.npz",
        "step-00000009.npz",
    ]


def test_keep_best__a_continued_run_knows_how_good_it_was(tmp_path):
    best_of(tmp_path, [0.5, 0.3])
    assert best_of(tmp_path, [0.5, 0.3, 0.4], 2)[0] == "best-00000003.npz"
    assert best_of(tmp_path, [0.5, 0.3, 0.4, 0.6], 3)[0] == "best-00000012.npz"


def test_keep_best__none_where_nothing_was_measured(tmp_path):
    assert best_of(tmp_path, [None, None]) == ["step-00000006.npz"]


def test_keep_best__a_full_disk_is_reported(tmp_path, monkeypatch, caplog):
    from tf_dpred.records import checkpoints

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "save_best", full)
    assert best_of(tmp_path, [0.5]) == ["step-00000003.npz"]
    assert "no checkpoint at step 3: No space left on device" in caplog.text
    monkeypatch.undo()
    assert "best-00000006.npz" in best_of(tmp_path, [0.5, 0.4], 1)
