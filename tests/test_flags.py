"""Flags are the fields of the Config, no more and no less."""

import copy
import dataclasses

import pytest
from absl import flags

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import SECTIONS, Config, FilesConfig, field_types
from tf_dpred.errors import Refused
from tf_dpred.flags import config_from_flags, given_files, given_settings
from tf_dpred.main import MODES

FIELDS = [field for kind in SECTIONS.values() for field in dataclasses.fields(kind)]
FILES = dataclasses.fields(FilesConfig)
OPTIONAL = [
    name
    for kind in SECTIONS.values()
    for name, (_, optional) in field_types(kind).items()
    if optional
]


def parsed(*arguments):
    """The module's flags, parsed apart from those of this process."""
    values = copy.deepcopy(flags.FLAGS)
    values.unparse_flags()
    values(["tf_dpred", *arguments])
    return values


def test_flags__are_the_fields_of_the_config():
    (defined,) = (
        found
        for module, found in flags.FLAGS.flags_by_module_dict().items()
        if module == tf_dpred_flags.__name__
    )
    names = [flag.name for flag in defined]
    fields = [field.name for field in (*FIELDS, *FILES)]
    assert sorted(names) == sorted(["mode", "recipe", "method", *fields])


@pytest.mark.parametrize("field", [*FIELDS, *FILES], ids=lambda f: f.name)
def test_flag__default_and_help_of_the_field(field):
    flag = flags.FLAGS[field.name]
    assert flag.default == field.default
    assert type(flag.default) is type(field.default)
    assert flag.help.startswith(field.metadata["help"])
    for choice in field.metadata["choices"] or ():
        assert choice in flag.help


def test_config_from_flags__nothing_given_is_the_default():
    assert config_from_flags(parsed()) == Config()


@pytest.mark.parametrize(
    ("argument", "name", "value"),
    [
        ("--rho=0.5", "rho", 0.5),
        ("--rho=1e-3", "rho", 1e-3),
        ("--rho=0", "rho", 0.0),
        ("--rho=none", "rho", None),
        ("--rho=None", "rho", None),
        ("--freq=5", "freq", 5),
        ("--noema", "ema", False),
        ("--ema=false", "ema", False),
        ("--centered", "centered", True),
        ("--dataset=stl10", "dataset", "stl10"),
        ("--dataset=none", "dataset", "none"),
        ("--data_dir=none", "data_dir", None),
        ("--split=train+unlabeled", "split", "train+unlabeled"),
        ("--predictor_weight_decay=none", "predictor_weight_decay", None),
        ("--method=byol", "method", "byol"),
    ],
)
def test_config_from_flags__parses(argument, name, value):
    found = config_from_flags(parsed(argument)).to_dict()[name]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("name", OPTIONAL)
def test_none__means_no_value(name):
    assert config_from_flags(parsed(f"--{name}=none")).to_dict()[name] is None


@pytest.mark.parametrize(
    ("arguments", "predictor", "ema"),
    [
        ([], "direct", True),
        (["--method=simsiam"], "mlp", False),
        (["--method=simsiam", "--ema"], "mlp", True),
        # Given, though it is the default of another method.
        (["--method=simsiam", "--predictor=direct"], "direct", False),
        (["--predictor=direct", "--method=byol"], "direct", True),
    ],
)
def test_method__gives_the_defaults_of_what_is_not_given(arguments, predictor, ema):
    made = config_from_flags(parsed(*arguments))
    assert (made.predictor.predictor, made.objective.ema) == (predictor, ema)


def test_given_settings__only_what_was_given():
    values = parsed("--rho=0.5", "--noema", "--output=x", "--neighbours=3")
    assert given_settings(values) == {"rho": 0.5, "ema": False}
    assert given_files(values) == {"output": "x", "neighbours": 3}


def test_files__each_is_read_by_a_mode():
    read = {name for mode in MODES.values() for name in mode.files}
    assert read == {field.name for field in FILES}


def test_flagfile__later_lines_win(tmp_path):
    base, own = tmp_path / "base.cfg", tmp_path / "own.cfg"
    base.write_text("# base\n--rho=0.5\n--epochs=7\n")
    own.write_text(f"--flagfile={base}\n--rho=none\n")
    made = config_from_flags(parsed(f"--flagfile={own}", "--epochs=9"))
    assert (made.predictor.rho, made.training.epochs) == (None, 9)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--rho=much", "--rho=much.*received 'much', accepted: a number or none"),
        ("--freq=1.5", "--freq=1.5.*received '1.5', accepted: a whole number"),
        ("--freq=none", "received 'none', accepted: a whole number"),
        ("--base_lr=", "received '', accepted: a number"),
        ("--ema=perhaps", "--ema=perhaps"),
        ("--mode=fly", "--mode=fly.*<pretrain"),
        ("--roh=0.3", "Unknown command line flag 'roh'. Did you mean: rho"),
    ],
)
def test_flags__bad_value(argument, message):
    with pytest.raises(flags.Error, match=message):
        parsed(argument)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rho=1"], r"^--rho: received 1\.0, accepted: .*below 1"),
        (["--rho=nan"], r"^--rho: received nan, accepted: "),
        (["--predictor=none", "--loss=mse", "--predictor=x"], "^--predictor: received"),
        (["--method=moco"], "^--method: received 'moco', accepted: one of directpred"),
    ],
)
def test_config_from_flags__refusal_names_the_flag(arguments, message):
    with pytest.raises(Refused, match=message):
        config_from_flags(parsed(*arguments))
