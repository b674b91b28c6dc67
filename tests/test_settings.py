"""The settings of a trained encoder, from what its run or export recorded."""

import json

import pytest

from tf_dpred.config import Config
from tf_dpred.encoders import settings
from tf_dpred.errors import Refused


def written(directory, **given):
    """A work directory as far as the settings are read from it."""
    flags = Config.from_dict({"workdir": str(directory), **given}).to_dict()
    (directory / "flags.json").write_text(json.dumps({"flags": flags}))
    return {"workdir": str(directory)}


def test_of_encoder__a_given_setting_is_judged_beside_the_recorded_ones(tmp_path):
    run = written(tmp_path, views="simclr", view_strength=0.5)
    config = settings.of_encoder({**run, "view_strength": 0.5})
    assert config.data.view_strength == 0.5
    with pytest.raises(Refused, match=r"0\.7, accepted: 0\.5, as it was trained"):
        settings.of_encoder({**run, "view_strength": 0.7})


def test_of_encoder__another_data_set_has_other_splits(tmp_path):
    run = written(tmp_path, dataset="stl10", split="train+unlabelled", data_dir="/data")
    assert settings.of_encoder(run).data.split == "train+unlabelled"
    data = settings.of_encoder({**run, "dataset": "cifar10"}).data
    assert (data.dataset, data.split, data.data_dir) == ("cifar10", None, None)


def test_of_encoder__a_setting_that_the_run_did_not_know(tmp_path):
    run = written(tmp_path)
    path = tmp_path / "flags.json"
    record = json.loads(path.read_text())
    del record["flags"]["augment_on"], record["flags"]["width"]
    path.write_text(json.dumps(record))
    config = settings.of_encoder({**run, "width": 1.0})
    assert config == Config.from_dict(run)


def test_of_encoder__where_it_was_trained_is_not_inherited(tmp_path):
    run = written(tmp_path, strategy="multi_worker", seed=3, worker_timeout=7.0)
    training = settings.of_encoder(run).training
    assert (training.strategy, training.seed) == ("auto", 3)
    assert settings.of_encoder({**run, "strategy": "one"}).training.strategy == "one"
    run = written(tmp_path, strategy="tpu", tpu="grpc://10.0.0.2:8470")
    training = settings.of_encoder(run).training
    assert (training.strategy, training.tpu) == ("auto", None)
    run = written(tmp_path, strategy="mirrored", logical_cpus=4)
    training = settings.of_encoder({**run, "strategy": "one"}).training
    assert (training.strategy, training.logical_cpus) == ("one", 1)


DAMAGED = [
    ("{", "a damaged flags.json"),
    ("[1]", "a damaged flags.json (it holds a list, not an object)"),
    ("null", "a damaged flags.json (it holds null, not an object)"),
    ("{}", "a damaged flags.json (it lacks flags)"),
    ('{"flags": 3}', "a damaged flags.json (flags is a whole number, not an object)"),
    ('{"flags": {}, "run": 3}', "a damaged flags.json (run is a whole number, not te"),
    ('{"flags": {"method": ["byol"]}}', "--method: received ['byol'], accepted: one"),
    ('{"flags": {"views": {}}}', "--views: received {}, accepted: a value of type str"),
    ('{"flags": {"rho": "0.3"}}', "--rho: received '0.3', accepted: a value of type f"),
    ('{"flags": {"rhoo": 1}}', "with unknown settings (rhoo), accepted: one of this"),
    ('{"flags": {"rho": 1.0}}', "--rho: received 1.0, accepted: at least 0.0 and"),
]


@pytest.mark.parametrize(("text", "message"), DAMAGED, ids=lambda v: str(v)[:30])
def test_of_encoder__refuses_a_damaged_record(text, message, tmp_path):
    (tmp_path / "flags.json").write_text(text)
    with pytest.raises(Refused) as refusal:
        settings.of_encoder({"workdir": str(tmp_path)})
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_of_encoder__refuses_a_damaged_card(tmp_path):
    card = tmp_path / settings.CARD
    given = {"export_dir": str(tmp_path)}
    for text, message in [
        ("", "with a damaged model_card.json"),
        ("{}", "of format version None, accepted: 1"),
        ('{"format_version": 99}', "of format version 99, accepted: 1"),
        ("null", "with a damaged model_card.json .it holds null, not an obj"),
        ('{"format_version": []}', r"of format version \[\], accepted: 1"),
        ('{"format_version": 1}', "with a damaged model_card.json .it lacks encoder"),
        (
            '{"format_version": 1, "encoder": "online", "step": "7", "flags": {}}',
            "with a damaged model_card.json .step is text, not a whole number",
        ),
        (
            '{"format_version": 1, "encoder": "online", "step": 7, "flags": []}',
            "with a damaged model_card.json .flags is a list, not an object",
        ),
    ]:
        card.write_text(text)
        with pytest.raises(Refused, match=f"^--export_dir: received .*{message}"):
            settings.of_encoder(given)


def test_of_directory__a_run_or_what_is_given(tmp_path):
    new = {"workdir": str(tmp_path), "dataset": "stl10", "views": "stl10"}
    assert settings.of_directory(new) == Config.from_dict(new)
    assert settings.of_directory({}) == Config()
    run = written(tmp_path, dataset="stl10", views="stl10", split="unlabelled")
    data = settings.of_directory(run).data
    assert (data.dataset, data.views, data.split) == ("stl10", "stl10", "unlabelled")
    data = settings.of_directory({**run, "views": "byol"}).data
    assert (data.dataset, data.views) == ("stl10", "byol")
    data = settings.of_directory({**run, "dataset": "digits"}).data
    assert (data.dataset, data.views, data.split) == ("digits", "stl10", None)
    (tmp_path / "flags.json").write_text("[]")
    with pytest.raises(Refused, match=r"with a damaged flags\.json"):
        settings.of_directory(run)


def test_find_export__a_copy_under_another_name_does_not_count(tmp_path):
    for name in ("9", "10", "11 copy", "12.old", "99-best"):
        (tmp_path / "export" / name).mkdir(parents=True)
        (tmp_path / "export" / name / settings.CARD).write_text("{}")
    assert settings.find_export(tmp_path) == tmp_path / "export" / "10"


def test_of_encoder__nothing_there(tmp_path):
    for name in ("workdir", "export_dir"):
        with pytest.raises(Refused, match=f"^--{name}: received .*, accepted: "):
            settings.of_encoder({name: str(tmp_path / "none")})
