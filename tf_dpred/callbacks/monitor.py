"""What a user watches: TensorBoard, and a line of progress."""

from __future__ import annotations

import time

import keras
import numpy as np
import tensorflow as tf
from absl import logging


class TensorBoard(keras.callbacks.Callback):
    """Writes the curves of a run.

    Every `log_every` steps: loss and feature_std (means over the epoch so far),
    learning_rate, tau, images_per_second. Every epoch: knn where it was evaluated.
    Others add to them by `scalars` (`TheoryMonitor`).

    What cannot be written (a full disk) is reported and left out of the curves; each
    epoch tries again, in a new file.

    Args:
      directory: of the event files.
      batch_size: images of one step.
      log_every: steps between points.
    """

    def __init__(self, directory: str, batch_size: int, log_every: int):
        super().__init__()
        self.directory = directory
        self.writer: tf.summary.SummaryWriter | None = None
        self.failed = False
        self.batch_size = batch_size
        self.log_every = log_every

    def _step(self) -> int:
        return self.model.steps_done

    def scalars(self, scalars: dict[str, float]) -> None:
        """Adds points of this step, under their names."""
        if self.failed:
            return
        try:
            if self.writer is None:
                self.writer = tf.summary.create_file_writer(self.directory)
            # Arrays: TensorFlow keeps a tensor of every Python number it is given.
            with self.writer.as_default(step=np.asarray(self._step())):
                for name, value in scalars.items():
                    tf.summary.scalar(name, np.asarray(value))
            # At once, so that a killed run has its points up to the last checkpoint.
            self.writer.flush()
        except tf.errors.OpError as error:
            reason = error.message.splitlines()[0].rpartition("}} ")[2]
            logging.error(
                "no curves from step %d on, till the next epoch: %s",
                self._step(),
                reason,
            )
            self.writer, self.failed = None, True

    def on_train_begin(self, logs: dict | None = None) -> None:
        if logs:  # measured before training
            self.scalars({f"epoch/{name}": value for name, value in logs.items()})

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
        self.scalars({f"train/{name}": value for name, value in scalars.items()})
        self._since = (step, now)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.scalars({f"epoch/{name}": value for name, value in (logs or {}).items()})


class Progress(keras.callbacks.Callback):
    """Logs loss, speed and time left: every `seconds`, and at the end of an epoch.

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
        seconds: float = 20.0,
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
            self._report(logs or {})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._report(logs or {})

    def _report(self, logs: dict) -> None:
        step, now = self._now
        parts = [f"epoch {self._epoch + 1}/{self.epochs}", f"step {step}"]
        parts += [f"{name} {value:.4g}" for name, value in logs.items()]
        parts.append(f"lr {float(self.model.optimizer.learning_rate.numpy()):.4g}")
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
