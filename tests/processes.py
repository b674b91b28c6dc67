"""Processes of their own, which begin where TensorFlow is imported but not started.

Importing it takes seconds, so one process of each pytest worker does it, and all others
are forked from that. Devices, threads and determinism can still be chosen there: the
first operation settles them.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tf_dpred.system import quiet

TIMEOUT_SECONDS = 240
CHECKOUT = Path(__file__).parent.parent
# On macOS a process that has imported TensorFlow may not be forked.
CONTEXT = multiprocessing.get_context(
    "forkserver" if sys.platform == "linux" else "spawn"
)
CONTEXT.set_forkserver_preload(["preloaded"])


class Started:
    """`function(*args)` in a process of its own; both picklable.

    Args:
      directory: where it works.
      environment: variables that it has beside those of the tests.
    """

    def __init__(
        self,
        function: Callable,
        *args,
        directory: Path = CHECKOUT,
        environment: Mapping[str, str] | None = None,
    ):
        self._printed = tempfile.TemporaryDirectory()
        variables = {**os.environ, **(environment or {})}
        # As in a user's shell, where a program itself keeps TensorFlow quiet.
        variables.pop("TF_CPP_MIN_LOG_LEVEL", None)
        self._process = CONTEXT.Process(
            target=_call,
            args=(Path(self._printed.name), directory, variables, function, args),
        )
        self._process.start()

    def wait(self) -> subprocess.CompletedProcess:
        """As `subprocess.run` would return it; a process that hangs is killed."""
        self._process.join(TIMEOUT_SECONDS)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        with self._printed as printed:
            out, err = (Path(printed, name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess([], self._process.exitcode, out, err)


def run(function: Callable, *args, **kwargs) -> subprocess.CompletedProcess:
    """`function(*args)` in a process of its own, see `Started`."""
    return Started(function, *args, **kwargs).wait()


def run_module(module: str, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """`python -m module ARGUMENTS`, but for the time that imports take."""
    return run(_run_as_main, runpy.run_module, module, arguments, **kwargs)


def run_file(path: Path, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """`python path ARGUMENTS`, but for the time that imports take."""
    return run(_run_as_main, runpy.run_path, str(path), arguments, **kwargs)


def _run_as_main(runner: Callable, name: str, arguments: tuple[str, ...]) -> None:
    sys.argv = [name, *map(str, arguments)]
    # TensorFlow lets absl look at the devices before the program would do so quietly.
    with quiet.start():
        pass
    runner(name, run_name="__main__")


def _call(
    printed: Path,
    directory: Path,
    variables: dict[str, str],
    function: Callable,
    args: tuple,
) -> None:
    for name, descriptor in (("out", 1), ("err", 2)):
        with (printed / name).open("wb", buffering=0) as file:
            os.dup2(file.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(directory)
    function(*args)
