"""A line of progress on the console."""

from __future__ import annotations

import time

import keras
from absl import logging

# Of each log that is shown: its name and format. A line has at most 100 columns.
SHOWN = {
    "loss": ("loss", ".4f"),
    "feature_std": ("std", ".3f"),
    "knn": ("kNN", ".4f"),
    "view_top1": ("views", ".3f"),
    "skipped_updates": ("skipped", "d"),
}


class Progress(keras.callbacks.Callback):
    """Logs loss, speed and time left: after each epoch, and every `seconds` within it.

    std is the projections' feature_std, views the top-1 of view retrieval.

    Args:
      batch_size: images of one step.
      steps_per_epoch: steps.
      epochs: of the whole run.
      seconds: between lines.
    """

    def __init__(
        self,
        batch_size: int,
        steps_per_epoch: int,
        epochs: int,
        seconds: float = 60.0,
    ):
        super().__init__()
        self.epochs = epochs
        self.batch_size = batch_size
        self.steps_per_epoch = steps_per_epoch
        self.seconds = seconds

    def on_train_begin(self, logs: dict | None = None) -> None:
        # The first step traces the graph: it is left out of the speed.
        self._mark: tuple[int, float] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._epoch = epoch
        if self._mark:  # evaluation between epochs is left out as well
            self._mark = (self.model.steps_done, time.perf_counter())

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._now = (self.model.steps_done, time.perf_counter())
        if self._mark is None:
            self._mark = self._now
        elif self._now[1] - self._mark[1] >= self.seconds:
            begun = self._now[0] - self._epoch * self.steps_per_epoch
            self._report(logs or {}, begun / self.steps_per_epoch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._report(logs or {})

    def _report(self, logs: dict, done: float = 1.0) -> None:
        step, now = self._now
        # A whole number at the end of an epoch.
        epochs = f"{self._epoch + done:.2f}".rstrip("0").rstrip(".")
        parts = [f"epoch {epochs}/{self.epochs}"]
        parts += [f"{n} {logs[k]:{f}}" for k, (n, f) in SHOWN.items() if k in logs]
        parts.append(f"lr {float(self.model.optimizer.learning_rate.numpy()):.3g}")
        if self._mark and step > self._mark[0] and now > self._mark[1]:
            speed = (step - self._mark[0]) / (now - self._mark[1])
            left = self.epochs * self.steps_per_epoch - step
            parts.append(f"{speed * self.batch_size:.0f} images/s")
            parts.append(f"ETA {_duration(left / speed)}")
        logging.info("%s", "  ".join(parts))
        self._mark = self._now


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
