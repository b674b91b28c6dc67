"""Keras as it was set up outside of this package: what does not fit is refused."""

import json
import os
import subprocess
import sys

import keras
import pytest
import toys

from tf_dpred.errors import Refused
from tf_dpred.system import keras_settings

BACKEND = [("KERAS_BACKEND", name) for name in ("jax", "torch", "openvino", "theano")]
FILE = [
    ("backend", "jax", "tensorflow"),
    ("image_data_format", "channels_first", "channels_last"),
    ("floatx", "float16", "float32 or float64"),
    ("floatx", "bfloat16", "float32 or float64"),
]


def started(arguments, **environment):
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
    return subprocess.run(
        [sys.executable, *arguments], env=variables, capture_output=True, text=True
    )


@pytest.fixture
def not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.delenv(keras_settings.BACKEND, raising=False)
    return monkeypatch


def test_program__another_backend(tmp_path):
    program = ["-m", "tf_dpred.main", "--recipe=quickstart", f"--workdir={tmp_path}/w"]
    done = started(program, KERAS_BACKEND="jax")
    line = "tf_dpred: KERAS_BACKEND: received 'jax', accepted: tensorflow.\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert not (tmp_path / "w").exists()


def test_program__keras_json(tmp_path):
    path = tmp_path / "keras.json"
    path.write_text(json.dumps({"image_data_format": "channels_first"}))
    done = started(["-m", "tf_dpred.main"], KERAS_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"tf_dpred: {path}: image_data_format: received 'channels_first', accepted: "
        "channels_last.\n"
    )


@pytest.mark.parametrize("name", ["DirectPred", "Pretraining", "predictors"])
def test_public_names__another_backend(name):
    done = started(["-c", f"from tf_dpred import {name}"], KERAS_BACKEND="torch")
    last = done.stderr.splitlines()[-1]
    line = "KERAS_BACKEND: received 'torch', accepted: tensorflow."
    assert last == f"tf_dpred.errors.Refused: {line}"


@pytest.mark.parametrize(("variable", "value"), BACKEND)
def test_check__environment(variable, value, not_imported):
    not_imported.setenv(variable, value)
    with pytest.raises(Refused, match=f"^KERAS_BACKEND: received '{value}'"):
        keras_settings.check()


@pytest.mark.parametrize(("name", "value", "accepted"), FILE)
def test_check__keras_json(name, value, accepted, not_imported, tmp_path):
    (tmp_path / "keras.json").write_text(json.dumps({name: value}))
    not_imported.setenv("KERAS_HOME", str(tmp_path))
    message = rf"keras\.json: {name}: received '{value}', accepted: {accepted}\.$"
    with pytest.raises(Refused, match=message):
        keras_settings.check()
    # The variable wins, as in Keras.
    if name == "backend":
        not_imported.setenv("KERAS_BACKEND", "tensorflow")
        keras_settings.check()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"floatx": "float64"}'])
def test_check__keras_json_that_fits(text, not_imported, tmp_path):
    (tmp_path / "keras.json").write_text(text)
    not_imported.setenv("KERAS_HOME", str(tmp_path))
    keras_settings.check()


@pytest.mark.parametrize(
    ("name", "value"), [("image_data_format", "channels_first"), ("floatx", "float16")]
)
def test_model__after_a_change_of_keras(name, value):
    before = getattr(keras.config, name)()
    getattr(keras.config, f"set_{name}")(value)
    try:
        message = rf"^keras\.config\.{name}\(\): received '{value}'"
        with pytest.raises(Refused, match=message):
            toys.model()
    finally:
        getattr(keras.config, f"set_{name}")(before)
