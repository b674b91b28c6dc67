"""Paths as users write them: expanded, or refused before anything is made."""

import argparse
import dataclasses
from pathlib import Path

import pytest

from tf_dpred import main
from tf_dpred.config import SECTIONS, Config, FilesConfig, expand_paths, paths
from tf_dpred.encoders import settings
from tf_dpred.errors import Refused

PATHS = [
    (kind, field)
    for kind in (*SECTIONS.values(), FilesConfig)
    for field in dataclasses.fields(kind)
    if field.metadata["path"]
]
TEXTS = [
    (kind, field)
    for kind in (*SECTIONS.values(), FilesConfig)
    for field in dataclasses.fields(kind)
    if field.type.startswith("str")
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory, and an empty directory where the program is started."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA", "/somewhere/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def of(field):
    return field[1].name


def test_paths__are_known():
    names = {field.name for _, field in PATHS}
    assert names == {
        "workdir", "data_dir", "export_dir", "init",
        "output", "features", "query", "beside",
    }  # fmt: skip


@pytest.mark.parametrize("setting", PATHS, ids=of)
def test_section__expands_every_path(setting, home):
    kind, field = setting
    for given, expected in [
        ("~/x", f"{home}/x"),
        ("~", str(home)),
        ("$DATA/x", "/somewhere/data/x"),
        ("${DATA}/x", "/somewhere/data/x"),
        ("a/b c/d", "a/b c/d"),
        ("gs://bucket/$x", "gs://bucket/$x"),
    ]:
        assert getattr(kind(**{field.name: given}), field.name) == expected


WRONG = {
    "": "received '', accepted: ",
    "  ": "received '  ', accepted: ",
    "runs/a ": "received 'runs/a ' with blanks around it, accepted: ",
    "\truns/a": r"received '\truns/a' with blanks around it, accepted: ",
    '"runs/a"': "received '\"runs/a\"' with quotes around it, which only a shell",
    "$UNSET/a": "received '$UNSET/a', where UNSET is not set, accepted: ",
    "${EMPTY}/a": "received '${EMPTY}/a', where EMPTY is not set, accepted: ",
    "${UNSET:-x}": "received '${UNSET:-x}', where UNSET:-x is not set, accepted: ",
    "~nobody-here/a": "received '~nobody-here/a', where there is no such user, acc",
    "runs/a  # mine": "received 'runs/a  # mine' with a comment, which has a line of",
    "a\0b": r"received 'a\x00b' with a zero byte, accepted: ",
}


@pytest.mark.parametrize("value", WRONG, ids=repr)
@pytest.mark.parametrize("setting", PATHS, ids=of)
def test_section__refuses_what_is_no_path(setting, value, home):
    kind, field = setting
    with pytest.raises(Refused) as refusal:
        kind(**{field.name: value})
    accepted = field.metadata["path"]
    assert str(refusal.value).startswith(f"--{field.name}: {WRONG[value]}")
    assert f"accepted: {accepted}" in str(refusal.value)


@pytest.mark.parametrize("setting", TEXTS, ids=of)
def test_section__no_text_is_empty(setting):
    """As `--split=$UNSET` is."""
    kind, field = setting
    with pytest.raises(Refused, match=f"^--{field.name}: received '', accepted: "):
        kind(**{field.name: ""})


@pytest.mark.parametrize("name", ["a ", "$UNSET", "'a'", "~old"])
def test_expand__what_exists_is_meant_as_it_stands(name, home):
    Path(name).mkdir()
    assert paths.expand(name) == name


def test_expand__home_is_meant_beside_a_folder_of_that_name(home):
    Path("~").mkdir()
    assert paths.expand("~/a") == f"{home}/a"


def test_section__each_of_several(home):
    assert FilesConfig(beside="~/a,$DATA/b").beside == f"{home}/a,/somewhere/data/b"
    with pytest.raises(Refused, match="--beside: received 'a,,b', accepted: direc"):
        FilesConfig(beside="a,,b")


def test_from_dict__round_trip(home):
    config = Config.from_dict({"workdir": "~/w", "data_dir": "$DATA"})
    assert Config.from_dict(config.to_dict()) == config
    given = {"workdir": "~/w", "export_dir": None, "rho": 0.5}
    assert expand_paths(given) == {**given, "workdir": f"{home}/w"}


def test_of_encoder__looks_where_the_path_leads(home):
    for name in ("workdir", "export_dir"):
        with pytest.raises(Refused, match=f"received '{home}/w', accepted"):
            settings.of_encoder({name: "~/w"})
        with pytest.raises(Refused, match=f"--{name}: received '', accepted: a dir"):
            settings.of_encoder({name: ""})


def test_argument__is_a_path_of_the_tools(home):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--root", type=paths.argument)
    assert parser.parse_args(["--root=~/x"]).root == home / "x"
    for wrong in ("", "$UNSET"):
        with pytest.raises(argparse.ArgumentError, match="accepted: a path"):
            parser.parse_args([f"--root={wrong}"])


@pytest.mark.parametrize(
    "line", ["--workdir=~/w", "--workdir=~/w  ", "--workdir=~/w\r"]
)
def test_main__in_a_flagfile(line, home, monkeypatch):
    Path("my.cfg").write_text(f"--mode=preview\n{line}\n")
    given = []
    monkeypatch.setattr(
        main.Mode, "load", lambda mode: lambda config, files: given.append(config)
    )
    flags = main.flags.FLAGS
    flags.unparse_flags()
    flags(["main", *flags.read_flags_from_files(["--flagfile=my.cfg"])])
    assert main.main(["main"]) == 0
    assert given[0].training.workdir == f"{home}/w"
    assert list(Path().iterdir()) == [Path("my.cfg")]
