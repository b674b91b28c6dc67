"""The variables that decide the rest of a run, by their names in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from tf_dpred.model import DirectPred
from tf_dpred.system import saving


def training_state(model: DirectPred) -> dict[str, keras.Variable]:
    """All variables of a compiled model, by unique names.

    Online network, target with its own BatchNorm statistics, predictor with F and W,
    the optimizer with its step count, and the metrics of the epoch in progress.
    """
    parts: dict[str, Iterable[keras.Variable]] = {
        "online": model.online.variables,
        "predictor": model.predictor.variables,
        "guard": model.finite.variables,
        "metrics": [v for metric in model.metrics for v in metric.variables],
    }
    if model.loss_scale is not None:
        parts["loss_scale"] = model.loss_scale.variables
    if model.has_separate_target:
        parts["target"] = model.target.variables
    state = {}
    for part, variables in parts.items():
        state.update(named(part, variables))
    for index, variable in enumerate(model.optimizer.variables):
        state[f"optimizer/{index:04d}"] = variable
    return state


def named(part: str, variables: Iterable[keras.Variable]) -> dict[str, keras.Variable]:
    """The variables of one part by their place in it: `online/0012/kernel`.

    Not by their paths, which hold the numbers that Keras gives to unnamed layers and
    variables: new ones for every model that a process builds.
    """
    return {
        f"{part}/{index:04d}/{saving.stable_name(variable)}": variable
        for index, variable in enumerate(variables)
    }
