"""The work directory: what it refuses, what it keeps."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.config import Config
from tf_dpred.data.datasets import from_arrays, open_source
from tf_dpred.records import workdir
from tf_dpred.records.workdir import Workdir


def source(num_examples, value=0):
    return from_arrays(np.full((num_examples, 2, 2), value, np.uint8))


def test_init__makes_the_directory_and_leaves_nothing_in_it(tmp_path):
    made = Workdir(str(tmp_path / "a" / "b"))
    assert made.path.is_dir()
    assert list(made.path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_init__a_file_in_the_way(tmp_path, below):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / below)
    with pytest.raises(ValueError, match="accepted: a directory") as refusal:
        Workdir(path)
    message = str(refusal.value)
    assert message.startswith(f"--workdir: received {path!r}, ")
    assert "written to (" in message
    assert "\n" not in message


def test_init__a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="received 'gs://b/run', accepted: a direct"):
        Workdir("gs://b/run")
    assert list(tmp_path.iterdir()) == []


def test_paths__lie_below_it(tmp_path):
    made = Workdir(str(tmp_path))
    for path in (made.epochs, made.checkpoints, made.tensorboard):
        assert path.parent == tmp_path


def test_write_flags__settings_and_what_computes(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    config = Config.from_dict({"rho": None, "method": "simsiam"})
    Workdir(str(tmp_path)).write_flags(config, source(40))
    record = json.loads((tmp_path / "flags.json").read_text())
    assert Config.from_dict(record["flags"]) == config
    assert set(record["versions"]) == {"tf_dpred", "tensorflow", "keras", "numpy"}
    assert record["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert any("CPU" in device for device in record["devices"])
    assert [p.name for p in tmp_path.iterdir()] == ["flags.json"]


def test_changes__of_what_computes(tmp_path, monkeypatch):
    made = Workdir(str(tmp_path))
    assert made.changes() == []
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    made.write_flags(Config(), source(40))
    assert made.changes() == []
    devices = tf.config.list_logical_devices()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: devices[:1] * 2)
    monkeypatch.setattr(
        workdir, "versions", lambda: {**devices.versions(), "keras": "4"}
    )
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("XLA_FLAGS", "--xla")
    name = devices[0].name
    assert made.changes() == [
        "TF_ENABLE_ONEDNN_OPTS: 1 -> 0",
        "XLA_FLAGS: not set -> --xla",
        f"devices: {name} -> {name}, {name}",
        f"keras: {keras.__version__} -> 4",
    ]


def test_changes__what_was_not_recorded_yet(tmp_path, monkeypatch):
    made = Workdir(str(tmp_path))
    made.write_flags(Config(), source(40))
    record = json.loads((tmp_path / "flags.json").read_text())
    del record["environment"]["TF_ENABLE_ONEDNN_OPTS"], record["devices"]
    (tmp_path / "flags.json").write_text(json.dumps(record))
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "changed")
    assert made.changes() == []


def test_check_unchanged__a_new_directory(tmp_path):
    Workdir(str(tmp_path)).check_unchanged(Config())


def test_check_unchanged__the_same_settings(tmp_path):
    config = Config.from_dict({"rho": None, "eps": 0.2})
    made = Workdir(str(tmp_path))
    made.write_flags(config, source(40))
    made.check_unchanged(config)


@pytest.mark.parametrize(
    ("values", "difference"),
    [
        ({"rho": 0.5}, "rho: 0.3 -> 0.5"),
        ({"rho": None}, "rho: 0.3 -> None"),
        ({"batch_size": 64}, "batch_size: 128 -> 64"),
        ({"predictor": "mlp"}, "predictor: 'direct' -> 'mlp'"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"dataset": "stl10"}, "dataset: 'digits' -> 'stl10'"),
    ],
)
def test_check_unchanged__says_what_differs(tmp_path, values, difference):
    made = Workdir(str(tmp_path))
    made.write_flags(Config(), source(40))
    with pytest.raises(ValueError, match="accepted: the same settings") as refusal:
        made.check_unchanged(Config.from_dict(values))
    message = str(refusal.value)
    assert f"({difference})" in message
    assert message.startswith(f"--workdir: received {str(tmp_path)!r}")
    assert "\n" not in message


def test_check_unchanged__lists_all_that_differs(tmp_path):
    made = Workdir(str(tmp_path))
    made.write_flags(Config(), source(40))
    with pytest.raises(ValueError, match=r"rho: 0\.3 -> 0\.5; eps: 0\.1 -> 0\.2"):
        made.check_unchanged(Config.from_dict({"rho": 0.5, "eps": 0.2}))


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 60},
        {"workdir": "elsewhere"},
        {"data_dir": "/data"},
        {"knn_every": 1, "knn_k": 5},
        {"log_every": 1, "keep_checkpoints": 9, "steps_per_execution": 4},
    ],
)
def test_check_unchanged__what_may_change(tmp_path, values):
    made = Workdir(str(tmp_path))
    made.write_flags(Config(), source(40))
    made.check_unchanged(Config.from_dict(values))


def test_may_change__holds_settings_only():
    assert set(Config().to_dict()) >= workdir.MAY_CHANGE


def test_check_unchanged__a_record_of_before_a_setting_existed(tmp_path):
    made = Workdir(str(tmp_path))
    made.write_flags(Config(), source(40))
    record = json.loads((tmp_path / "flags.json").read_text())
    del record["flags"]["rho"]
    (tmp_path / "flags.json").write_text(json.dumps(record))
    made.check_unchanged(Config())  # it had its default
    with pytest.raises(ValueError, match=r"rho: 0\.3 -> 0\.5"):
        made.check_unchanged(Config.from_dict({"rho": 0.5}))


def test_result__round_trip(tmp_path):
    made = Workdir(str(tmp_path))
    assert made.read_result() == {}
    result = {"epochs": 2, "step": 10, "loss": -1.5, "knn_by_epoch": {"0": 0.5}}
    made.write_result(result)
    assert made.read_result() == result
    made.write_result({"epochs": 3})
    assert made.read_result() == {"epochs": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_check_same_data__another_number_of_images(tmp_path):
    made = Workdir(str(tmp_path))
    made.check_same_data(source(41))
    made.write_flags(Config(), source(40))
    made.check_same_data(source(40))
    with pytest.raises(ValueError, match=r"a run on 40 other images \(41 now; "):
        made.check_same_data(source(41))


def test_check_same_data__as_many_others(tmp_path):
    made = Workdir(str(tmp_path))
    made.write_flags(Config(), source(40))
    with pytest.raises(ValueError, match=r"a run on 40 other images \(40 now; "):
        made.check_same_data(source(40, value=1))


def test_check_same_data__names_of_a_folder(tmp_path):
    """Moved elsewhere it is the same; with a file renamed it is not."""
    image = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    made = Workdir(str(tmp_path / "run"))
    for folder, name in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.png").write_bytes(image)
    first, moved, renamed = (
        open_source("folder", None, str(tmp_path / folder)) for folder in "abc"
    )
    made.write_flags(Config(), first)
    made.check_same_data(moved)
    with pytest.raises(ValueError, match="other images"):
        made.check_same_data(renamed)


def test_check_unchanged__damaged_flags(tmp_path):
    (tmp_path / "flags.json").write_text('{"flags": ')
    with pytest.raises(ValueError, match=r"damaged flags\.json .* accepted: "):
        Workdir(str(tmp_path)).check_unchanged(Config())
