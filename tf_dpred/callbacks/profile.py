"""A trace of some steps, for TensorBoard's profiler."""

from __future__ import annotations

import keras
import tensorflow as tf
from absl import logging


class Profile(keras.callbacks.Callback):
    """Traces from one step to another.

    The trace is written below `plugins/profile`; to look at it, TensorBoard needs the
    package tensorboard-plugin-profile.

    Args:
      directory: of the event files.
      start, stop: optimizer steps, start < stop. A run that continues after `start`
        writes no trace.
    """

    def __init__(self, directory: str, start: int, stop: int):
        super().__init__()
        self.directory = directory
        self.start, self.stop = start, stop
        self._running = False

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = self.model.steps_done
        # Not `==`: steps_per_execution may jump over a step.
        if not self._running and self.start <= step < self.stop:
            tf.profiler.experimental.start(self.directory)
            self._running, self._begun = True, step
        elif self._running and step >= self.stop:
            self._end(step)

    def on_train_end(self, logs: dict | None = None) -> None:
        if self._running:
            self._end(self.model.steps_done)

    def _end(self, step: int) -> None:
        tf.profiler.experimental.stop()
        self._running, self.start = False, self.stop
        logging.info("a trace of steps %d to %d is written", self._begun, step)
