"""Says early what goes wrong: collapse, and numbers that are not finite."""

from __future__ import annotations

import math

import keras
from absl import logging


class CollapseWarning(keras.callbacks.Callback):
    """Warns once an epoch's features have (nearly) collapsed to one direction.

    Reads `feature_std`, the mean standard deviation of unit projections times
    sqrt(d): 1 is spread over the sphere, 0 collapsed. A warning, not a stop: theory
    runs collapse on purpose.

    Args:
      threshold: warn below this.
    """

    def __init__(self, threshold: float = 0.1):
        super().__init__()
        self.threshold = threshold
        self.collapsed = False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        spread = (logs or {}).get("feature_std")
        if spread is None:
            return
        if spread < self.threshold and not self.collapsed:
            logging.warning(
                "epoch %d: features have collapsed: feature std x sqrt(d) is %.4f "
                "(1 = spread, 0 = collapsed). Check predictor, stop_gradient, ema, "
                "weight_decay and the learning rate.",
                epoch + 1,
                spread,
            )
        self.collapsed = spread < self.threshold


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training at the first step whose loss is not finite.

    Raises:
      FloatingPointError: names the quantity and the step.
    """

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        for name in ("loss", "feature_std"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(value):
                step = int(self.model.optimizer.iterations)
                raise FloatingPointError(f"{name} is {value} after step {step}.")
