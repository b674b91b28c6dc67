"""The directory of a run: what was asked for, and what came out.

flags.json      settings, images, and what computes: versions, environment, devices
checkpoints/    step-00001234.npz, the newest few
epochs.jsonl    the metrics of each epoch
theory.jsonl    spectra and alignment, measured at intervals
tensorboard/    curves
result.json     the last metrics
bad_images.txt  image files that could not be used, and why
.lock           held while a process trains here; the system frees it after a crash
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import socket
from pathlib import Path
from typing import Any, TextIO

import tensorflow as tf

from tf_dpred.config import Config, EvaluationConfig
from tf_dpred.data.source import Source
from tf_dpred.system.devices import environment, versions
from tf_dpred.system.files import write_whole

# Settings that a continued run may change: they decide how long it goes on (schedules
# follow `epochs`), what is watched and where things lie.
MAY_CHANGE = frozenset(
    {
        "background_checkpoints",
        "checkpoint_every",
        "data_dir",
        "epochs",
        "keep_checkpoints",
        "log_every",
        "max_bad_images",
        "profile",
        "steps_per_execution",
        "tpu",
        "worker_timeout",
        "workdir",
    }
) | {field.name for field in dataclasses.fields(EvaluationConfig)}


class Workdir:
    """The files of a run.

    Args:
      path: made if it does not exist.

    Raises:
      ValueError: it cannot be made or written to.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self._lock: TextIO | None = None
        if "://" in path:
            raise ValueError(
                f"--workdir: received {path!r}, accepted: a directory of this "
                "machine's file system (a bucket can be mounted)."
            )
        probe = self.path / f".writable.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ValueError(
                f"--workdir: received {path!r}, accepted: a directory that can be "
                f"written to ({error.strerror})."
            ) from error

    def lock(self) -> None:
        """Claims the directory for this process, until it ends in whatever way.

        By flock(2): on a network file system that does not pass it on, processes of
        other machines are not seen.

        Raises:
          ValueError: another process holds it.
        """
        lock = open(self.path / ".lock", "a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            lock.close()
            raise ValueError(
                f"--workdir: received {str(self.path)!r}, where {owner} is training, "
                "accepted: a workdir that no other process uses."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        """Gives the directory free, if this process holds it."""
        if self._lock is not None:
            self._lock.close()

    @property
    def epochs(self) -> Path:
        return self.path / "epochs.jsonl"

    @property
    def theory(self) -> Path:
        return self.path / "theory.jsonl"

    @property
    def bad_images(self) -> Path:
        return self.path / "bad_images.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def check_unchanged(self, config: Config) -> None:
        """Refuses to continue a run under settings that would make it another one.

        Raises:
          ValueError: lists what differs from `flags.json`.
        """
        recorded = self._read("flags.json").get("flags")
        if recorded is None:
            return
        # A setting that the run did not know yet had its default.
        recorded = {**Config().to_dict(), **recorded}
        differing = [
            f"{name}: {recorded[name]!r} -> {value!r}"
            for name, value in config.to_dict().items()
            if name not in MAY_CHANGE and recorded[name] != value
        ]
        if differing:
            raise ValueError(
                f"--workdir: received {str(self.path)!r}, which holds a run with other "
                f"settings ({'; '.join(differing)}), accepted: the same settings, or "
                "a new workdir."
            )

    def check_same_data(self, source: Source) -> None:
        """Refuses to continue on other images: an epoch would be another.

        Raises:
          ValueError: their number differs, or what is known of them and their order.
        """
        record = self._read("flags.json")
        number = record.get("num_examples", source.num_examples)
        if (number, record.get("images", source.fingerprint)) != (
            source.num_examples,
            source.fingerprint,
        ):
            raise ValueError(
                f"--workdir: received {str(self.path)!r}, which holds a run on "
                f"{number} other images ({source.num_examples} now; a folder is told "
                "by the names in it), accepted: the same images, or a new workdir."
            )

    def write_flags(self, config: Config, source: Source) -> None:
        """Records settings, what the training images are, and what computes."""
        record = {
            "flags": config.to_dict(),
            "num_examples": source.num_examples,
            "images": source.fingerprint,
            **_what_computes(),
        }
        self._write("flags.json", record)

    def changes(self) -> list[str]:
        """What computes otherwise than at the last start of the run, a line each.

        "tensorflow: 2.20.0 -> 2.21.0". The run can go on, but with other rounding. What
        was not recorded then is not compared.
        """
        record = self._read("flags.json")
        found = []
        for part, now in _what_computes().items():
            if part not in record:
                continue
            before = record[part]
            if isinstance(now, list):
                now, before = ({part: ", ".join(names)} for names in (now, before))
            found += [
                f"{name}: {before[name] or 'not set'} -> {now[name] or 'not set'}"
                for name in now.keys() & before.keys()
                if now[name] != before[name]
            ]
        return sorted(found)

    def write_result(self, result: dict[str, Any]) -> None:
        """Records the last metrics."""
        self._write("result.json", result)

    def read_result(self) -> dict[str, Any]:
        """What `write_result` recorded; empty before that."""
        return self._read("result.json")

    def _read(self, name: str) -> dict[str, Any]:
        return read_json(self.path / name)

    def _write(self, name: str, value: dict[str, Any]) -> None:
        write_whole(self.path / name, json.dumps(value, indent=2) + "\n")


def _what_computes() -> dict[str, Any]:
    return {
        "versions": versions(),
        "environment": environment(),
        "devices": [d.name for d in tf.config.list_logical_devices()],
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a work directory; empty where there is none.

    Raises:
      ValueError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"--workdir: received {str(path.parent)!r} with a damaged {path.name} "
            f"({error}), accepted: one that is whole, or a new workdir."
        ) from error
