"""The recipes of configs/: each is valid, and --recipe finds them anywhere."""

import configparser
import copy
from pathlib import Path

import pytest
from absl import flags

from tf_dpred import build, main, recipes
from tf_dpred.errors import Refused
from tf_dpred.flags import config_from_flags
from tools import sweep

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


# What the papers and the code of their authors state. SimSiam's rates are converted:
# its loss is a quarter of ours (configs/cifar10_simsiam.cfg), and half of it with one
# direction (configs/imagenet_60.cfg).
SMALL_SETS = {  # arXiv 2102.06810, appendix; its authors' code
    "backbone": "resnet18",
    "width": 1.0,
    "projector_layers": 2,
    "projector_hidden": 512,
    "projector_dim": 128,
    "projector_bn_affine": False,
    "projector_output_bias": True,
    "zero_init_last_gamma": False,
    "optimizer": "sgd",
    "base_lr": 0.06,
    "lr_schedule": "constant",
    "warmup_epochs": 0.0,
    "momentum": 0.9,
    "weight_decay": 4e-4,
    "predictor_weight_decay": None,
    "predictor_lr_multiplier": 1.0,
    "batch_size": 128,
    "epochs": 100,
    "loss": "cosine",
    "symmetric_loss": True,
    "stop_gradient": True,
    "ema": True,
    "tau_base": 0.996,
    "tau_schedule": "constant",
    "rho": 0.3,
    "eps": 0.1,
    "freq": 1,
    "exponent": 0.5,
    "eigenvalue_map": "reference",
    "centered": False,
}
CIFAR10 = SMALL_SETS | {
    "dataset": "cifar10",
    "views": "cifar",
    "image_size": 32,
    "stem": "small",
    "predictor": "direct",
}
IMAGENET = {  # Table 9, and BYOL's code and presets, whose 300 epochs these are
    "dataset": "imagenet2012",
    "views": "byol",
    "image_size": 224,
    "backbone": "resnet50",
    "width": 1.0,
    "stem": "imagenet",
    "zero_init_last_gamma": True,
    "projector_layers": 2,
    "projector_hidden": 4096,
    "projector_dim": 256,
    "projector_bn_affine": True,
    "projector_output_bias": False,
    "predictor": "direct",
    "rho": 0.3,
    "eps": 0.1,
    "freq": 1,
    "loss": "cosine",
    "symmetric_loss": True,
    "ema": True,
    "tau_base": 0.99,
    "tau_schedule": "cosine",
    "target_init": "independent",
    "optimizer": "lars",
    "base_lr": 0.3,
    "lr_schedule": "cosine",
    "warmup_epochs": 10.0,
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "batch_size": 4096,
    "epochs": 300,
}
PUBLISHED = {
    "cifar10": CIFAR10,
    "cifar10_linear": CIFAR10 | {"predictor": "linear", "predictor_bias": False},
    "cifar10_byol": CIFAR10
    | {
        "predictor": "mlp",
        "predictor_hidden": 512,
        "predictor_bias": True,
        "predictor_bn": "plain",
    },
    "cifar10_simsiam": CIFAR10  # arXiv 2011.10566, appendix D: lr .03, decay 5e-4
    | {
        "predictor": "mlp",
        "predictor_hidden": 512,
        "predictor_bias": True,
        "predictor_bn": "affine",
        "ema": False,
        "projector_hidden": 2048,
        "projector_dim": 2048,
        "projector_bn_affine": True,
        "projector_output_bn": True,
        "projector_output_bias": False,
        "base_lr": 0.03 / 4,
        "lr_schedule": "cosine",
        "predictor_lr_schedule": "constant",
        "weight_decay": 4 * 5e-4,
    },
    "stl10": SMALL_SETS
    | {
        "dataset": "stl10",
        "split": "train+unlabelled",
        "views": "stl10",
        "image_size": 96,
        "stem": "imagenet",
        "predictor": "direct",
        "target_init": "independent",
    },
    "imagenet": IMAGENET,
    "imagenet_40": IMAGENET | {"epochs": 40, "base_lr": 0.45, "tau_base": 0.97},
    "imagenet_100": IMAGENET | {"epochs": 100, "base_lr": 0.45, "tau_base": 0.99},
    "imagenet_1000": IMAGENET
    | {"epochs": 1000, "base_lr": 0.2, "weight_decay": 1.5e-6, "tau_base": 0.996},
    "imagenet_60": IMAGENET  # Table 9; SimSiam's lr .05 and decay 1e-4
    | {
        "epochs": 60,
        "batch_size": 256,
        "symmetric_loss": False,
        "optimizer": "sgd",
        "base_lr": 0.05 / 2,
        "weight_decay": 2 * 1e-4,
        "warmup_epochs": 0.0,
        "tau_base": 0.99,
    },
    "imagenet_simsiam": IMAGENET  # arXiv 2011.10566, section 3: lr .05, decay 1e-4
    | {
        "views": "simsiam",
        "epochs": 100,
        "batch_size": 512,
        "predictor": "mlp",
        "predictor_hidden": 512,
        "predictor_bias": False,
        "predictor_bn": "affine",
        "ema": False,
        "projector_layers": 3,
        "projector_hidden": 2048,
        "projector_dim": 2048,
        "projector_output_bn": True,
        "optimizer": "sgd",
        "base_lr": 0.05 / 4,
        "predictor_lr_schedule": "constant",
        "weight_decay": 4 * 1e-4,
        "warmup_epochs": 0.0,
    },
}
OWN = {"cifar10_vit", "continue", "folder", "laptop", "quickstart"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe__values_of_the_papers(name):
    found = config_of(*recipes.flags(name)).to_dict()
    assert {key: found[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_recipe__every_recipe_of_a_paper_has_its_numbers():
    assert {*PUBLISHED} | OWN == {*NAMES}


@pytest.mark.parametrize(
    ("name", "images", "peak"),
    # Of BYOL, section 3.3: 0.2 x batch / 256; of the small sets' code, .03.
    [("imagenet_1000", 1_281_167, 3.2), ("cifar10", 50_000, 0.03)],
)
def test_recipe__peak_learning_rate(name, images, peak):
    config = config_of(*recipes.flags(name))
    steps = images // config.training.batch_size
    rate = build.learning_rate(config, steps)
    warm = config.optimizer.warmup_epochs * steps
    assert (rate if isinstance(rate, float) else float(rate(warm))) == pytest.approx(
        peak, rel=1e-6
    )


SWEEPS = sorted(CHECKOUT.glob("configs/sweeps/*.txt"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep__every_run_is_valid(path, monkeypatch):
    """And no two runs of a list are the same."""
    monkeypatch.chdir(CHECKOUT)
    runs = sweep.read_list(path.read_text())
    settings = [config_of(*run.flags, f"--seed={run.seed}").to_dict() for run in runs]
    assert len(runs) >= 3 and len({str(found) for found in settings}) == len(runs)


def test_sweep__each_table_of_the_paper_has_a_list():
    tables = {path.stem.removeprefix("table")[0] for path in SWEEPS}
    assert tables >= {*"1356789"}


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
