"""Processes that measure in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 10  # seconds for a worker to end by itself


class Absent(Exception):
    """A measurement that cannot be made here, with the reason in one line."""


class Worker:
    """A process that speaks as `tools.peers.serve` does.

    Args:
      command: of the process; it is run in the checkout.
      environment: added to this process's.

    Raises:
      Absent: it ended before it was ready.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] = {}):
        if shutil.which(command[0]) is None:
            raise Absent(f"received {command[0]!r}, accepted: a program")
        self._errors = tempfile.TemporaryFile(mode="w+")
        self._process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.about = self._reply()["ready"]

    def round(self) -> dict[str, float]:
        """One measurement.

        Raises:
          Absent: the process ended.
        """
        # A process that has ended does not read, but has left its reason.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict:
        for line in self._process.stdout:
            # Libraries print too.
            if line.startswith("{"):
                return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        raise Absent(lines[-1] if lines else f"exit code {self._process.returncode}")

    def close(self) -> None:
        # It ends when its input does, so that it can remove what it wrote.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
        for stream in (self._process.stdout, self._errors):
            stream.close()


def here(module: str, *arguments: str) -> list[str]:
    """The command of a module of `tools.benchmark` in this interpreter."""
    return [sys.executable, "-m", f"tools.benchmark.{module}", *arguments]


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """quantity -> median."""
    return {quantity: statistics.median(values) for quantity, values in found.items()}


def run(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    optional: Collection[str] = (),
    environments: Mapping[str, Mapping[str, str]] = {},
) -> tuple[dict[str, dict[str, list[float]]], dict[str, dict], dict[str, str]]:
    """Starts the workers, races those that are there, ends them.

    Args:
      commands: worker -> its command.
      rounds: measurements of each.
      optional: workers that may be absent; without another, the program ends.
      environments: worker -> variables.

    Returns:
      worker -> quantity -> its value in each round; worker -> what it said of itself;
      worker -> why it is absent.
    """
    workers: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    found: dict[str, dict[str, list[float]]] = {}

    def leave_out(name: str, reason: Absent) -> None:
        if name not in optional:
            sys.exit(f"{name}: {reason}")
        absent[name] = str(reason)
        found.pop(name, None)

    try:
        for name, command in commands.items():
            try:
                workers[name] = Worker(command, environments.get(name, {}))
                found[name] = {}
            except Absent as reason:
                leave_out(name, reason)
        for _ in range(rounds):
            for name in list(found):
                try:
                    measured = workers[name].round()
                except Absent as reason:
                    leave_out(name, reason)
                    continue
                for quantity, value in measured.items():
                    found[name].setdefault(quantity, []).append(value)
    finally:
        for worker in workers.values():
            worker.close()
    return found, {name: workers[name].about for name in found}, absent
