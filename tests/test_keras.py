"""What users of Keras do with a model: the table of all of it, and each line tried.

python -m pytest tests/test_keras.py -k table -s
"""

import ast
import copy
import csv
import json
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
import toys
from devices import on_two_devices, strategy

from tf_dpred import schedules
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.losses import LOSSES, cosine
from tf_dpred.model import DirectPred
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.predictors import PREDICTORS, Direct, Linear
from tf_dpred.system.devices import set_precision

PAIR = toys.views(2)
VIEW1, VIEW2 = (view[0] for view in PAIR)
ONES = np.ones(len(VIEW1))
PAGE = Path(__file__).parent.parent / "docs" / "keras.md"


def fitted(*callbacks, optimizer=None, made=None, **kwargs):
    """A toy model after a `fit`, and its history."""
    model = made or toys.compiled(optimizer=optimizer)
    kwargs = {"validation_data": toys.dataset(PAIR), **kwargs}
    history = model.fit(
        toys.dataset(PAIR), verbose=0, callbacks=[TargetEMA(0.9), *callbacks], **kwargs
    )
    return model, history.history


def assert_same_bits(found, expected):
    found, expected = toys.state_of(found), toys.state_of(expected)
    assert found.keys() == expected.keys()
    assert [n for n in found if found[n].tobytes() != expected[n].tobytes()] == []


def settings_of(model):
    """The config, without the numbers by which Keras knows an object again."""

    def plain(part):
        if isinstance(part, dict):
            return {n: plain(v) for n, v in part.items() if n != "shared_object_id"}
        return [plain(v) for v in part] if isinstance(part, list | tuple) else part

    return plain(model.get_config())


# Each feature: what is done, and what has to be true of it.


def save_and_load(path):
    model, _ = fitted()
    model.save(path / "m.keras")
    assert_same_bits(keras.saving.load_model(path / "m.keras"), model)


def save_and_load_weights(path):
    model, _ = fitted()
    model.save_weights(path / "m.weights.h5")
    other = toys.compiled()
    other.load_weights(path / "m.weights.h5")
    assert_same_bits(other, model)


def save_as_hdf5(path):
    toys.compiled().save(path / "m.h5")


def config_and_json(path):
    made = toys.model(symmetric=False, accumulation_steps=2)
    for other in (
        DirectPred.from_config(made.get_config()),
        keras.models.model_from_json(made.to_json()),
        keras.models.clone_model(made),
    ):
        assert settings_of(other) == settings_of(made)
        assert (other.symmetric, other.accumulation_steps) == (False, 2)


def copy_and_pickle(path):
    model, _ = fitted()
    assert_same_bits(copy.deepcopy(model), model)
    assert_same_bits(pickle.loads(pickle.dumps(model)), model)


def get_and_set_weights(path):
    model, _ = fitted()
    other = toys.compiled()
    other.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        other.predictor.correlation, model.predictor.correlation
    )
    np.testing.assert_array_equal(other(VIEW1), model(VIEW1))


def encoder(path):
    model, _ = fitted()
    model.encoder.save(path / "e.keras")
    loaded = keras.saving.load_model(path / "e.keras")
    np.testing.assert_array_equal(loaded(VIEW1), model(VIEW1))
    assert model.encoder is model.encoder


def export(path):
    model, _ = fitted()
    model.export(path / "saved", verbose=False)
    loaded = tf.saved_model.load(path / "saved")
    np.testing.assert_allclose(loaded.serve(VIEW1), model(VIEW1), rtol=1e-6)


def fit_on_arrays(path):
    made = toys.compiled()
    callbacks = [TargetEMA(0.9)]
    made.fit(VIEW1, VIEW2, batch_size=8, callbacks=callbacks, verbose=0)
    made.fit((VIEW1, VIEW2), batch_size=8, callbacks=callbacks, verbose=0)
    history = made.fit(
        VIEW1, VIEW2, validation_split=0.25, callbacks=callbacks, verbose=0
    ).history
    assert "val_view_retrieval" in history


def fit_on_generators(path):
    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return PAIR[0][index], PAIR[1][index]

    made, callbacks = toys.compiled(), [TargetEMA(0.9)]
    made.fit(Pairs(), callbacks=callbacks, verbose=0, shuffle=False)
    steps = (pair for pair in zip(*PAIR, strict=True))
    made.fit(steps, steps_per_epoch=2, callbacks=callbacks, verbose=0)
    assert made.steps_done == 4


def validation(path):
    _, history = fitted(epochs=2)
    names = {"loss", "feature_std", "val_loss", "val_feature_std", "val_view_retrieval"}
    assert history.keys() == {*names, "tau"}


def evaluate(path):
    loss, feature_std, retrieval = toys.compiled().evaluate(VIEW1, VIEW2, verbose=0)
    assert -4 <= loss <= 4 and 0 <= feature_std <= 1 and 0 <= retrieval <= 1


def predict(path):
    made = toys.compiled()
    found = made.predict(toys.dataset(PAIR), verbose=0)
    expected = made.online(PAIR[0].reshape(-1, toys.INPUTS), training=False)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def one_batch(path):
    made = toys.compiled()
    TargetEMA(0.9).set_model(made)
    assert made.train_on_batch(VIEW1, VIEW2, return_dict=True).keys() == {
        "loss",
        "feature_std",
    }
    made.train_on_batch((VIEW1, VIEW2))
    assert len(made.test_on_batch(VIEW1, VIEW2)) == 3
    assert made.predict_on_batch(VIEW1).shape == (toys.BATCH, toys.HIDDEN)


def summary(path):
    lines = []
    made = toys.compiled()
    made.summary(print_fn=lines.append)
    text = "\n".join(lines)
    rows = re.findall(r"│ (\w+) \((\w+)\) +│ (.*?) +│ +(\d+) │", text)
    d, online = toys.DIM, 124  # 6 x 8 + 8, BatchNorm's 4 x 8, 8 x 4 + 4
    both = "((None, 8), (None, 4))"
    assert rows == [
        ("online", "Functional", both, str(online)),
        ("target", "Functional", both, str(online)),
        # W and F, the mean, and the number of batches
        ("predictor", "Direct", "(None, 4)", str(2 * d * d + d + 1)),
    ]
    trained = online - 2 * toys.HIDDEN
    assert f"Trainable params: {trained} " in text
    assert f"Non-trainable params: {2 * online + 2 * d * d + d + 1 - trained} " in text


def plot_model(path):
    pytest.importorskip("pydot")
    dot = keras.utils.model_to_dot(toys.compiled(), show_shapes=True).to_string()
    assert "Input shape: <b>(None, 6)" in dot and "Output shape: <b>(None, 8)" in dot


def model_checkpoint(path):
    name = path / "best.keras"
    saver = keras.callbacks.ModelCheckpoint(
        name, monitor="val_view_retrieval", mode="max", save_best_only=True
    )
    model, _ = fitted(saver)
    toys.assert_equal_state(keras.saving.load_model(name), model)


def backup_and_restore(path):
    def stop(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(path / "backup")
    stopper = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
    with pytest.raises(KeyboardInterrupt):
        fitted(backup, stopper, epochs=3)
    found, _ = fitted(keras.callbacks.BackupAndRestore(path / "backup"), epochs=3)
    assert_same_bits(found, fitted(epochs=3)[0])


def early_stopping(path):
    stopper = keras.callbacks.EarlyStopping(
        "val_loss", min_delta=1e9, patience=1, restore_best_weights=True
    )
    found, history = fitted(stopper, epochs=5)
    assert len(history["loss"]) == 2
    np.testing.assert_array_equal(found(VIEW1), fitted()[0](VIEW1))


def csv_logger(path):
    fitted(keras.callbacks.CSVLogger(path / "log.csv"), epochs=2)
    with (path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and {"val_view_retrieval", "tau"} <= rows[0].keys()


def tensorboard(path):
    board = keras.callbacks.TensorBoard(path / "logs", histogram_freq=1, update_freq=1)
    made = toys.model()
    made.compile(SGD(0.1))
    fitted(board, made=made)
    assert {p.name for p in (path / "logs").iterdir()} == {"train", "validation"}


def reduce_lr_on_plateau(path):
    plateau = keras.callbacks.ReduceLROnPlateau(
        "val_loss", factor=0.5, patience=0, min_delta=1e9
    )
    _, history = fitted(plateau, epochs=3)
    np.testing.assert_allclose(history["learning_rate"], [0.1, 0.1, 0.05], rtol=1e-6)


def reduce_a_schedule(path):
    plateau = keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=1e9)
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
    fitted(plateau, optimizer=LARS(rate), epochs=3)


def learning_rate_scheduler(path):
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model, history = fitted(scheduler, epochs=2)
    np.testing.assert_allclose(history["learning_rate"], [0.05, 0.025], rtol=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.025)


def terminate_on_nan(path):
    nan = np.full_like(VIEW1, np.nan)
    made = toys.compiled()
    callbacks = [TargetEMA(0.9), keras.callbacks.TerminateOnNaN()]
    made.fit(nan, nan, batch_size=4, epochs=3, callbacks=callbacks, verbose=0)
    assert made.steps_done == 1


def averaged_weights(path):
    fitted(keras.callbacks.SwapEMAWeights(), optimizer=SGD(0.1, use_ema=True))


def steps_per_execution(path):
    made = toys.model()
    made.compile(SGD(0.1), steps_per_execution=2)
    _, history = fitted(made=made)
    expected = fitted()[1]
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], value, rtol=1e-4)
    assert made.predict(VIEW1, batch_size=5, verbose=0).shape == (16, toys.HIDDEN)


def jit_compile(path):
    made = toys.model()
    made.compile(SGD(0.1), jit_compile=True)
    _, history = fitted(made=made)
    np.testing.assert_allclose(history["val_loss"], fitted()[1]["val_loss"], rtol=1e-3)


def optimizer_by_name(path):
    assert fitted(optimizer="adam")[0].steps_done == 2


def class_weight(path):
    fitted(class_weight={0: 1.0})


def sample_weight(path):
    made = toys.compiled()
    made.fit(VIEW1, VIEW2, sample_weight=ONES, callbacks=[TargetEMA(0.9)], verbose=0)


def weights_in_the_data(path):
    made = toys.compiled()
    weighted = toys.dataset(PAIR).map(lambda a, b: (a, b, tf.ones([16])))
    made.fit(weighted, callbacks=[TargetEMA(0.9)], verbose=0)


def labels_in_the_data(path):
    made = toys.compiled()
    labelled = toys.dataset(PAIR).map(lambda a, b: ((a, b), tf.ones([16])))
    made.fit(labelled, callbacks=[TargetEMA(0.9)], verbose=0)


def one_view(path):
    toys.compiled().evaluate(VIEW1, verbose=0)


def evaluate_with_weights(path):
    toys.compiled().evaluate(VIEW1, VIEW2, sample_weight=ONES, verbose=0)


def loss_of_compile(path):
    toys.model().compile(SGD(0.1), loss="mse")


def metrics_of_compile(path):
    toys.model().compile(SGD(0.1), metrics=["accuracy"])


def accumulation_of_keras(path):
    toys.model().compile(SGD(0.1, gradient_accumulation_steps=2))


def predictor_rate_of_adam(path):
    toys.model(Linear()).compile("adam", predictor_learning_rate=0.1)


def no_target_ema(path):
    toys.compiled().fit(toys.dataset(PAIR), verbose=0)


def no_target_ema_for_a_batch(path):
    toys.compiled().train_on_batch(VIEW1, VIEW2)


def target_ema_of_an_earlier_fit(path):
    model, _ = fitted()
    model.fit(toys.dataset(PAIR), verbose=0)


def two_target_emas(path):
    fitted(TargetEMA(0.5))


TABLE = {
    "`model.save`, `keras.saving.load_model` (safe mode)": (save_and_load, None),
    "`save_weights`, `load_weights`": (save_and_load_weights, None),
    "`model.save('m.h5')`": (save_as_hdf5, "accepted: a name that ends in .keras."),
    "`get_config`, `from_config`, `to_json`, `clone_model`": (config_and_json, None),
    "`copy.deepcopy`, `pickle`": (copy_and_pickle, None),
    "`get_weights`, `set_weights`": (get_and_set_weights, None),
    "`model.encoder`, `model.encoder.save`": (encoder, None),
    "`model.export`": (export, None),
    "`fit` on arrays, `validation_split`": (fit_on_arrays, None),
    "`fit` on a `PyDataset` or a generator": (fit_on_generators, None),
    "`fit(validation_data=...)`": (validation, None),
    "`evaluate`": (evaluate, None),
    "`predict`": (predict, None),
    "`train_on_batch`, `test_on_batch`, `predict_on_batch`": (one_batch, None),
    "`summary`": (summary, None),
    "`plot_model`, `model_to_dot`": (plot_model, None),
    "`ModelCheckpoint`": (model_checkpoint, None),
    "`BackupAndRestore`": (backup_and_restore, None),
    "`EarlyStopping(restore_best_weights=True)`": (early_stopping, None),
    "`CSVLogger`": (csv_logger, None),
    "`TensorBoard`": (tensorboard, None),
    "`ReduceLROnPlateau`": (reduce_lr_on_plateau, None),
    "`ReduceLROnPlateau` with a schedule": (
        reduce_a_schedule,
        "its learning rate is not settable.",
    ),
    "`LearningRateScheduler`": (learning_rate_scheduler, None),
    "`TerminateOnNaN`": (terminate_on_nan, None),
    "`SwapEMAWeights`, an optimizer with `use_ema`": (averaged_weights, None),
    "`steps_per_execution`": (steps_per_execution, None),
    "`jit_compile`": (jit_compile, None),
    "`compile('adam')`": (optimizer_by_name, None),
    "`class_weight`": (class_weight, "fit: received class_weight, accepted: two views"),
    "`sample_weight`": (
        sample_weight,
        "fit: received sample_weight, accepted: two views",
    ),
    "weights in the data": (
        weights_in_the_data,
        "received ((16, 6), (16, 6), (16,)), accepted: two views (view1, view2)",
    ),
    "labels in the data": (
        labels_in_the_data,
        "received (((16, 6), (16, 6)), (16,)), accepted: two views (view1, view2)",
    ),
    "one view": (one_view, "received (16, 6), accepted: two views (view1, view2)"),
    "`evaluate(sample_weight=...)`": (
        evaluate_with_weights,
        "received ((16, 6), (16, 6), (16,)), accepted: two views (view1, view2)",
    ),
    "`compile(loss=...)`": (
        loss_of_compile,
        "compile: received loss='mse', accepted: the optimizer",
    ),
    "`compile(metrics=...)`": (
        metrics_of_compile,
        "compile: received metrics=['accuracy'], accepted: the optimizer",
    ),
    "`gradient_accumulation_steps` of an optimizer": (
        accumulation_of_keras,
        "accepted: accumulation_steps of the model",
    ),
    "`compile('adam', predictor_learning_rate=...)`": (
        predictor_rate_of_adam,
        "accepted: tf_dpred.SGD, tf_dpred.LARS.",
    ),
    "no `TargetEMA`": (no_target_ema, "received no TargetEMA, accepted: fit("),
    "no `TargetEMA`, `train_on_batch`": (
        no_target_ema_for_a_batch,
        "received no TargetEMA, accepted: fit(",
    ),
    "`TargetEMA` of an earlier `fit`": (
        target_ema_of_an_earlier_fit,
        "received no TargetEMA, accepted: fit(",
    ),
    "two `TargetEMA`": (two_target_emas, "received two TargetEMA, accepted: one."),
}


def table():
    rows = ["| Keras | |", "|---|---|"]
    for name, (_, line) in TABLE.items():
        rows.append(f"| {name} | {'works' if line is None else f'refused: `{line}`'} |")
    return "\n".join(rows)


@pytest.mark.parametrize("name", TABLE)
def test_feature(name, tmp_path):
    function, line = TABLE[name]
    if line is None:
        function(tmp_path)
        return
    with pytest.raises((TypeError, ValueError), match=re.escape(line)):
        function(tmp_path)


def test_table__is_that_of_the_page():
    print("\n" + table())
    assert table() in PAGE.read_text()


# The page.


def blocks():
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def run_code(code):
    keras.utils.set_random_seed(0)  # of the first weights
    exec(compile(code, str(PAGE), "exec"), {})


def test_page__a_pause_changes_no_bit(tmp_path):
    """The second part runs in a process that has seen nothing of the first."""
    first, second, _ = blocks()
    statements = [
        n for n in ast.walk(ast.parse(first + second)) if isinstance(n, ast.stmt)
    ]
    assert len(statements) <= 15
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    twice = first.replace("steps_per_epoch=4", "steps_per_epoch=4, epochs=2")
    whole = processes.Started(run_code, twice, directory=tmp_path / "whole")
    begun = processes.run(run_code, first, directory=tmp_path / "parts")
    assert begun.returncode == 0, begun.stderr
    again = first[: first.index("backbone =")] + second + "model.save('after.keras')"
    subprocess.run(
        [sys.executable, "-c", again], cwd=tmp_path / "parts", check=True, timeout=240
    )
    ended = whole.wait()
    assert ended.returncode == 0, ended.stderr
    found = keras.saving.load_model(tmp_path / "parts" / "after.keras")
    expected = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    assert found.steps_done == 8
    assert_same_bits(found, expected)
    encoder = keras.saving.load_model(tmp_path / "parts" / "encoder.keras")
    assert encoder.output_shape == (None, 16)


def test_page__keras_tuner(tmp_path, monkeypatch):
    pytest.importorskip("keras_tuner")
    monkeypatch.chdir(tmp_path)
    first, _, search = blocks()
    namespace = {}
    exec(first, namespace)
    search = search.replace("    stream,", "    stream, verbose=0,").replace("=3", "=2")
    exec(search, namespace)
    assert namespace["best"].keys() == {"rho", "eps"}
    assert 0.1 <= namespace["best"]["rho"] <= 0.9


# What is saved is all that the rest of a training depends on.


def dropout_network(name, seed):
    vectors = keras.Input((toys.INPUTS,))
    x = keras.layers.Dense(toys.HIDDEN)(vectors)
    x = keras.layers.Dropout(0.5, seed=seed)(x)
    return keras.Model(vectors, [x, keras.layers.Dense(toys.DIM)(x)], name=name)


def float16(name):
    set_precision("mixed_float16")
    return toys.model(predictor_of(name))


def predictor_of(name):
    return PREDICTORS[name](**({"predictor_hidden": 4} if "mlp" in name else {}))


SAVED = {
    **{name: lambda name=name: toys.model(predictor_of(name)) for name in PREDICTORS},
    "freq 3": lambda: toys.model(Direct(freq=3, rho=None, centered=True)),
    "no target": lambda: toys.model(target=False),
    "one direction": lambda: toys.model(symmetric=False, loss="mse"),
    "skip": lambda: toys.model(skip_nonfinite=True, accumulation_steps=2),
    "own loss": lambda: toys.model(loss=twice_cosine),
    "float16": lambda: float16("direct"),
    "float16 mlp": lambda: float16("mlp"),
    "dropout": lambda: DirectPred(
        dropout_network("online", 1), dropout_network("target", 2), Direct()
    ),
}


@keras.saving.register_keras_serializable("tests")
def twice_cosine(p, z, f):
    return 2 * cosine(p, z, f)


@pytest.mark.parametrize("name", SAVED)
def test_save__continues_to_the_same_bits(name, tmp_path, policy):
    keras.utils.set_random_seed(3)
    made = SAVED[name]()
    rate = keras.optimizers.schedules.CosineDecay(0.3, 9)
    rule = LARS(rate, eta=0.1, exclude=["bn"], clipnorm=1.0)
    own = {"predictor_learning_rate": rate} if made.predictor.trainable_weights else {}
    made.compile(rule, run_eagerly=True, **own)
    tau = schedules.ema_momentum("cosine", 0.9, 9)
    callbacks = [TargetEMA(tau)] if made.has_separate_target else []
    half = {"x": toys.dataset(toys.views(2)), "callbacks": callbacks, "verbose": 0}
    made.fit(**half)
    made.save(tmp_path / "m.keras")
    made.fit(**half)
    # As in a process that has not been told of the precision.
    set_precision("float32")
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    assert loaded.steps_done == 2
    loaded.fit(**half)
    assert_same_bits(loaded, made)
    assert settings_of(loaded) == settings_of(made)


def test_save__settings_of_single_variables(tmp_path):
    """Which Keras leaves out of an optimizer's config."""
    made = toys.model()
    rule = SGD(0.1, weight_decay=0.1)
    rule.exclude_from_weight_decay(var_names=["bias"])
    rate = keras.optimizers.schedules.CosineDecay(0.3, 9)
    rule.set_group(made.online.get_layer("dense").weights, learning_rate=rate)
    rule.set_group(made.online.get_layer("bn").weights, weight_decay=0.5)
    made.compile(rule, run_eagerly=True)
    toys.fit(made, toys.views(2))
    made.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for model in (made, loaded):
        toys.fit(model, toys.views(2, seed=1))
    assert_same_bits(loaded, made)


def test_save__a_fit_that_is_cut_anywhere_ends_at_the_same_bits(tmp_path):
    """By the file of each epoch."""
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    whole, _ = fitted(saver, epochs=3)
    for epoch in (1, 2):
        loaded = keras.saving.load_model(tmp_path / f"{epoch}.keras")
        found, _ = fitted(made=loaded, initial_epoch=epoch, epochs=3)
        assert_same_bits(found, whole)


def test_save__holds_no_code(tmp_path):
    toys.compiled().save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as file:
        assert "__lambda__" not in file.read("config.json").decode()


@pytest.mark.parametrize("name", ["loss", "make_views"])
def test_save__a_function_that_nobody_could_load(name, tmp_path):
    made = toys.model(**{name: lambda *given: given[0]})
    with pytest.raises(ValueError, match=f"Cannot save {name}: received <function"):
        made.save(tmp_path / "m.keras")
    made = toys.model(**{name: save_and_load})
    with pytest.raises(ValueError, match=f"Cannot save {name}: .* is decorated with"):
        made.save(tmp_path / "m.keras")


def test_load__with_another_float_type(tmp_path, policy):
    policy("float64")
    toys.compiled().save(tmp_path / "m.keras")
    policy("float32")
    with pytest.raises(ValueError, match="received 'float32', accepted: 'float64'"):
        keras.saving.load_model(tmp_path / "m.keras")


def test_load__random_layers_that_are_not_those_of_the_file(tmp_path):
    toys.compiled().save_weights(tmp_path / "m.weights.h5")
    made = DirectPred(
        dropout_network("online", 1), dropout_network("target", 2), Direct()
    )
    with pytest.raises(ValueError):
        made.load_weights(tmp_path / "m.weights.h5")


@pytest.mark.parametrize(
    "made",
    [
        *map(predictor_of, PREDICTORS),
        Direct(rho=None, eps=0.3, freq=2, centered=True, eigenvalue_map="eq18"),
        Linear(predictor_bias=True, predictor_shrinkage=0.5),
        *LOSSES.values(),
        LARS(0.1, momentum=0.5, weight_decay=0.25, eta=0.5, exclude=["a"]),
        SGD(0.1, momentum=0.5, weight_decay=0.25),
        schedules.ema_momentum("cosine", 0.5, 7),
        schedules.ema_momentum("constant", 0.5, 7),
        TargetEMA(0.5),
        TargetEMA(schedules.ema_momentum("cosine", 0.5, 7)),
    ],
    ids=lambda made: getattr(made, "__name__", type(made).__name__),
)
def test_config__round_trip_of_every_object(made):
    config = keras.saving.serialize_keras_object(made)
    # A function's name stands where the settings of an object do.
    function = config["class_name"] == "function"
    name = config["config"] if function else config["registered_name"]
    assert name.startswith("tf_dpred>")
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert keras.saving.serialize_keras_object(again) == config


def test_target_ema__a_schedule_that_cannot_be_saved():
    with pytest.raises(ValueError, match="Cannot save schedule: received <function"):
        TargetEMA(lambda step: 0.5).get_config()


# Evaluation.


@pytest.mark.parametrize("settings", [{}, {"symmetric": False}, {"target": False}])
def test_evaluate__numpy(settings):
    made = toys.compiled(**settings)
    fitted_views = toys.views(1, seed=4)
    toys.fit(made, fitted_views)
    before = toys.state_of(made)
    view1, view2 = (v.reshape(-1, toys.INPUTS) for v in toys.views(1, batch=11, seed=5))
    # The last batch is smaller: its images count as much as others.
    found = made.evaluate(view1, view2, batch_size=8, verbose=0, return_dict=True)
    after = toys.state_of(made)
    assert [n for n in before if before[n].tobytes() != after[n].tobytes()] == []

    sums = np.zeros(3)
    for rows in (slice(0, 8), slice(8, 11)):
        a, b = view1[rows], view2[rows]
        (r1, f1), (r2, f2) = ([x.numpy() for x in made.online(v)] for v in (a, b))
        z1, z2 = (made.target(v)[1].numpy() for v in (a, b))
        w = made.predictor.matrix.numpy()
        unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
        loss = -2 * np.sum(unit(f1 @ w.T) * unit(z2), axis=1)
        if made.symmetric:
            loss += -2 * np.sum(unit(f2 @ w.T) * unit(z1), axis=1)
        c1, c2 = (unit(r - r.mean(axis=0)) for r in (r1, r2))
        nearest = np.argmax(c1 @ c2.T, axis=1) == np.arange(len(a))
        std = unit(f1).std(axis=0).mean() * np.sqrt(toys.DIM)
        sums += np.array([loss.sum(), std * len(a), nearest.sum()])
    names = ("loss", "feature_std", "view_retrieval")
    expected = dict(zip(names, sums / 11, strict=True))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def evaluated_on(replicas):
    with strategy(replicas).scope():
        made = toys.compiled()
    made.run_eagerly = False
    pairs = tuple(v.reshape(-1, toys.INPUTS) for v in toys.views(1, batch=11, seed=5))
    batches = tf.data.Dataset.from_tensor_slices(pairs).batch(5)
    return made.evaluate(batches, verbose=0, return_dict=True)


def test_evaluate__two_devices():
    """Also of the last batch, which has one image, so that a device has none."""
    one, two = (on_two_devices(evaluated_on, n) for n in (1, 2))
    assert one == pytest.approx(two, rel=1e-5)


# Two replicas.


def saved_on(replicas, path):
    with strategy(replicas).scope():
        made = toys.model()
        made.compile(LARS(0.1, eta=0.1))
    toys.fit(made, toys.views(2))
    made.save(path)
    return toys.state_of(made)


def loaded_on(replicas, path):
    with strategy(replicas).scope():
        made = keras.saving.load_model(path)
    state = toys.state_of(made)
    toys.fit(made, toys.views(2, seed=1))
    return state, toys.state_of(made)


@pytest.mark.parametrize("first", [1, 2])
def test_save__on_one_device_and_load_on_two(first, tmp_path):
    """And the reverse; then both train on alike."""
    path = str(tmp_path / "m.keras")
    saved = on_two_devices(saved_on, first, path)
    found, after = on_two_devices(loaded_on, 3 - first, path)
    assert found.keys() == saved.keys()
    assert [n for n in saved if saved[n].tobytes() != found[n].tobytes()] == []
    _, stayed = on_two_devices(loaded_on, first, path)
    for name, value in stayed.items():
        np.testing.assert_allclose(after[name], value, rtol=1e-3, atol=1e-5)
