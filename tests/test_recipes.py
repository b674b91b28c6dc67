"""The recipes of configs/: each is valid, and --recipe finds them anywhere."""

import configparser
import copy
from pathlib import Path

import pytest
from absl import flags

from tf_dpred import main, recipes
from tf_dpred.errors import Refused
from tf_dpred.flags import config_from_flags

CHECKOUT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in CHECKOUT.glob("configs/*.cfg"))


def config_of(*arguments):
    """The settings of a command line, parsed apart from this process's own flags."""
    values = copy.deepcopy(flags.FLAGS)
    values.unparse_flags()
    assert values(["tf_dpred", *arguments]) == ["tf_dpred"]
    return config_from_flags(values)


@pytest.mark.parametrize("name", NAMES)
def test_recipe__is_valid_and_the_same_as_its_flagfile(name, monkeypatch, tmp_path):
    monkeypatch.chdir(CHECKOUT)
    by_flagfile = config_of(f"--flagfile=configs/{name}.cfg")
    assert by_flagfile.training.workdir == f"runs/{name}"
    monkeypatch.chdir(tmp_path)
    _, *expanded = recipes.expand(["tf_dpred", f"--recipe={name}"])
    assert config_of(*expanded) == by_flagfile


@pytest.mark.parametrize("name", NAMES)
def test_recipe__tells_its_command(name):
    text = (CHECKOUT / "configs" / f"{name}.cfg").read_text()
    assert f"#   python -m tf_dpred.main --recipe={name}" in text


@pytest.mark.parametrize("name", NAMES)
def test_recipe__can_be_tried_for_one_epoch(name):
    assert config_of(*recipes.flags(name), "--epochs=1").warmup_epochs < 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--recipe=stl10", "--epochs=3"],
        ["--epochs=3", "--recipe=stl10"],
        ["--epochs=3", "-recipe", "stl10"],
    ],
)
def test_expand__other_flags_win_wherever_they_stand(arguments):
    program, *expanded = recipes.expand(["tf_dpred", *arguments])
    assert program == "tf_dpred"
    assert expanded == [*recipes.flags("stl10"), "--epochs=3"]


def test_expand__not_behind_the_end_of_flags():
    given = ["tf_dpred", "--", "--recipe=stl10"]
    assert recipes.expand(given) == given


@pytest.mark.parametrize(
    ("name", "accepted"),
    [("foldr", "folder (--recipe=help"), ("x", "cifar10, cifar10_byol, "), ("", "ci")],
)
def test_flags__unknown_recipe(name, accepted):
    with pytest.raises(Refused) as refusal:
        recipes.expand(["tf_dpred", f"--recipe={name}"])
    expected = f"--recipe: received {name!r}, accepted: {accepted}"
    assert str(refusal.value).startswith(expected)


def test_parse__a_recipe_named_in_a_flagfile(tmp_path, monkeypatch):
    monkeypatch.setattr(flags, "FLAGS", copy.deepcopy(flags.FLAGS))
    path = tmp_path / "own.cfg"
    path.write_text("--epochs=3\n--recipe=stl10\n")
    main.parse(["tf_dpred", f"--flagfile={path}"])
    data = config_from_flags(flags.FLAGS)
    assert (data.data.dataset, data.training.epochs) == ("stl10", 3)


def test_parse__help_lists_all_with_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr(main, "_show", print)
    with pytest.raises(SystemExit) as end:
        main.parse(["tf_dpred", "--recipe=help"])
    assert end.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(line.endswith(".") for line in lines)
    assert lines[NAMES.index("folder")].split(maxsplit=1)[1] == (
        "An encoder from your own unlabelled images: jpeg, png, bmp, gif or webp, "
        "any sizes, in any sub-folders."
    )


def test_parse__flagfile_outside_of_a_checkout(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main.parse(["tf_dpred", "--flagfile=configs/folder.cfg"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("'configs/folder.cfg'; outside of a checkout: --recipe=folder")


def test_wheel__holds_every_package_and_the_recipes():
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = [
        ".".join(path.parent.relative_to(CHECKOUT).parts)
        for path in CHECKOUT.glob("tf_dpred/**/__init__.py")
    ]
    assert listed == sorted([*found, "tf_dpred.configs"])
    assert setup["options"]["package_dir"].strip() == "tf_dpred.configs = configs"
    assert setup["options.package_data"]["tf_dpred.configs"] == "*.cfg"


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (["--recipe=help"], True),
        (["--epochs=1", "--recipe", "help"], True),
        (["-recipe=help"], True),
        (["--recipe=helper"], False),
        (["--recipe", "folder", "--workdir=help"], False),
    ],
)
def test_asks_for_help(arguments, asks):
    assert recipes.asks_for_help(arguments) == asks
