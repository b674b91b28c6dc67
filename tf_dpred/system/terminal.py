"""How a program ends: with an exit code, and at most one line that says why.

Imports nothing heavy, so that it is there while the rest is imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from tf_dpred import errors
from tf_dpred.system import memory


def run(name: str, program: Callable[[], int | None]) -> int:
    """Runs a program -> its exit code, see `errors`.

    A refusal, a failure or an interrupt ends it with one line, a reader that has seen
    enough (`| head`) with none. A bug shows its traceback.

    Args:
      name: that the line begins with.
      program: returns its exit code; None: 0.
    """
    try:
        try:
            return program() or 0
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Python would write what it still holds when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.FAILED
    except errors.Refused as error:
        return complain(name, error, errors.REFUSED)
    except subprocess.CalledProcessError as error:  # it has said why
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    except (errors.RunFailed, FloatingPointError, OSError) as error:
        from absl import logging

        logging.debug("failed", exc_info=True)
        return complain(name, error, errors.FAILED)
    except KeyboardInterrupt:
        return complain(name, "interrupted", errors.INTERRUPTED)
    except Exception as error:
        if (shortage := memory.shortage(error)) is None:
            raise
        return complain(name, f"out of memory ({shortage})", errors.FAILED)


def complain(name: str, error: Exception | str, code: int) -> int:
    """Prints a line -> the exit code."""
    with contextlib.suppress(OSError):  # nobody reads it: the code still says it
        print(f"{name}: " + " ".join(str(error).split()), file=sys.stderr)
    return code


@contextlib.contextmanager
def quits_when_interrupted(name: str) -> Iterator[None]:
    """Lets Ctrl-C end the process at once, for the imports of large libraries.

    An exception would pass through their code, which may hide it or make a page of it.
    Not for notebooks, whose process goes on.
    """
    quit_when_interrupted(name)
    try:
        yield
    finally:
        if isinstance(before := signal.getsignal(signal.SIGINT), _Quit):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(before.stderr)


def quit_when_interrupted(name: str) -> None:
    """Begins what `quits_when_interrupted` ends; does nothing where it has begun."""
    if threading.current_thread() is not threading.main_thread():
        return
    # It is another one where Ctrl-C is to be ignored, as in a shell's background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(OSError):  # no terminal
            signal.signal(signal.SIGINT, _Quit(name))


class _Quit:
    def __init__(self, name: str):
        self.name = name
        # Descriptor 2 may lead elsewhere while libraries are loaded quietly.
        self.stderr = os.dup(2)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(self.stderr, f"{self.name}: interrupted\n".encode())
        os._exit(errors.INTERRUPTED)
