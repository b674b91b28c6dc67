"""What a run is: frozen dataclasses, validated where they are made.

Every field is also a command-line flag of the same name (`flags.py`), so names are
unique over all sections and an error can name the flag. Nothing here imports
TensorFlow: a wrong value stops a program before anything slow happens.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from typing import Any, NoReturn

from tf_dpred.errors import Refused

# The parts a method name stands for; each stays a flag of its own.
METHODS: dict[str, dict[str, Any]] = {
    "directpred": {"predictor": "direct", "ema": True},
    "byol": {"predictor": "mlp", "ema": True},
    "simsiam": {"predictor": "mlp", "ema": False},
    "linear": {"predictor": "linear", "ema": True},
}


@dataclasses.dataclass(frozen=True)
class PredictorFacts:
    """What other parts have to know about a predictor.

    Attributes:
      trained: every step trains it by gradients.
      symmetric: W is symmetric and has no negative eigenvalue.
      set_from_f: W is computed from F alone, and so has F's eigenvectors.
      matrix: it is p = W f.
    """

    trained: bool = False
    symmetric: bool = False
    set_from_f: bool = False
    matrix: bool = True


# Which class of `predictors.py` each one is stands there.
PREDICTORS = {
    "direct": PredictorFacts(symmetric=True, set_from_f=True),
    "direct_copy": PredictorFacts(symmetric=True, set_from_f=True),
    "direct_set": PredictorFacts(symmetric=True, set_from_f=True),
    "optimal": PredictorFacts(),
    "linear": PredictorFacts(trained=True),
    "symmetric": PredictorFacts(trained=True),
    "mlp": PredictorFacts(trained=True, matrix=False),
    "none": PredictorFacts(symmetric=True),
}
SOLVERS = ("eigh", "newton_schulz")
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with the help text and the range of its flag."""
    metadata = {
        "help": help,
        "choices": choices,
        "bounds": {
            "at least": at_least,
            "above": above,
            "at most": at_most,
            "below": below,
        },
    }
    return dataclasses.field(default=default, metadata=metadata)


def refuse(name: str, received: Any, accepted: str, *, detail: str = "") -> NoReturn:
    """Raises the one-line error for bad input: flag, received, accepted.

    Args:
      name: of the flag, or of an environment variable (in capital letters).
      received: the value.
      accepted: in words, without a full stop.
      detail: what else is known of the value; follows it without a space.

    Raises:
      Refused: always.
    """
    option = name if name.isupper() else f"--{name}"
    raise Refused(f"{option}: received {received!r}{detail}, accepted: {accepted}.")


@dataclasses.dataclass(frozen=True)
class Section:
    """Checks type, choices and range of every field when it is made."""

    def __post_init__(self) -> None:
        kinds = field_types(type(self))
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name), *kinds[field.name])
        self.check()

    def check(self) -> None:
        """Rules between fields; sections override it."""

    def _check(
        self, field: dataclasses.Field, value: Any, kind: type, optional: bool
    ) -> None:
        if value is None:
            if not optional:
                refuse(field.name, value, f"a value of type {kind.__name__}")
            return
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
            object.__setattr__(self, field.name, value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            refuse(field.name, value, f"a value of type {kind.__name__}")
        choices = field.metadata["choices"]
        if choices and value not in choices:
            refuse(field.name, value, "one of " + ", ".join(choices))
        if isinstance(value, float) and math.isinf(value):
            refuse(field.name, value, "a finite number")
        bounds = {k: v for k, v in field.metadata["bounds"].items() if v is not None}
        inside = {
            "at least": lambda bound: value >= bound,
            "above": lambda bound: value > bound,
            "at most": lambda bound: value <= bound,
            "below": lambda bound: value < bound,
        }
        # NaN compares false with every bound, so it is refused here too.
        if not all(inside[word](bound) for word, bound in bounds.items()):
            words = " and ".join(f"{word} {bound}" for word, bound in bounds.items())
            refuse(field.name, value, words + (" (or none)" if optional else ""))


def field_types(section: type[Section]) -> dict[str, tuple[type, bool]]:
    """Name of each field -> its python type, and whether it may be None."""
    kinds = {}
    for name, hint in typing.get_type_hints(section).items():
        kind, *none = typing.get_args(hint) or (hint,)
        kinds[name] = kind, bool(none)
    return kinds


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    dataset: str = setting(
        "digits", "digits, folder, or the name of a TFDS image data set"
    )
    data_dir: str | None = setting(
        None, "the image folder, or the directory that holds TFDS data sets"
    )
    split: str | None = setting(
        None, "training split in TFDS syntax; none: the data set's own"
    )
    image_size: int = setting(32, "side of a view in pixels", at_least=8, at_most=2048)
    views: str = setting(
        "digits",
        "augmentation preset",
        choices=("byol", "simclr", "stl10", "cifar", "digits"),
    )
    view_strength: float = setting(
        1.0, "colour jitter strength of --views=simclr", at_least=0.0, at_most=2.0
    )
    augment_on: str = setting(
        "host",
        "where views are flipped, jittered, grayed, blurred and solarised: by the "
        "host's processor or in the training step",
        choices=("host", "device"),
    )
    shuffle_buffer: int = setting(
        10_000, "encoded images in the shuffle buffer of a TFDS source", at_least=1
    )
    max_bad_images: int = setting(
        100,
        "files of a folder that may be unusable (left out, named) before a run stops",
        at_least=0,
    )
    train_size: int | None = setting(
        None, "train on this many images of the split only", at_least=1
    )

    @property
    def on_host(self) -> bool:
        """Whether the input makes whole views, and the step nothing of them."""
        return self.augment_on == "host"


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Section):
    backbone: str = setting(
        "resnet18",
        "resnet18, resnet34, resnet50, resnet101, or a keras.applications name",
    )
    width: float = setting(
        1.0, "multiplies the ResNet's channels (1: first stage 64)", above=0.0
    )
    stem: str = setting(
        "small",
        "first layer: 7x7 stride 2 and max-pool, or 3x3 stride 1 without",
        choices=("imagenet", "small"),
    )
    zero_init_last_gamma: bool = setting(
        False, "start each residual branch at zero (its last BN gamma)"
    )
    projector_layers: int = setting(
        2, "Dense layers of the projector", at_least=2, at_most=3
    )
    projector_hidden: int = setting(512, "hidden units of the projector", at_least=1)
    projector_dim: int = setting(
        128, "d, the length of a projection", at_least=2, at_most=8192
    )
    projector_bn_affine: bool = setting(
        False, "hidden BN of the projector has gamma and beta"
    )
    projector_output_bias: bool = setting(True, "the projector's last layer has a bias")
    projector_output_bn: bool = setting(
        False, "BN without gamma and beta after the projector's last layer"
    )

    def check(self) -> None:
        if self.backbone not in RESNETS and self.width != 1.0:
            refuse("width", self.width, "1 with a keras.applications backbone")
        if self.backbone in RESNETS and round(64 * self.width) < 1:
            refuse("width", self.width, "at least 1/64")


@dataclasses.dataclass(frozen=True)
class PredictorConfig(Section):
    predictor: str = setting("direct", "the predictor", choices=tuple(PREDICTORS))
    rho: float | None = setting(
        0.3,
        "weight of the OLD correlation estimate (Eq. 19); none: running average",
        at_least=0.0,
        below=1.0,
    )
    eps: float = setting(
        0.1, "boost of small eigenvalues (direct*), ridge (optimal)", at_most=100.0
    )
    freq: int = setting(
        1, "set W from F every this many steps, gradients in between", at_least=1
    )
    exponent: float = setting(0.5, "p = s^exponent (direct, direct_set)", above=0.0)
    eigenvalue_map: str = setting(
        "reference",
        "s -> p of the direct predictor; only inside_root takes eps below 0",
        choices=("reference", "eq18", "inside_root"),
    )
    centered: bool = setting(False, "subtract the mean's outer product from F")
    solver: str = setting(
        "eigh",
        "how the direct predictor's W is computed: newton_schulz by matrix products "
        "alone, for devices that are slow at eigh; needs --exponent=0.5",
        choices=SOLVERS,
    )
    predictor_hidden: int = setting(
        4096, "hidden units of the mlp predictor", at_least=1
    )
    predictor_bias: bool = setting(
        False, "bias of the linear predictor, or of the mlp's last layer"
    )

    @property
    def facts(self) -> PredictorFacts:
        """Of the chosen predictor."""
        return PREDICTORS[self.predictor]

    def check(self) -> None:
        may_be_negative = (
            self.predictor == "direct" and self.eigenvalue_map == "inside_root"
        )
        # Written so that NaN is refused.
        if not self.eps >= (-1.0 if may_be_negative else 0.0):
            accepted = (
                "at least -1"
                if may_be_negative
                else "at least 0 (below 0 only with --eigenvalue_map=inside_root)"
            )
            refuse("eps", self.eps, accepted)
        if self.predictor == "optimal" and self.eps == 0:
            refuse(
                "eps", self.eps, "above 0 for --predictor=optimal, whose ridge it is"
            )
        if self.solver == "newton_schulz":
            self._check_newton_schulz()

    def _check_newton_schulz(self) -> None:
        """W must be a square root of F plus a multiple of the identity, or one of both.

        The floor of 1e-4 under the eigenvalues of W is neither; only eps lifts all of
        them over it. A centred F can be further below 0 than by rounding.
        """
        least = 0.0 if self.eigenvalue_map == "eq18" else 1e-4
        accepted = {
            "predictor": self.predictor == "direct",
            "exponent": self.exponent == 0.5,
            "centered": not self.centered,
            "eps": self.eps >= least,
        }
        wrong = [name for name, fits in accepted.items() if not fits]
        if wrong:
            given = ", ".join(f"--{name}={getattr(self, name)}" for name in wrong)
            refuse(
                "solver",
                self.solver,
                f"eigh with {given}; newton_schulz with --predictor=direct, "
                f"--exponent=0.5, --nocentered and --eps of at least {least:g} "
                f"(--eigenvalue_map={self.eigenvalue_map})",
            )


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(Section):
    loss: str = setting(
        "cosine", "distance of prediction and target", choices=("cosine", "mse", "iso")
    )
    symmetric_loss: bool = setting(True, "sum both directions, or only view1 -> view2")
    stop_gradient: bool = setting(
        True, "no gradient through the target branch (only --noema can turn it off)"
    )
    ema: bool = setting(
        True, "the target is a moving average of the online network, not itself"
    )
    tau_base: float = setting(
        0.996, "EMA momentum of the target", at_least=0.0, at_most=1.0
    )
    tau_schedule: str = setting(
        "constant",
        "tau over the run: tau_base, or a cosine to 1",
        choices=("constant", "cosine"),
    )
    target_init: str = setting(
        "copy", "first weights of the target", choices=("copy", "independent")
    )

    def check(self) -> None:
        if self.ema and not self.stop_gradient:
            refuse(
                "stop_gradient",
                self.stop_gradient,
                "true with --ema (a separate target is never trained); "
                "use --noema --nostop_gradient",
            )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
    optimizer: str = setting(
        "sgd",
        "sgd and lars decay inside the gradient; adamw decoupled",
        choices=("sgd", "lars", "adamw"),
    )
    base_lr: float = setting(
        0.06, "learning rate per 256 images of the batch", above=0.0
    )
    lr_schedule: str = setting(
        "constant", "after the warm-up", choices=("constant", "cosine")
    )
    warmup_epochs: float = setting(
        0.0,
        "epochs of linear warm-up from 0; a tenth of a run that is no longer than this",
        at_least=0.0,
    )
    momentum: float = setting(0.9, "momentum of sgd and lars", at_least=0.0, below=1.0)
    weight_decay: float = setting(4e-4, "weight decay", at_least=0.0)
    predictor_weight_decay: float | None = setting(
        None, "weight decay of the predictor; none: --weight_decay", at_least=0.0
    )
    predictor_lr_multiplier: float = setting(
        1.0, "learning rate of the predictor over that of the network", above=0.0
    )
    predictor_lr_schedule: str = setting(
        "same",
        "the network's schedule, or its peak throughout (SimSiam)",
        choices=("same", "constant"),
    )

    def check(self) -> None:
        own_group = (
            self.predictor_weight_decay is not None
            or self.predictor_lr_multiplier != 1.0
            or self.predictor_lr_schedule != "same"
        )
        if self.optimizer == "adamw" and own_group:
            refuse(
                "optimizer",
                self.optimizer,
                "sgd or lars where the predictor has its own decay or learning rate",
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    epochs: int = setting(30, "passes over the training images", at_least=1)
    batch_size: int = setting(
        128,
        "images (pairs of views) of one optimizer step, over all devices",
        at_least=2,
    )
    accumulation_steps: int = setting(
        1, "micro-batches that one optimizer step is split into", at_least=1
    )
    precision: str = setting(
        "float32",
        "Keras dtype policy",
        choices=("float32", "mixed_bfloat16", "mixed_float16", "float64"),
    )
    jit_compile: bool = setting(False, "compile the step by XLA (slow on CPU)")
    run_eagerly: bool = setting(
        False, "run the step operation by operation, to look into it (slow)"
    )
    steps_per_execution: int = setting(
        1, "optimizer steps in one call of the compiled function", at_least=1
    )
    strategy: str = setting(
        "auto",
        "tf.distribute strategy; auto: a TPU if there is one, several workers if "
        "TF_CONFIG names them, all GPUs if there are several, else one device",
        choices=("auto", "one", "mirrored", "multi_worker", "tpu"),
    )
    worker_timeout: float = setting(
        300.0, "seconds that the workers of TF_CONFIG wait for each other", above=0.0
    )
    tpu: str | None = setting(None, "name or address of the TPU; none: the local one")
    logical_cpus: int = setting(
        1, "split the CPU into devices to try --strategy=mirrored", at_least=1
    )
    seed: int = setting(0, "of weights, order and views", at_least=0, below=2**31)
    deterministic: bool = setting(False, "bit-equal runs, at some cost in speed")
    workdir: str = setting(
        "runs/default", "directory of the run: settings, checkpoints, curves, results"
    )
    checkpoint_every: int = setting(
        1000,
        "steps between checkpoints, besides those after each epoch; 0: those only",
        at_least=0,
    )
    keep_checkpoints: int = setting(3, "checkpoints kept", at_least=1)
    background_checkpoints: bool = setting(
        False, "write checkpoints from a thread while training goes on"
    )
    on_nonfinite: str = setting(
        "stop",
        "when loss, gradient norm, F or W is not finite: stop, or skip the update",
        choices=("stop", "skip"),
    )
    log_every: int = setting(50, "steps between TensorBoard points", at_least=1)
    profile: str | None = setting(
        None, "start:stop, optimizer steps that are traced for TensorBoard's profiler"
    )

    @property
    def profiled_steps(self) -> tuple[int, int] | None:
        """First and last step of `profile`."""
        if self.profile is None:
            return None
        start, _, stop = self.profile.partition(":")
        return int(start), int(stop)

    def check(self) -> None:
        self._check_profile()
        if self.batch_size % self.accumulation_steps:
            refuse(
                "accumulation_steps",
                self.accumulation_steps,
                f"a divisor of --batch_size={self.batch_size}",
            )
        if self.batch_size // self.accumulation_steps < 2:
            refuse(
                "accumulation_steps",
                self.accumulation_steps,
                "at least 2 images a micro-batch, which BatchNorm needs",
            )
        if self.strategy == "one" and self.logical_cpus > 1:
            refuse("strategy", "one", "mirrored or auto with --logical_cpus above 1")
        if self.strategy == "multi_worker" and self.logical_cpus > 1:
            refuse("logical_cpus", self.logical_cpus, "1 with --strategy=multi_worker")
        if self.precision == "float64" and self.jit_compile:
            refuse("jit_compile", True, "false with --precision=float64")
        if self.deterministic and self.jit_compile:
            # Keras would leave XLA out without a word.
            refuse("jit_compile", True, "false with --deterministic")
        if self.run_eagerly and self.jit_compile:
            refuse("jit_compile", True, "false with --run_eagerly")

    def _check_profile(self) -> None:
        if self.profile is None:
            return
        found = re.fullmatch(r"(\d+):(\d+)", self.profile)
        if not found or not 0 < int(found[1]) < int(found[2]):
            refuse("profile", self.profile, "two steps start:stop, 0 < start < stop")


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Section):
    knn_every: int = setting(5, "epochs between kNN evaluations; 0: never", at_least=0)
    knn_k: int = setting(200, "neighbours", at_least=1)
    knn_temperature: float = setting(
        0.1, "T of the vote weight exp(cosine/T)", above=0.0
    )
    knn_train_size: int = setting(
        20_000, "labelled training images searched", at_least=1
    )
    knn_test_size: int = setting(5_000, "test images classified", at_least=1)
    theory_every: int = setting(
        0,
        "steps between measurements of spectra and alignment; 0: at each epoch's end",
        at_least=0,
    )
    eval_train_split: str | None = setting(
        None, "labelled split that is searched; none: the data set's train split"
    )
    eval_test_split: str | None = setting(
        None, "split that is classified; none: the data set's test or validation"
    )
    encoder: str = setting(
        "online",
        "the network to evaluate or export; untrained: as the run started",
        choices=("online", "target", "untrained"),
    )
    export_dir: str | None = setting(
        None, "evaluate this export; none: the checkpoint of --workdir"
    )
    protocol: str = setting(
        "features",
        "linear_eval: logistic regression on features, or random crops and a "
        "learning rate chosen on held-out images",
        choices=("features", "imagenet"),
    )
    label_fraction: float = setting(
        0.1, "class-balanced part of the labels for finetune", above=0.0, at_most=1.0
    )
    eval_epochs: int | None = setting(
        None, "epochs of linear_eval or finetune; none: the protocol's", at_least=1
    )
    eval_batch_size: int | None = setting(
        None, "batch of linear_eval or finetune; none: the protocol's", at_least=1
    )
    eval_lr: float | None = setting(
        None,
        "learning rate per 256 images of linear_eval --protocol=imagenet or "
        "finetune; none: chosen on held-out training images",
        above=0.0,
    )


@dataclasses.dataclass(frozen=True)
class FilesConfig(Section):
    """What single modes read and write; no part of a run's settings."""

    output: str | None = setting(
        None, "the file that the mode writes; of shrink_images, the folder"
    )
    features: str | None = setting(
        None, "features.npz of --mode=embed, to be searched by --mode=neighbours"
    )
    query: str | None = setting(None, "the image file whose neighbours are shown")
    neighbours: int = setting(8, "nearest images shown", at_least=1)
    beside: str | None = setting(
        None, "work directories that --mode=report shows beside --workdir: DIR,DIR"
    )
    short_side: int = setting(
        512, "of the images that shrink_images makes, in pixels", at_least=8
    )
    quality: int = setting(
        95, "of the JPEGs that shrink_images makes", at_least=1, at_most=100
    )


SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "network": NetworkConfig,
    "predictor": PredictorConfig,
    "objective": ObjectiveConfig,
    "optimizer": OptimizerConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run.

    `Config.from_dict` is the usual way to make one: it takes the flat names of the
    command line and fills in what `method` stands for.
    """

    method: str = "directpred"
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    predictor: PredictorConfig = PredictorConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            refuse("method", self.method, "one of " + ", ".join(METHODS))
        name, freq = self.predictor.predictor, self.predictor.freq
        facts = self.predictor.facts
        # The iso loss reads f.(W f) as |W^(1/2) f|^2.
        if self.objective.loss == "iso" and not (facts.symmetric and freq == 1):
            symmetric = [n for n, facts in PREDICTORS.items() if facts.symmetric]
            refuse(
                "loss",
                "iso",
                "cosine or mse with this predictor; iso needs a symmetric, never "
                f"gradient-trained W: --predictor={', '.join(symmetric)} and --freq=1",
            )
        if not facts.trained and (freq == 1 or name == "none"):
            self._check_no_predictor_group(name)
        strength = self.data.view_strength
        if strength != 1.0 and self.data.views != "simclr":
            refuse("view_strength", strength, "1 unless --views=simclr")

    @property
    def warmup_epochs(self) -> float:
        """Epochs of warm-up; a tenth of a run that is not longer than its warm-up.

        So a recipe can be tried with `--epochs=1`, and continued with more.
        """
        asked, epochs = self.optimizer.warmup_epochs, self.training.epochs
        return asked if asked < epochs else epochs / 10

    def _check_no_predictor_group(self, name: str) -> None:
        """Refuses optimizer settings for a predictor that has nothing to train."""
        for field in dataclasses.fields(OptimizerConfig):
            value = getattr(self.optimizer, field.name)
            if field.name.startswith("predictor_") and value != field.default:
                refuse(
                    field.name,
                    value,
                    f"{field.default} with --predictor={name}, which no gradient trains"
                    + ("" if name == "none" else " at --freq=1"),
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """A Config from flat names, those of the flags.

        Args:
          values: name -> value. A name left out takes its default: for `predictor`
            and `ema` that of `method`, else that of the dataclass.

        Raises:
          Refused: a value that is not accepted.
          ValueError: an unknown name.
        """
        values = dict(values)
        method = values.pop("method", cls.method)
        values = {**METHODS.get(method, {}), **values}
        sections: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            names = {field.name for field in dataclasses.fields(kind)}
            own = {name: values.pop(name) for name in sorted(names & values.keys())}
            sections[section] = kind(**own)
        if values:
            raise ValueError(
                f"Unknown settings: received {sorted(values)}, accepted: the flags "
                "of `python -m tf_dpred.main --helpfull`."
            )
        return cls(method=method, **sections)

    def to_dict(self) -> dict[str, Any]:
        """Flat name -> value; `Config.from_dict(c.to_dict()) == c`."""
        values: dict[str, Any] = {"method": self.method}
        for section in SECTIONS:
            values.update(dataclasses.asdict(getattr(self, section)))
        return values
