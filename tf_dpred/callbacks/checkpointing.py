"""Saves everything that the rest of a run depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from tf_dpred.callbacks.json_lines import JsonLines
from tf_dpred.config import refuse
from tf_dpred.model import DirectPred
from tf_dpred.records import checkpoints
from tf_dpred.records.state import training_state


class Checkpointing(keras.callbacks.Callback):
    """Saves the training state every N steps and at the end of each epoch.

    If a checkpoint cannot be written (a full disk), that is reported and training goes
    on with the last good one intact; at the end of the run it is an error.

    Args:
      model: compiled.
      directory: of the checkpoints.
      steps_per_epoch: optimizer steps.
      every: steps between checkpoints inside an epoch; 0: none there.
      keep: checkpoints kept, at least 1.
      best: the measure in an epoch's logs by whose highest value one checkpoint is kept
        beside those; None: by none.
      background: write from a thread while training goes on; the values are copied
        first.
      write: False for all but one of several workers, which have the same values.
      run: identity of the run, which its checkpoints carry; None: that of the
        checkpoint that is restored.
      records: of the run; they are complete on the disk before a checkpoint is, since a
        run that continues from there does not record again what came before it.
    """

    def __init__(
        self,
        model: DirectPred,
        directory: Path,
        *,
        steps_per_epoch: int,
        every: int = 0,
        keep: int = 3,
        best: str | None = None,
        background: bool = False,
        write: bool = True,
        run: str | None = None,
        records: Sequence[JsonLines] = (),
    ):
        super().__init__()
        self.run = run
        self.records = records
        self.state = training_state(model)
        self.directory = directory
        self.steps_per_epoch = steps_per_epoch
        self.every = every
        self.keep = keep
        self.best = best
        self._best_value = -math.inf
        self.writes = write
        self._model = model
        self._saved_step = 0
        self._tried_step = 0
        self._pending_metrics: dict[str, np.ndarray] = {}
        self._writer = ThreadPoolExecutor(1) if background else None
        self._writing: Future | None = None

    def restore(self) -> Path | None:
        """Restores the newest checkpoint that is whole; newer ones are set aside.

        Returns:
          Its path, or None if there is none.

        Raises:
          Refused: none can be read, it is of another run, or its variables are not
            exactly those of the model.
        """
        found = checkpoints.load_latest(self.directory)
        if found is None:
            return None
        path, arrays = found
        if self.run is None:
            self.run = checkpoints.run_of(path)
        checkpoints.check_is_of(path, self.run)
        check_matches(path, arrays, self.state)
        if self.writes:
            checkpoints.set_aside(self.directory, after=path)
            for other in checkpoints.others(self.directory):
                logging.warning("%s is not a checkpoint by its name: left alone", other)
        for name, variable in self.state.items():
            variable.assign(arrays[name])
        self._saved_step = self._tried_step = self._model.steps_done
        return path

    def resume_best(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Finds out how good the best checkpoint is, which a better one replaces.

        Args:
          entries: the lines of epochs.jsonl up to the step where the run continues.
        """
        steps = [checkpoints.step_of(p) for p in checkpoints.list_best(self.directory)]
        for entry in entries:
            if steps and entry["step"] == steps[-1]:
                self._best_value = self._measured(entry)

    def save(self, value: float = -math.inf) -> None:
        """Saves the state of this moment, unless this step is saved already.

        Args:
          value: of the measure `best`; above all earlier ones, this is the best
            checkpoint.

        Raises:
          OSError: it, or the records of before, could not be written.
        """
        step = self._model.steps_done
        if step == self._saved_step:
            return
        if not self.writes:
            self._saved_step = step
            return
        for record in self.records:
            record.complete()
        arrays = self._copies("")
        try:
            self.wait()
        except OSError as error:
            logging.error("the checkpoint before step %d failed: %s", step, error)
        if self._writer is None:
            self._write(step, arrays, value)
        else:
            self._writing = self._writer.submit(self._write, step, arrays, value)
        self._saved_step = step

    def wait(self) -> None:
        """Waits for a checkpoint that is being written.

        Raises:
          OSError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _copies(self, prefix: str) -> dict[str, np.ndarray]:
        """The values of the variables whose names start with `prefix`."""
        # Copies: what TensorFlow hands out may be the variable's own memory.
        return {
            name: np.array(keras.ops.convert_to_numpy(variable))
            for name, variable in self.state.items()
            if name.startswith(prefix)
        }

    def _write(self, step: int, arrays: dict[str, np.ndarray], value: float) -> None:
        path = checkpoints.path_of(self.directory, step)
        checkpoints.save(path, arrays, self.run)
        checkpoints.remove_old(self.directory, self.keep)
        logging.debug("saved %s", path)
        if value > self._best_value:
            checkpoints.save_best(self.directory, step, arrays, self.run)
            self._best_value = value
            logging.info("best checkpoint: step %d, %s %.4f", step, self.best, value)

    def _save_or_report(self, value: float = -math.inf) -> None:
        self._tried_step = self._model.steps_done
        try:
            self.save(value)
        except OSError as error:
            logging.error(
                "no checkpoint at step %d: %s. Training goes on; the last good "
                "checkpoint is intact.",
                self._tried_step,
                error,
            )

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self._model.steps_done % self.steps_per_epoch:
            # Keras resets the metrics when it begins the rest of the epoch.
            self._pending_metrics = self._copies("metrics/")

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        for name, value in self._pending_metrics.items():
            self.state[name].assign(value)
        self._pending_metrics = {}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = self._model.steps_done
        if step % self.steps_per_epoch == 0:
            return  # `on_epoch_end` saves, when the epoch's metrics are logged
        # Not `step % every`: steps_per_execution may jump over the multiples.
        if self.every and step // self.every > self._tried_step // self.every:
            self._save_or_report()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._save_or_report(self._measured(logs or {}))

    def _measured(self, numbers: Mapping[str, Any]) -> float:
        """The measure `best` among some numbers; minus infinity where it is not."""
        return -math.inf if self.best is None else numbers.get(self.best, -math.inf)


def check_matches(path: Path, arrays: dict, state: dict) -> None:
    """Checks that a checkpoint holds the variables of a model and no others.

    Raises:
      Refused: names what differs.
    """
    missing = sorted(state.keys() - arrays.keys())
    strange = sorted(arrays.keys() - state.keys())
    reshaped = [
        f"{name} {arrays[name].shape} for {tuple(state[name].shape)}"
        for name in sorted(state.keys() & arrays.keys())
        if arrays[name].shape != tuple(state[name].shape)
    ]
    if missing or strange or reshaped:
        refuse(
            "workdir",
            str(path),
            "a checkpoint of this model, or a new workdir",
            detail=f", which does not fit the model: missing {missing[:3]}, not in the "
            f"model {strange[:3]}, of another shape {reshaped[:3]} (the first of "
            f"{len(missing)}, {len(strange)}, {len(reshaped)})",
        )
