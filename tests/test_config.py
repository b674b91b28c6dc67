"""Settings: round trips, presets, and one-line refusals."""

import dataclasses
import subprocess
import sys

import pytest

from tf_dpred import config
from tf_dpred.config import METHODS, PREDICTOR_FACTS, SECTIONS, Config
from tf_dpred.errors import Refused

FIELDS = {
    field.name: (section, field)
    for section, kind in SECTIONS.items()
    for field in dataclasses.fields(kind)
}
NAN, INF = float("nan"), float("inf")


def test_fields__names_are_unique_over_all_sections():
    kinds = (*SECTIONS.values(), config.FilesConfig)
    names = [field.name for kind in kinds for field in dataclasses.fields(kind)]
    assert len({*names, "method", "mode", "recipe"}) == len(names) + 3


@pytest.mark.parametrize("name", FIELDS)
def test_fields__documented_and_of_a_known_type(name):
    section, field = FIELDS[name]
    assert field.metadata["help"]
    kind, optional = config.field_types(SECTIONS[section])[name]
    assert kind in (str, int, float, bool)
    assert optional or field.default is not None
    if field.metadata["choices"]:
        assert field.default in (*field.metadata["choices"], *[None] * optional)


def test_from_dict__nothing_is_the_default():
    assert Config.from_dict({}) == Config()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"method": "simsiam"},
        {"method": "byol", "predictor": "direct", "rho": None},
        {"width": 2, "eps": 0, "warmup_epochs": 3},
        {"predictor": "direct", "eigenvalue_map": "inside_root", "eps": -0.05},
        {"ema": False, "stop_gradient": False, "loss": "mse"},
        {"solver": "newton_schulz", "eigenvalue_map": "eq18", "eps": 0},
        {"solver": "newton_schulz", "eigenvalue_map": "inside_root", "eps": 1e-4},
        {"backbone": "MobileNetV3Small", "split": "train+unlabeled"},
    ],
)
def test_to_dict__round_trip(values):
    first = Config.from_dict(values)
    flat = first.to_dict()
    assert set(flat) == {"method", *FIELDS}
    assert Config.from_dict(flat) == first
    for name, value in values.items():
        assert flat[name] == value


@pytest.mark.parametrize(
    ("method", "predictor", "ema"),
    [
        ("directpred", "direct", True),
        ("byol", "mlp", True),
        ("simsiam", "mlp", False),
        ("linear", "linear", True),
    ],
)
def test_method__preset(method, predictor, ema):
    made = Config.from_dict({"method": method})
    assert (made.method, made.predictor.predictor, made.objective.ema) == (
        method,
        predictor,
        ema,
    )
    assert set(METHODS) == {"directpred", "byol", "simsiam", "linear"}


@pytest.mark.parametrize("method", METHODS)
def test_method__every_part_can_be_overridden(method):
    made = Config.from_dict({"method": method, "predictor": "none", "ema": False})
    assert made.predictor.predictor == "none"
    assert not made.objective.ema
    assert made.method == method


def test_config__whole_numbers_become_floats():
    made = Config.from_dict({"rho": 0, "width": 2})
    assert type(made.predictor.rho) is float
    assert type(made.network.width) is float


@pytest.mark.parametrize(
    ("asked", "epochs", "used"),
    [(0, 1, 0), (2, 3, 2), (0.5, 1, 0.5), (1, 1, 0.1), (10, 1, 0.1), (10, 5, 0.5)],
)
def test_warmup_epochs__shortened_where_the_run_is_no_longer(asked, epochs, used):
    made = Config.from_dict({"warmup_epochs": asked, "epochs": epochs})
    assert made.warmup_epochs == used
    # What was asked for is what is recorded, and holds again for more epochs.
    assert made.to_dict()["warmup_epochs"] == asked


def test_config__frozen():
    made = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.predictor.rho = 0.5


REFUSED = [
    # values, flag that is named, part of what is accepted
    ({"rho": 1.0}, "rho", "at least 0.0 and below 1.0 (or none)"),
    ({"rho": -0.1}, "rho", "at least 0.0"),
    ({"rho": NAN}, "rho", "at least 0.0"),
    ({"rho": "0.3"}, "rho", "a value of type float"),
    ({"rho": True}, "rho", "a value of type float"),
    ({"eps": -0.1}, "eps", "at least 0 (below 0 only with --eigenvalue_map="),
    ({"eps": -0.1, "eigenvalue_map": "eq18"}, "eps", "at least 0"),
    ({"eps": -1.5, "eigenvalue_map": "inside_root"}, "eps", "at least -1"),
    (
        {"eps": -0.1, "eigenvalue_map": "inside_root", "predictor": "direct_set"},
        "eps",
        "at least 0",
    ),
    ({"eps": NAN}, "eps", "at most 100"),
    ({"eps": 1e3}, "eps", "at most 100"),
    ({"eps": 0.0, "predictor": "optimal"}, "eps", "above 0 for --predictor=optimal"),
    ({"keep_best": "loss"}, "keep_best", "one of knn, view_top1"),
    (
        {"keep_best": "lidar", "quality_every": 0},
        "keep_best",
        "with --quality_every ab",
    ),
    ({"keep_best": "knn", "knn_every": 0}, "keep_best", "with --knn_every above 0"),
    ({"checkpoint": "newest"}, "checkpoint", "last, best or a step"),
    ({"checkpoint": "-3"}, "checkpoint", "last, best or a step"),
    ({"checkpoint": "best", "export_dir": "x"}, "checkpoint", "last with --export_dir"),
    ({"solver": "qr"}, "solver", "one of eigh, newton_schulz"),
    *(
        ({"solver": "newton_schulz", **wrong}, "solver", f"eigh with {flag}; newton_")
        for wrong, flag in (
            ({"predictor": "direct_set"}, "--predictor=direct_set"),
            ({"method": "byol"}, "--predictor=mlp"),
            ({"exponent": 1.0}, "--exponent=1.0"),
            ({"centered": True}, "--centered=True"),
            ({"eps": 0.0}, "--eps=0.0"),
            ({"eps": -0.05, "eigenvalue_map": "inside_root"}, "--eps=-0.05"),
        )
    ),
    ({"predictor": "foo"}, "predictor", "one of direct, direct_copy"),
    ({"predictor": None}, "predictor", "a value of type str"),
    ({"method": "moco"}, "method", "one of directpred, byol, simsiam, linear"),
    ({"freq": 0}, "freq", "at least 1"),
    ({"freq": 1.5}, "freq", "a value of type int"),
    ({"freq": True}, "freq", "a value of type int"),
    ({"exponent": 0.0}, "exponent", "above 0"),
    ({"exponent": INF}, "exponent", "a finite number"),
    ({"eigenvalue_map": "root"}, "eigenvalue_map", "one of reference, eq18"),
    ({"image_size": 3}, "image_size", "at least 8"),
    ({"image_size": 10_000}, "image_size", "at most 2048"),
    ({"views": "none"}, "views", "one of byol"),
    ({"view_strength": 0.5}, "view_strength", "1 unless --views=simclr"),
    ({"view_strength": 3.0, "views": "simclr"}, "view_strength", "at most 2"),
    ({"batch_size": 1}, "batch_size", "at least 2"),
    (
        {"batch_size": 64, "accumulation_steps": 3},
        "accumulation_steps",
        "a divisor of --batch_size=64",
    ),
    (
        {"batch_size": 64, "accumulation_steps": 64},
        "accumulation_steps",
        "at least 2 images a micro-batch",
    ),
    (
        {"batch_size": 64, "accumulation_steps": 2, "keep_last_batch": True},
        "keep_last_batch",
        "false with --accumulation_steps above 1",
    ),
    ({"predictor_bn": "batch"}, "predictor_bn", "one of affine, plain, none"),
    ({"optimal_form": "up"}, "optimal_form", "one of symmetric, right, left"),
    ({"predictor_shrinkage": 1.0}, "predictor_shrinkage", "below 1.0"),
    ({"predictor_shrinkage": NAN}, "predictor_shrinkage", "below 1.0"),
    ({"epochs": 0}, "epochs", "at least 1"),
    ({"warmup_epochs": -1.0}, "warmup_epochs", "at least 0"),
    ({"base_lr": 0.0}, "base_lr", "above 0"),
    ({"base_lr": INF}, "base_lr", "a finite number"),
    ({"weight_decay": -1e-4}, "weight_decay", "at least 0"),
    ({"weight_decay": NAN}, "weight_decay", "at least 0"),
    ({"momentum": 1.0}, "momentum", "below 1"),
    ({"optimizer": "adam"}, "optimizer", "one of sgd, lars, adamw"),
    (
        {"optimizer": "adamw", "predictor_lr_multiplier": 2.0},
        "optimizer",
        "sgd or lars where the predictor",
    ),
    (
        {"predictor_weight_decay": 0.1},
        "predictor_weight_decay",
        "None with --predictor=direct, which no gradient trains at --freq=1",
    ),
    (
        {"predictor": "none", "freq": 5, "predictor_lr_multiplier": 2.0},
        "predictor_lr_multiplier",
        "1.0 with --predictor=none, which no gradient trains",
    ),
    ({"tau_base": 1.1}, "tau_base", "at most 1"),
    ({"tau_base": NAN}, "tau_base", "at least 0"),
    ({"stop_gradient": False}, "stop_gradient", "--noema --nostop_gradient"),
    ({"loss": "l2"}, "loss", "one of cosine, mse, iso"),
    ({"loss": "iso", "predictor": "mlp"}, "loss", "cosine or mse"),
    ({"loss": "iso", "freq": 2}, "loss", "cosine or mse"),
    ({"width": 0.0}, "width", "above 0"),
    ({"width": 0.001}, "width", "at least 1/64"),
    ({"width": INF}, "width", "a finite number"),
    ({"width": 2.0, "backbone": "VGG16"}, "width", "1 with a keras.applications"),
    ({"stem": "cifar"}, "stem", "one of imagenet, small"),
    ({"projector_layers": 1}, "projector_layers", "at least 2"),
    ({"projector_dim": 1}, "projector_dim", "at least 2"),
    ({"precision": "float16"}, "precision", "one of auto, float32"),
    ({"seed": -1}, "seed", "at least 0"),
    ({"seed": 2**31}, "seed", "below 2147483648"),
    (
        {"strategy": "one", "logical_cpus": 2},
        "strategy",
        "mirrored or auto with --logical_cpus",
    ),
    ({"precision": "float64", "jit_compile": True}, "jit_compile", "false with"),
    ({"deterministic": True, "jit_compile": True}, "jit_compile", "false with"),
    ({"run_eagerly": True, "jit_compile": True}, "jit_compile", "false with"),
    ({"profile": "5"}, "profile", "two steps start:stop"),
    ({"profile": "20:10"}, "profile", "two steps start:stop"),
    ({"profile": "0:10"}, "profile", "two steps start:stop"),
    ({"augment_on": "gpu"}, "augment_on", "one of host, device"),
    ({"knn_k": 0}, "knn_k", "at least 1"),
    ({"knn_temperature": 0.0}, "knn_temperature", "above 0"),
    ({"ema": 1}, "ema", "a value of type bool"),
    ({"dataset": 3}, "dataset", "a value of type str"),
]


@pytest.mark.parametrize(
    ("values", "flag", "accepted"), REFUSED, ids=lambda v: str(v)[:60]
)
def test_refusal__one_line_with_flag_received_and_accepted(values, flag, accepted):
    with pytest.raises(Refused, match="accepted") as refusal:
        Config.from_dict(values)
    message = str(refusal.value)
    assert message.startswith(f"--{flag}: received {values[flag]!r}, accepted: ")
    assert accepted in message.split("accepted: ")[1]
    assert "\n" not in message


def test_from_dict__unknown_names():
    with pytest.raises(ValueError, match=r"received \['lr', 'rhoo'\], accepted: "):
        Config.from_dict({"rhoo": 0.3, "lr": 1.0})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rho", 0.0),
        ("rho", None),
        ("eps", 0.0),
        ("tau_base", 1.0),
        ("tau_base", 0.0),
        ("image_size", 8),
        ("batch_size", 2),
        ("momentum", 0.0),
        ("knn_every", 0),
        ("seed", 2**31 - 1),
        ("width", 1 / 64),
    ],
)
def test_bounds__what_is_on_them_is_accepted(name, value):
    section, _ = FIELDS[name]
    made = Config.from_dict({name: value})
    assert getattr(getattr(made, section), name) == value


def test_inside_root__takes_the_epsilons_of_table_7():
    for eps in (-1.0, -0.1, -0.05, 0.0, 0.1):
        made = Config.from_dict({"eigenvalue_map": "inside_root", "eps": eps})
        assert made.predictor.eps == eps


@pytest.mark.parametrize("predictor", PREDICTOR_FACTS)
def test_iso__accepted_for_symmetric_predictors_only(predictor):
    values = {"loss": "iso", "predictor": predictor}
    if PREDICTOR_FACTS[predictor].symmetric:
        assert Config.from_dict(values).objective.loss == "iso"
    else:
        with pytest.raises(Refused, match="--loss: received 'iso'"):
            Config.from_dict(values)


def test_config__imports_no_tensorflow():
    """A wrong value is refused in less than a second."""
    code = "import sys, tf_dpred.config; print('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
