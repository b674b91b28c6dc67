"""The work directory of a run, as the program writes it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import zipfile
from pathlib import Path

import jax
import numpy as np

from pjrt.compiled import Compiled
from pjrt.report import log, refuse

CHECKPOINT_VERSION = 1


def write_whole(path: Path, write) -> None:
    """`write(file)` under another name, flushed and renamed."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


class Records:
    """The work directory of a run, locked, with the files of `--mode=pretrain`."""

    def __init__(self, path: Path, compiled: Compiled):
        self.path, self.manifest = path, compiled.manifest
        self.checkpoints = path / "checkpoints"
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = (path / ".lock").open("a+")
        except OSError as error:
            refuse("--workdir", f"{path} ({error.strerror})", "a writable directory")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refuse("--workdir", path, "a workdir that no other run uses")
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {os.uname().nodename}")
        self._lock.flush()
        self.run = self._check_flags()
        self.entries: list[dict] = []

    def _check_flags(self) -> str | None:
        """The identity of the run that the directory holds; refuses another one."""
        path = self.path / "flags.json"
        if not path.exists():
            return None
        before, now = json.loads(path.read_text()), self.manifest["record"]
        flags, fixed = before["flags"], set(self.manifest["may_change"])
        differing = [
            f"{name}: {flags[name]!r} -> {value!r}"
            for name, value in now["flags"].items()
            if name in flags and name not in fixed and flags[name] != value
        ]
        differing += [
            f"{name}: {before[name]} -> {now[name]}"
            for name in ("num_examples", "images")
            if before.get(name, now[name]) != now[name]
        ]
        if differing:
            text = f"{self.path}, a run with other settings ({'; '.join(differing)})"
            refuse("--workdir", text, "the same settings, or a new workdir")
        return before.get("run")

    def write_flags(self, devices: list) -> None:
        record = json.loads(json.dumps(self.manifest["record"]))
        record["flags"]["workdir"] = str(self.path)
        name = self.path.absolute().name
        self.run = self.run or f"{name}-{secrets.token_hex(4)}"
        record["run"] = self.run
        record["versions"]["jax"] = jax.__version__
        record["devices"] = [f"{d.device_kind} {d.id}" for d in devices]
        write_text(self.path / "flags.json", json.dumps(record, indent=2) + "\n")

    def load(self) -> dict[str, np.ndarray] | None:
        """The newest checkpoint that is whole; damaged ones are set aside."""
        paths = self._list()
        for path in reversed(paths):
            try:
                with np.load(path, allow_pickle=False) as file:
                    state = {name: file[name] for name in file.files}
                version, names = state.pop("format_version"), state.pop("names")
                run = state.pop("run", None)
                if sorted(state) != names.tolist():
                    raise ValueError("arrays are missing")
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                log(f"warning: {path} is damaged ({error}): trying the one before it")
                path.rename(f"{path}.damaged")
                continue
            if int(version) != CHECKPOINT_VERSION:
                refuse("--workdir", f"{path} of format {version}", "format 1")
            if sorted(state) != self.manifest["saved"]:
                refuse("--workdir", f"{path} of another model", "one of these flags")
            if run is not None and self.run not in (None, str(run)):
                refuse("--workdir", f"{path} of the run {run}", f"those of {self.run}")
            self.run = self.run or (None if run is None else str(run))
            log(f"continuing from {path}")
            return state
        if paths:
            refuse("--workdir", f"{self.path}, all damaged", "a whole checkpoint")
        return None

    def save(self, step: int, state: dict[str, np.ndarray]) -> None:
        header = {"format_version": CHECKPOINT_VERSION, "names": sorted(state)}
        arrays = {**header, "run": self.run, **state}
        path = self.checkpoints / f"step-{step:08d}.npz"
        write_whole(path, lambda file: np.savez(file, **arrays))
        keep = self.manifest["record"]["flags"]["keep_checkpoints"]
        for old in self._list()[:-keep]:
            old.unlink()

    def _list(self) -> list[Path]:
        """The checkpoints, oldest first, by the names that a run gives."""
        found = self.checkpoints.glob("step-*.npz")
        ours = [p for p in found if re.fullmatch(r"step-[0-9]{8,18}", p.stem)]
        return sorted(ours, key=lambda p: int(p.stem[5:]))

    def resume(self, step: int) -> None:
        """Reads the lines of the epochs up to a step."""
        path = self.path / "epochs.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        self.entries = [e for e in entries if 0 < step >= e["step"]]

    def add(self, entry: dict) -> None:
        self.entries.append(entry)
        lines = "".join(json.dumps(e) + "\n" for e in self.entries)
        write_text(self.path / "epochs.jsonl", lines)

    def finish(self) -> None:
        by_epoch = {str(e["epoch"]): e["knn"] for e in self.entries if "knn" in e}
        last = self.entries[-1] if self.entries else {}
        result = {**last, "knn_by_epoch": by_epoch}
        if last and self.entries[0]["epoch"] == 0:
            result["untrained"] = self.entries[0]
        write_text(self.path / "result.json", json.dumps(result, indent=2) + "\n")
