"""Processes of their own, which begin where TensorFlow is imported but not started.

Importing it takes seconds, so one process of each pytest worker does it, and all others
are forked from that. Devices, threads and determinism can still be chosen there: they
are settled by the first operation.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

TIMEOUT_SECONDS = 240
# Elsewhere a process that has imported TensorFlow may not be forked.
CONTEXT = multiprocessing.get_context(
    "forkserver" if sys.platform == "linux" else "spawn"
)
CONTEXT.set_forkserver_preload(["tf_dpred.train", "pytest"])


class Ended(NamedTuple):
    """`code` is that of `subprocess`; `log` holds stdout and stderr."""

    code: int
    log: str


class Started:
    """`function(*args)` in a process of its own; both picklable.

    Args:
      environment: what it has instead of, or beside, that of the tests.
    """

    def __init__(
        self,
        function: Callable,
        *args,
        environment: Mapping[str, str] | None = None,
    ):
        self._directory = tempfile.TemporaryDirectory()
        self._log = Path(self._directory.name) / "log"
        whole = {**os.environ, **(environment or {})}
        self._process = CONTEXT.Process(
            target=_call, args=(self._log, whole, function, args)
        )
        self._process.start()

    def wait(self) -> Ended:
        self._process.join(TIMEOUT_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        log = self._log.read_text()
        self._directory.cleanup()
        return Ended(self._process.exitcode, log)


def run(function: Callable, *args, **kwargs) -> Ended:
    return Started(function, *args, **kwargs).wait()


def _call(log: Path, environment: dict[str, str], function: Callable, args: tuple):
    with log.open("wb", buffering=0) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(environment)
    function(*args)
