"""TensorBoard: curves by group, histograms, pictures, settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tensorboard.plugins.hparams import api as hparams

from tf_dpred import quality
from tf_dpred.system import markdown

# The group of a curve, where it is not `train`.
GROUPS = {
    "tau": "schedule",
    "learning_rate": "schedule",
    "images_per_second": "speed",
}
# What monitors measure, no means of an epoch; None is not drawn.
MEASURED = {"knn": "eval", "view_images": None, "view_held_out": None} | {
    f"{features}{name}": "quality"
    for features in ("", "projection_", "target_", "target_projection_")
    for name in quality.MEASURES
}
# The curves whose last values stand beside the settings in the HParams tab.
COMPARED = ("eval/knn", "quality/view_top1", "epoch/loss", "epoch/feature_std")


class TensorBoard(keras.callbacks.Callback):
    """Writes a run's curves, pictures and settings.

    Every `log_every` steps: train/loss and train/feature_std (means over the epoch so
    far), schedule/learning_rate, schedule/tau, speed/images_per_second. Every epoch:
    eval/knn and quality/ where they were measured, and the epoch's means as epoch/.
    Once: the settings, as text and for the HParams tab. `TheoryMonitor` (spectrum/) and
    `Pictures` write through this callback as well.

    What cannot be written (a full disk) is reported and left out; each epoch tries
    again, in a new file.

    Args:
      directory: of the event files.
      batch_size: images of one step.
      log_every: steps between points.
      settings: flag -> value, in the order in which they are shown.
    """

    def __init__(
        self,
        directory: str,
        batch_size: int,
        log_every: int,
        settings: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.directory = directory
        self.writer: tf.summary.SummaryWriter | None = None
        self.failed = False
        self.batch_size = batch_size
        self.log_every = log_every
        self.settings = dict(settings or {})

    def _step(self) -> int:
        return self.model.steps_done

    def scalars(self, scalars: Mapping[str, float]) -> None:
        """Adds points of this step, under their names."""
        # Arrays: TensorFlow keeps a tensor of every Python number it is given.
        self._write(
            lambda: [tf.summary.scalar(n, np.asarray(v)) for n, v in scalars.items()]
        )

    def histograms(self, values: Mapping[str, np.ndarray]) -> None:
        """Adds histograms of arrays of any shape."""
        self._write(
            lambda: [tf.summary.histogram(n, np.asarray(v)) for n, v in values.items()]
        )

    def image(self, name: str, picture: np.ndarray) -> None:
        """Adds a picture, uint8 [h, w, 3]."""
        self._write(lambda: tf.summary.image(name, picture[np.newaxis]))

    def _write_settings(self) -> None:
        rows = [[name, str(value)] for name, value in self.settings.items()]
        tf.summary.text("settings", markdown.table(["flag", "value"], rows))
        known = {k: v for k, v in self.settings.items() if v is not None}
        hparams.hparams_config(
            hparams=[hparams.HParam(name) for name in known],
            metrics=[hparams.Metric(tag, display_name=tag) for tag in COMPARED],
        )
        # The work directory and its parent: the name of many is only a seed.
        name = "/".join(Path(self.directory).resolve().parts[-3:-1])
        hparams.hparams(known, trial_id=name)

    def _write(self, write: Callable[[], Any]) -> None:
        if self.failed:
            return
        try:
            if self.writer is None:
                self.writer = tf.summary.create_file_writer(self.directory)
            with self.writer.as_default(step=np.asarray(self._step())):
                write()
            # Flushed at once: a killed run keeps its points up to the last checkpoint.
            self.writer.flush()
        except tf.errors.OpError as error:
            reason = error.message.splitlines()[0].rpartition("}} ")[2]
            logging.error(
                "TensorBoard shows nothing from step %d on, till the next epoch: %s",
                self._step(),
                reason,
            )
            self.writer, self.failed = None, True

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.settings and self._step() == 0:
            self._write(self._write_settings)
        if logs:  # measured before training
            self.on_epoch_end(-1, logs)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.failed = False
        self._since = (self._step(), time.perf_counter())

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step, now = self._step(), time.perf_counter()
        last_step, last_time = self._since
        # Not `step % log_every`: steps_per_execution may jump over the multiples.
        if step // self.log_every == last_step // self.log_every:
            return
        scalars = dict(logs or {})
        scalars["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())
        images = (step - last_step) * self.batch_size
        scalars["images_per_second"] = images / (now - last_time)
        self.scalars({f"{GROUPS.get(k, 'train')}/{k}": v for k, v in scalars.items()})
        self._since = (step, now)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.scalars(
            {
                f"{group}/{name}": value
                for name, value in (logs or {}).items()
                if (group := MEASURED.get(name, "epoch")) is not None
            }
        )
