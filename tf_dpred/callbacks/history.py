"""The curve of a run as text: one JSON object per epoch."""

from __future__ import annotations

import json
from pathlib import Path

import keras
from absl import logging


class EpochLog(keras.callbacks.Callback):
    """Keeps each epoch's logs, epochs counted from 1, in memory and in a file.

    A file that cannot be written (a full disk) is reported; the next epoch writes it
    with all that is missing.

    Args:
      path: of the file (`epochs.jsonl`).
      write: False for all but one of several workers.
    """

    def __init__(self, path: Path, *, write: bool = True):
        super().__init__()
        self.path = path
        self.writes = write
        self.entries: list[dict] = []

    def resume(self, step: int) -> None:
        """Reads the file, without what a run that continues at `step` logs again."""
        if self.path.exists():
            lines = self.path.read_text().splitlines()
            # A last line that is cut is that of an epoch that is trained again.
            entries = [json.loads(line) for line in lines if line.endswith("}")]
            self.entries = [entry for entry in entries if 0 < step >= entry["step"]]

    def _append(self, epoch: int, logs: dict) -> None:
        self.entries.append({"epoch": epoch, "step": self.model.steps_done, **logs})
        if not self.writes:
            return
        try:
            self.write()
        except OSError as error:
            logging.error("epoch %d is not in %s yet: %s", epoch, self.path, error)

    def write(self) -> None:
        """Writes the file anew, under another name first, so that it is always whole.

        Raises:
          OSError: it could not be written.
        """
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(json.dumps(e) + "\n" for e in self.entries))
        temporary.replace(self.path)

    def on_train_begin(self, logs: dict | None = None) -> None:
        if logs:  # measured before training: epoch 0
            self._append(0, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._append(epoch + 1, logs or {})
