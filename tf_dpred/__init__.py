"""Non-contrastive self-supervised image encoders in TensorFlow: DirectPred and kin.

The public names are imported when they are first used: `import tf_dpred` itself needs
no TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tf_dpred.system import keras_settings, processor

if TYPE_CHECKING:
    from tf_dpred import (
        losses,
        predictors,
        quality,
        schedules,
        spectrum,
        theory,
        views,
    )
    from tf_dpred.callbacks.target_ema import TargetEMA
    from tf_dpred.config import Config
    from tf_dpred.model import DirectPred
    from tf_dpred.optimizers import LARS, SGD
    from tf_dpred.train import Pretraining

__version__ = "0.1.0"

__all__ = [
    "LARS",
    "SGD",
    "Config",
    "DirectPred",
    "Pretraining",
    "TargetEMA",
    "losses",
    "predictors",
    "quality",
    "schedules",
    "spectrum",
    "theory",
    "views",
]

# The modules of those names that are not modules themselves.
_MODULES = {
    "Config": "config",
    "DirectPred": "model",
    "LARS": "optimizers",
    "Pretraining": "train",
    "SGD": "optimizers",
    "TargetEMA": "callbacks.target_ema",
}

processor.ask_for_onednn()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "Config":  # which needs no Keras
        keras_settings.check()
    module = importlib.import_module(f"{__name__}.{_MODULES.get(name, name)}")
    found = getattr(module, name) if name in _MODULES else module
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
