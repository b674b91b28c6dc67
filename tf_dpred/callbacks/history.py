"""The curve of a run as text: one JSON object per epoch."""

from __future__ import annotations

import json
from pathlib import Path

import keras


class EpochLog(keras.callbacks.Callback):
    """Appends each epoch's logs to a file, epochs counted from 1.

    Args:
      path: of the file (`epochs.jsonl`).
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def read(self) -> list[dict]:
        """What was logged so far, by epoch."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        # A crash may have cut the last line; its epoch is then trained again.
        return [json.loads(line) for line in lines if line.endswith("}")]

    def truncate(self, step: int) -> None:
        """Forgets what a run that continues from this step will log again."""
        kept = [entry for entry in self.read() if 0 < step >= entry["step"]]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        temporary.replace(self.path)

    def _append(self, epoch: int, logs: dict) -> None:
        entry = {"epoch": epoch, "step": self.model.steps_done, **logs}
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_train_begin(self, logs: dict | None = None) -> None:
        if logs:  # measured before training: epoch 0
            self._append(0, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._append(epoch + 1, logs or {})
