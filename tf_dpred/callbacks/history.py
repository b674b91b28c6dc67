"""The curve of a run as text: one JSON object per epoch."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import keras
from absl import logging

from tf_dpred.files import write_whole


class EpochLog(keras.callbacks.Callback):
    """Keeps each epoch's logs, epochs counted from 1, in memory and in a file.

    A file that cannot be written (a full disk) is reported, and tried again after each
    step.

    Args:
      path: of the file (`epochs.jsonl`).
      write: False for all but one of several workers.
    """

    def __init__(self, path: Path, *, write: bool = True):
        super().__init__()
        self.path = path
        self.writes = write
        self.entries: list[dict] = []
        self._incomplete = False

    def resume(self, step: int) -> None:
        """Reads the file, without what a run that continues at `step` logs again.

        Raises:
          ValueError: a line of it is damaged.
        """
        if not self.path.exists():
            return
        lines = self.path.read_text().splitlines()
        # A last line that is cut is that of an epoch that is trained again.
        if lines and not lines[-1].endswith("}"):
            lines.pop()
        try:
            entries = [json.loads(line) for line in lines]
        except ValueError as error:
            raise ValueError(
                f"--workdir: received a damaged {self.path} ({error}), accepted: one "
                "JSON object per line."
            ) from error
        self.entries = [entry for entry in entries if 0 < step >= entry["step"]]

    def _append(self, epoch: int, logs: dict) -> None:
        self.entries.append({"epoch": epoch, "step": self.model.steps_done, **logs})
        if not self.writes:
            return
        try:
            self.write()
        except OSError as error:
            self._incomplete = True
            logging.error("epoch %d is not in %s yet: %s", epoch, self.path, error)

    def write(self) -> None:
        """Writes the file anew.

        Raises:
          OSError: it could not be written; the file of before is intact.
        """
        write_whole(self.path, "".join(json.dumps(e) + "\n" for e in self.entries))
        self._incomplete = False

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # Before the next checkpoint, from which a resume would not log it again.
        if self._incomplete:
            with contextlib.suppress(OSError):
                self.write()

    def on_train_begin(self, logs: dict | None = None) -> None:
        if logs:  # measured before training: epoch 0
            self._append(0, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._append(epoch + 1, logs or {})
