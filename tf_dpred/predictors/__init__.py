"""The predictors: what maps an online projection f to a guess of the target's z.

All share one interface:

    call(f)               p, the prediction, [n, d] -> [n, d]
    observe(f, z)         takes the projections of a step into the statistics
    update_weights(step)  after the optimizer's step: `reset`, which sets the weights or
                          leaves them, then the shrinkage

A new predictor is one class, one line in `PREDICTORS` and one in
`config.PREDICTOR_FACTS`. Weights act from the left on column vectors, p = W f, so rows
are multiplied by W^T. Equation numbers are those of arXiv 2102.06810.
"""

from __future__ import annotations

import dataclasses

from tf_dpred.config import PredictorConfig
from tf_dpred.predictors.base import Predictor, arguments
from tf_dpred.predictors.closed_form import (
    ClosedForm,
    Direct,
    DirectCopy,
    DirectSet,
    Optimal,
)
from tf_dpred.predictors.trained import MLP, Identity, Linear, Symmetric, SymmetricMLP

__all__ = [
    "MLP",
    "PREDICTORS",
    "ClosedForm",
    "Direct",
    "DirectCopy",
    "DirectSet",
    "Identity",
    "Linear",
    "Optimal",
    "Predictor",
    "Symmetric",
    "SymmetricMLP",
    "make_predictor",
]

PREDICTORS: dict[str, type[Predictor]] = {
    "direct": Direct,
    "direct_copy": DirectCopy,
    "direct_set": DirectSet,
    "optimal": Optimal,
    "linear": Linear,
    "symmetric": Symmetric,
    "mlp": MLP,
    "symmetric_mlp": SymmetricMLP,
    "none": Identity,
}


def make_predictor(config: PredictorConfig) -> Predictor:
    """The predictor of a config; settings that its class does not take are unused."""
    cls = PREDICTORS[config.predictor]
    settings = dataclasses.asdict(config)
    return cls(**{name: settings[name] for name in arguments(cls) & settings.keys()})
