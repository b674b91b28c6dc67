"""flags.json: what is recorded of a run, and what its continuation refuses."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.config import Config
from tf_dpred.data.datasets import open_source
from tf_dpred.data.source import from_arrays
from tf_dpred.errors import Refused
from tf_dpred.records import provenance
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import devices, processor


def source(num_examples, value=0):
    return from_arrays(np.full((num_examples, 2, 2), value, np.uint8))


def test_write__settings_and_what_computes(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    config = Config.from_dict({"rho": None, "method": "simsiam"})
    provenance.write(Workdir(tmp_path), config, source(40))
    record = json.loads((tmp_path / "flags.json").read_text())
    assert Config.from_dict(record["flags"]) == config
    assert set(record["versions"]) == {"tf_dpred", "tensorflow", "keras", "numpy"}
    assert record["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert any("CPU" in device for device in record["devices"])
    assert [p.name for p in tmp_path.iterdir()] == ["flags.json"]


def test_settled__a_run_keeps_what_it_began_with(tmp_path, monkeypatch):
    made, auto = Workdir(tmp_path), Config.from_dict({"precision": "auto"})
    monkeypatch.setattr(processor, "computes_bfloat16", lambda: True)
    here = provenance.settled(made, auto)
    assert here == Config.from_dict({"precision": "mixed_bfloat16"})
    provenance.write(made, here, source(40))
    monkeypatch.setattr(processor, "computes_bfloat16", lambda: False)
    assert provenance.settled(made, auto) == here
    provenance.check_settings(made, here)
    elsewhere = provenance.settled(Workdir(tmp_path / "new"), auto)
    assert elsewhere == Config()


def test_changes__of_what_computes(tmp_path, monkeypatch):
    made = Workdir(tmp_path)
    assert provenance.changes(made, Config()) == []
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    provenance.write(made, Config(), source(40))
    assert provenance.changes(made, Config()) == []
    found = tf.config.list_logical_devices()
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda: found[:1] * 2)
    versions = {**devices.versions(), "keras": "4"}
    monkeypatch.setattr(devices, "versions", lambda: versions)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setenv("XLA_FLAGS", "--xla")
    name = found[0].name
    assert provenance.changes(made, Config()) == [
        "TF_ENABLE_ONEDNN_OPTS: 1 -> 0",
        "XLA_FLAGS: not set -> --xla",
        f"devices: {name} -> {name}, {name}",
        f"keras: {keras.__version__} -> 4",
    ]


def test_changes__what_was_not_recorded_yet(tmp_path, monkeypatch):
    made = Workdir(tmp_path)
    provenance.write(made, Config(), source(40))
    record = json.loads((tmp_path / "flags.json").read_text())
    del record["environment"]["TF_ENABLE_ONEDNN_OPTS"], record["devices"]
    (tmp_path / "flags.json").write_text(json.dumps(record))
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "changed")
    assert provenance.changes(made, Config()) == []


def test_check_settings__a_new_directory(tmp_path):
    provenance.check_settings(Workdir(tmp_path), Config())


def test_check_settings__the_same_settings(tmp_path):
    config = Config.from_dict({"rho": None, "eps": 0.2})
    made = Workdir(tmp_path)
    provenance.write(made, config, source(40))
    provenance.check_settings(made, config)


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
def test_check_settings__says_what_differs(tmp_path, values, difference):
    made = Workdir(tmp_path)
    provenance.write(made, Config(), source(40))
    with pytest.raises(Refused, match="accepted: the same settings") as refusal:
        provenance.check_settings(made, Config.from_dict(values))
    message = str(refusal.value)
    assert f"({difference})" in message
    assert message.startswith(f"--workdir: received {str(tmp_path)!r}")
    assert "\n" not in message


def test_changes__of_the_step(tmp_path):
    """An early version computed F of both views with one-sided losses as well."""
    made = Workdir(tmp_path)
    one_sided = Config.from_dict({"symmetric_loss": False})
    provenance.write(made, one_sided, source(40))
    change = "--nosymmetric_loss: F of both views -> F of view 1 alone"
    assert provenance.changes(made, one_sided) == [change]
    assert provenance.changes(made, Config()) == []
    provenance.write(made, one_sided, source(40), "run-12345678")
    assert provenance.changes(made, one_sided) == []


DAMAGED = [
    ("null", "it holds null"),
    ("[]", "it holds a list"),
    ("{}", "it lacks flags"),
    ('{"flags": null}', "flags is null"),
    ('{"flags": {}, "num_examples": "40"}', "num_examples is text"),
    ('{"flags": {}, "images": {}}', "images is an object"),
    ('{"flags": {}, "versions": []}', "versions is a list"),
    ('{"flags": {}, "versions": {"keras": 3}}', "versions.keras is a whole number"),
    ('{"flags": {}, "environment": {"XLA_FLAGS": []}}', "environment.XLA_FLAGS is a l"),
    ('{"flags": {}, "devices": null}', "devices is null"),
    ('{"flags": {}, "devices": [1]}', "devices[0] is a whole number"),
]


@pytest.mark.parametrize(("text", "reason"), DAMAGED, ids=[text for text, _ in DAMAGED])
def test_check_settings__a_damaged_record(tmp_path, text, reason):
    (tmp_path / "flags.json").write_text(text)
    start = f"--workdir: received {str(tmp_path)!r} with a damaged flags.json ({reason}"
    for check in (provenance.check_settings, provenance.changes):
        with pytest.raises(Refused) as refusal:
            check(Workdir(tmp_path), Config())
        assert str(refusal.value).startswith(start)


def test_check_settings__lists_all_that_differs(tmp_path):
    made = Workdir(tmp_path)
    provenance.write(made, Config(), source(40))
    with pytest.raises(Refused, match=r"rho: 0\.3 -> 0\.5; eps: 0\.1 -> 0\.2"):
        provenance.check_settings(made, Config.from_dict({"rho": 0.5, "eps": 0.2}))


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
def test_check_settings__what_may_change(tmp_path, values):
    made = Workdir(tmp_path)
    provenance.write(made, Config(), source(40))
    provenance.check_settings(made, Config.from_dict(values))


def test_may_change__holds_settings_only():
    assert set(Config().to_dict()) >= provenance.MAY_CHANGE


def test_check_settings__a_record_of_before_a_setting_existed(tmp_path):
    made = Workdir(tmp_path)
    provenance.write(made, Config(), source(40))
    record = json.loads((tmp_path / "flags.json").read_text())
    del record["flags"]["rho"]
    (tmp_path / "flags.json").write_text(json.dumps(record))
    provenance.check_settings(made, Config())  # it had its default
    with pytest.raises(Refused, match=r"rho: 0\.3 -> 0\.5"):
        provenance.check_settings(made, Config.from_dict({"rho": 0.5}))


def test_check_images__another_number_of_images(tmp_path):
    made = Workdir(tmp_path)
    provenance.check_images(made, source(41))
    provenance.write(made, Config(), source(40))
    provenance.check_images(made, source(40))
    with pytest.raises(Refused, match=r"a run on 40 other images \(41 now; "):
        provenance.check_images(made, source(41))


def test_check_images__as_many_others(tmp_path):
    made = Workdir(tmp_path)
    provenance.write(made, Config(), source(40))
    with pytest.raises(Refused, match=r"a run on 40 other images \(40 now; "):
        provenance.check_images(made, source(40, value=1))


def test_check_images__names_of_a_folder(tmp_path):
    """Moved elsewhere it is the same; with a file renamed it is not."""
    image = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    made = Workdir(tmp_path / "run")
    made.create()
    for folder, name in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.png").write_bytes(image)
    first, moved, renamed = (
        open_source("folder", None, str(tmp_path / folder)) for folder in "abc"
    )
    provenance.write(made, Config(), first)
    provenance.check_images(made, moved)
    with pytest.raises(Refused, match="other images"):
        provenance.check_images(made, renamed)
