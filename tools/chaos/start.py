"""Starts of the program, as processes that begin with TensorFlow imported (Linux)."""

from __future__ import annotations

import dataclasses
import functools
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import keras

from tf_dpred import main, train
from tf_dpred.networks.normalization import BatchNormalization
from tools.chaos.inside import Inside, Strike

LONGEST_SECONDS = 240


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a start ended.

    Attributes:
      code: the exit code; minus the signal that killed it.
      lines: what it printed to its terminal.
      struck: the kinds of faults that took effect.
      moments: that were counted, unless it was killed.
    """

    code: int
    lines: list[str]
    struck: list[str]
    moments: int = 0

    @property
    def last_words(self) -> list[str]:
        """The lines in which the program says why it ended."""
        words = ("tf_dpred: ", "the same command continues.")
        return [line for line in self.lines if any(word in line for word in words)]


class Start:
    """Forks a process that runs the program with these flags.

    This process has imported TensorFlow and never used it: it may be forked.

    Args:
      flags: of `tf_dpred.main`.
      workdir: the one that the flags name.
      strikes: faults of this start.
      images: the training images of a folder, if faults may strike them.
      small: a network that is quickly traced takes the place of the flags' one.
    """

    def __init__(
        self,
        flags: Sequence[str],
        workdir: Path,
        strikes: Sequence[Strike] = (),
        images: Sequence[Path] = (),
        *,
        small: bool = True,
    ):
        printed, writer = os.pipe()
        reported, reporter = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            for descriptor in (1, 2):
                os.dup2(writer, descriptor)
            for descriptor in (printed, reported, writer):
                os.close(descriptor)
            report = functools.partial(_report, reporter)
            inside = Inside(list(strikes), workdir, list(images), report)
            run_program(["tf_dpred", *flags], inside, small=small)
        os.close(writer)
        os.close(reporter)
        self._pipes = {printed: b"", reported: b""}

    def wait(self, on_pause: Callable[[], None] = lambda: None) -> Ended:
        """Reads what it says until it ends.

        Args:
          on_pause: called while the process is stopped, before it goes on.

        Raises:
          TimeoutError: it hangs; it is killed.
        """
        end = time.monotonic() + LONGEST_SECONDS
        with selectors.DefaultSelector() as selector:
            for pipe in self._pipes:
                selector.register(pipe, selectors.EVENT_READ)
            status = None
            while status is None or selector.get_map():
                # A process that has ended can have left children that hold a pipe.
                ready = selector.select(0.05)
                for key, _ in ready:
                    part = os.read(key.fd, 65536)
                    self._pipes[key.fd] += part
                    if not part:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                if status is None:
                    status = self._poll(on_pause)
                if time.monotonic() > end:
                    os.kill(self.pid, signal.SIGKILL)
                    raise TimeoutError(f"hangs: {self._pipes}")
        printed, reported = (
            text.decode(errors="backslashreplace") for text in self._pipes.values()
        )
        code = os.waitstatus_to_exitcode(status)
        kinds = reported.split()
        moments = int(kinds.pop()) if kinds and kinds[-1].isdigit() else 0
        return Ended(code, printed.splitlines(), kinds, moments)

    def _poll(self, on_pause: Callable[[], None]) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        if not pid:
            return None
        if os.WIFSTOPPED(status):
            on_pause()
            os.kill(self.pid, signal.SIGCONT)
            return None
        return status


def _report(pipe: int, kind: str) -> None:
    os.write(pipe, f"{kind}\n".encode())


def run_program(arguments: list[str], inside: Inside, *, small: bool) -> NoReturn:
    """Is the program, from its first line to its exit code."""
    code: object = 1
    try:
        sys.argv = arguments
        # As a new process has them.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        given = {"backbone": small_backbone} if small else {}
        train.Pretraining = functools.partial(  # type: ignore[misc,assignment]
            train.Pretraining, callbacks=[inside], **given
        )
        inside.install()
        main.run()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        inside.report(str(inside.moments))
        os._exit(code if isinstance(code, int) else 1)


def small_backbone() -> keras.Model:
    """A convolution and BatchNorm: what a ResNet is made of, but quickly traced."""
    image = keras.Input((16, 16, 3))
    kernel = keras.initializers.HeNormal(seed=0)
    x = keras.layers.Conv2D(8, 3, 2, use_bias=False, kernel_initializer=kernel)(image)
    x = keras.layers.ReLU()(BatchNormalization()(x))
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
