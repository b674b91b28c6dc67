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
    run = written(tmp_path, strategy="multi_worker", seed=3)
    training = settings.of_encoder(run).training
    assert (training.strategy, training.seed) == ("auto", 3)
    assert settings.of_encoder({**run, "strategy": "one"}).training.strategy == "one"


DAMAGED = [
    ("{", "a damaged flags.json"),
    ("[1]", "a damaged flags.json (it holds a list, not an object)"),
    ('{"flags": 3}', "without recorded flags, accepted: one that is whole"),
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
        ('{"format_version": 1}', "model_card.json without encoder, flags, step"),
    ]:
        card.write_text(text)
        with pytest.raises(Refused, match=f"^--export_dir: received .*{message}"):
            settings.of_encoder(given)


def test_of_encoder__nothing_there(tmp_path):
    for name in ("workdir", "export_dir"):
        with pytest.raises(Refused, match=f"^--{name}: received .*, accepted: "):
            settings.of_encoder({name: str(tmp_path / "none")})
