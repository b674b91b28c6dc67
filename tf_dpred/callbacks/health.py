"""Reports early what goes wrong with the numbers of a run."""

from __future__ import annotations

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
    """Ends training at the first step with a number that is not finite.

    Raises:
      FloatingPointError: names the quantity (loss, gradient norm, F or W) and the
        step. No checkpoint of that step is written.
    """

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        found = self.model.finite.describe()
        if found is not None:
            raise FloatingPointError(found)


class ReportSkipped(keras.callbacks.Callback):
    """Logs how many steps were undone (`skip_nonfinite`), and adds it to the logs."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._reported = int(self.model.finite.count.numpy())

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        count = int(self.model.finite.count.numpy())
        if count > self._reported:
            logging.warning(
                "skipped %d updates so far that were not finite (the first: %s)",
                count,
                self.model.finite.describe(),
            )
            self._reported = count

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["skipped_updates"] = int(self.model.finite.count.numpy())


class ReportLossScale(keras.callbacks.Callback):
    """Adds the loss scale of float16, and the steps it dropped, to an epoch's logs."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        scale = self.model.loss_scale
        if logs is not None and scale is not None:
            logs["loss_scale"] = float(scale.scale.numpy())
            logs["dropped_steps"] = int(scale.dropped.numpy())
