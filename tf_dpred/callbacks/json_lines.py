"""The curves of a run as text: files of one JSON object per line."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, ClassVar

import keras
from absl import logging

from tf_dpred.records import lines
from tf_dpred.system import json_files
from tf_dpred.system.files import write_whole


class JsonLines(keras.callbacks.Callback):
    """Keeps records with a `step` in memory and in a file.

    A file that cannot be written (a full disk) is reported, and tried again after each
    step.

    Args:
      path: of the file.
      write: False for all but one of several workers.

    Attributes:
      shape: of a record, for those who read it.
    """

    shape: ClassVar[Any] = {"step": int}

    def __init__(self, path: Path, *, write: bool = True):
        super().__init__()
        self.path = path
        self.writes = write
        self.entries: list[dict] = []
        self._incomplete = False

    def resume(self, step: int) -> None:
        """Reads the file up to `step`, from which a run continues and records again.

        Raises:
          Refused: a line is damaged.
        """
        entries = json_files.read_lines(self.path, self.shape)
        self.entries = [entry for entry in entries if 0 < step >= entry["step"]]

    def add(self, entry: dict) -> None:
        """Appends a record; what cannot be written is reported."""
        self.entries.append(entry)
        if not self.writes:
            return
        try:
            self.save(entry)
        except OSError as error:
            self._incomplete = True
            logging.error("%s lacks its latest lines: %s", self.path, error)

    def save(self, entry: dict) -> None:
        """Brings the file up to this latest record.

        Raises:
          OSError: it could not be written.
        """
        self.write()

    def write(self) -> None:
        """Writes the file anew.

        Raises:
          OSError: it could not be written; the old file is intact.
        """
        write_whole(self.path, "".join(json.dumps(e) + "\n" for e in self.entries))
        self._incomplete = False

    def complete(self) -> None:
        """Writes what could not be written when it was added.

        Raises:
          OSError: it still cannot.
        """
        if self._incomplete:
            self.write()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        with contextlib.suppress(OSError):
            self.complete()


class EpochLog(JsonLines):
    """Records each epoch's logs (`epochs.jsonl`); epochs count from 1."""

    shape: ClassVar[Any] = lines.EPOCH

    def on_train_begin(self, logs: dict | None = None) -> None:
        if logs:  # measured before training: epoch 0
            self._log(0, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._log(epoch + 1, logs or {})

    def _log(self, epoch: int, logs: dict) -> None:
        self.add({"epoch": epoch, "step": self.model.steps_done, **logs})

    def result(self) -> dict[str, Any]:
        """The last metrics, kNN by epoch, and what the untrained network had."""
        entries = self.entries
        by_epoch = {e["epoch"]: e["knn"] for e in entries if "knn" in e}
        result = {**(entries[-1] if entries else {}), "knn_by_epoch": by_epoch}
        if entries and entries[0]["epoch"] == 0:
            result["untrained"] = entries[0]
        return result
