"""What a run is: frozen dataclasses, validated where they are made.

Every field is also a command-line flag of the same name (`flags.py`), so names are
unique over all sections and an error can name the flag. Nothing here imports
TensorFlow: a wrong value stops a program before anything slow happens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_dpred.config import applications
from tf_dpred.config.method import (
    METHODS,
    OPTIMAL_FORMS,
    PREDICTOR_BN,
    PREDICTOR_FACTS,
    SOLVERS,
    ObjectiveConfig,
    PredictorConfig,
    PredictorFacts,
)
from tf_dpred.config.pixels import PixelConfig
from tf_dpred.config.sections import (
    RESNETS,
    VITS,
    DataConfig,
    EvaluationConfig,
    FilesConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainingConfig,
)
from tf_dpred.config.setting import Numbers, Section, checked_text, field_types, refuse
from tf_dpred.config.view import SecondViewConfig, ViewConfig

__all__ = [
    "METHODS",
    "OPTIMAL_FORMS",
    "PREDICTOR_BN",
    "PREDICTOR_FACTS",
    "RESNETS",
    "SECTIONS",
    "SOLVERS",
    "VITS",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "FilesConfig",
    "NetworkConfig",
    "Numbers",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PixelConfig",
    "PredictorConfig",
    "PredictorFacts",
    "SecondViewConfig",
    "TrainingConfig",
    "ViewConfig",
    "expand_paths",
    "field_types",
    "refuse",
]

SECTIONS: dict[str, type[Section]] = {
    "data": DataConfig,
    "pixels": PixelConfig,
    "view": ViewConfig,
    "view2": SecondViewConfig,
    "network": NetworkConfig,
    "predictor": PredictorConfig,
    "objective": ObjectiveConfig,
    "optimizer": OptimizerConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}


def expand_paths(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat names and values with the paths as a `Config` of them has them.

    For what has to look into a directory before there is a Config.

    Raises:
      Refused: see `paths.expand`.
    """
    found = dict(values)
    for kind in SECTIONS.values():
        for field in dataclasses.fields(kind):
            value = found.get(field.name)
            if field.metadata["path"] and isinstance(value, str):
                found[field.name] = checked_text(field, value)
    return found


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run.

    `Config.from_dict` is the usual way to make one: it takes the flat names of the
    command line and fills in what `method` stands for.
    """

    method: str = "directpred"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    pixels: PixelConfig = dataclasses.field(default_factory=PixelConfig)
    view: ViewConfig = dataclasses.field(default_factory=ViewConfig)
    view2: Any = dataclasses.field(default_factory=SecondViewConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    predictor: PredictorConfig = dataclasses.field(default_factory=PredictorConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or self.method not in METHODS:
            refuse("method", self.method, "one of " + ", ".join(METHODS))
        name, freq = self.predictor.predictor, self.predictor.freq
        facts = self.predictor.facts
        # The iso loss reads f.(W f) as |W^(1/2) f|^2.
        if self.objective.loss == "iso" and not (facts.symmetric and freq == 1):
            symmetric = [n for n, facts in PREDICTOR_FACTS.items() if facts.symmetric]
            refuse(
                "loss",
                "iso",
                "cosine or mse with this predictor; iso needs a symmetric, never "
                f"gradient-trained W: --predictor={', '.join(symmetric)} and --freq=1",
            )
        if not facts.trained and (freq == 1 or name == "none"):
            self._check_no_predictor_group(name)
        size, patch = self.data.image_size, self.network.patch_size
        if self.network.backbone in VITS and size % patch:
            refuse("image_size", size, f"a multiple of --patch_size={patch}")
        if self.data.keep_last_batch and self.training.accumulation_steps > 1:
            refuse(
                "keep_last_batch",
                True,
                "false with --accumulation_steps above 1, which divides every batch",
            )
        init = self.network.init
        if applications.is_imagenet(init) and self.data.normalize == "data":
            refuse("normalize", "data", f"recipe with --init={init}")
        self._check_best_is_measured()
        for name in ("mean", "std"):
            text = getattr(self.data, name)
            if text and len(Numbers.of(text)) != self.pixels.count:
                accepted = f"{self.pixels.count} numbers, one for each of --channels"
                refuse(name, text, accepted)
        strength = self.data.view_strength
        if strength != 1.0 and self.data.views != "simclr":
            refuse("view_strength", strength, "1 unless --views=simclr")

    def _check_best_is_measured(self) -> None:
        """Refuses to keep the best by a measure that this run does not take."""
        best = self.training.keep_best
        needed = "knn_every" if best == "knn" else "quality_every"
        if best is not None and not getattr(self.evaluation, needed):
            refuse("keep_best", best, f"with --{needed} above 0 only")

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
        preset = METHODS.get(method, {}) if isinstance(method, str) else {}
        values = {**preset, **values}
        sections: dict[str, Any] = {}
        for section, kind in SECTIONS.items():
            names = {field.name for field in dataclasses.fields(kind)}
            own = {name: values.pop(name) for name in sorted(names & values.keys())}
            sections[section] = kind(**own)
        if values:
            raise ValueError(
                f"Unknown settings: received {sorted(values)}, accepted: the flags "
                "of `python -m tf_dpred.main --help`."
            )
        return cls(method=method, **sections)

    def to_dict(self) -> dict[str, Any]:
        """Flat name -> value; `Config.from_dict(c.to_dict()) == c`."""
        values: dict[str, Any] = {"method": self.method}
        for section in SECTIONS:
            values.update(dataclasses.asdict(getattr(self, section)))
        return values
