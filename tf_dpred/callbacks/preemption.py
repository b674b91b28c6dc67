"""Ends a run in order when the system asks for it."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import keras
from absl import logging

from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.errors import Preempted
from tf_dpred.system import replicas


class Preemption(keras.callbacks.Callback):
    """On SIGTERM, SIGINT or SIGUSR1: a checkpoint after this step, then `Preempted`.

    A second SIGTERM or SIGINT ends the process at once. SIGUSR1 is what Slurm sends
    some time before it ends a job (`--signal=USR1@120`), with SIGTERM to follow: it
    never ends the process at once, and neither does the first signal after it.

    The handlers are in place while training runs; the earlier ones come back
    afterwards. Only Python's main thread can have handlers: trained from another one,
    as a web application does, a run leaves the signals to that program. Several workers
    all stop after the same step, one or two later.

    Args:
      checkpoints: the callback that saves.

    Raises:
      Preempted: names the signal and the step.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self, checkpoints: Checkpointing):
        super().__init__()
        self.checkpoints = checkpoints
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Preemption:
        self._received = None
        if threading.current_thread() is not threading.main_thread():
            logging.info(
                "not in the main thread: SIGTERM and Ctrl-C do not stop this run by a "
                "checkpoint"
            )
            return self
        # None is a handler that is not Python's, which Python could not put back.
        known = [s for s in self.SIGNALS if signal.getsignal(s) is not None]
        self._before = {s: signal.signal(s, self._on_signal) for s in known}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1 and self._received is not None:
            return
        if self._received not in (None, signal.SIGUSR1):
            os._exit(128 + number)
        self._received = number
        logging.warning(
            "%s: stopping after this step; SIGTERM or Ctrl-C once more to stop at once",
            signal.Signals(number).name,
        )

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # After an epoch's last step, its metrics are logged first.
        if self.model.steps_done % self.checkpoints.steps_per_epoch:
            self._stop()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._stop()

    def _stop(self) -> None:
        asked = self._received is not None
        if replicas.are_on_several_workers(self.model.distribute_strategy):
            if asked:
                self.model.stop.ask()
            # The workers wait for each other: they must stop after the same step.
            asked = self.model.stop.agreed
        if not asked:
            return
        self.checkpoints.save()
        self.checkpoints.wait()
        name = signal.Signals(self._received).name if self._received else "a worker"
        raise Preempted(
            f"{name}: saved step {self.model.steps_done}; the same command continues."
        )
