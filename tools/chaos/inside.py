"""Faults that strike inside a run, at a chosen moment of its work on files.

A process that trains is forked with a list of `Strike`s. Its moments are counted: each
step, and each time that it opens, renames, removes or makes a file of the work
directory, which Python tells to an audit hook before it happens. So the package needs
no code for it, and a seed gives the same moments again.

A strike is an act (a signal, a file that vanishes), or the beginning of a time in which
something fails as the system would let it fail: the hook raises the error, or a limit
of the process (RLIMIT_FSIZE, RLIMIT_NOFILE) or a full tmpfs makes the kernel do it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from tf_dpred.callbacks.preemption import Preemption
from tf_dpred.data import image_files

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.listdir", "os.scandir")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
REFUSALS = (
    errno.ENOSPC,
    errno.EROFS,
    errno.EIO,
    errno.EDQUOT,
    errno.ESTALE,
    errno.EACCES,
)
YEARS = 3e7  # seconds
FILLER = "filler"  # beside the work directory: it takes what is left of its disk


@dataclasses.dataclass(frozen=True)
class Strike:
    """A fault of a run.

    Attributes:
      kind: a name in `ACTS`.
      at: the moment, counted from 0; with `step`, the earliest one.
      lasts: moments after which it is over, where it is no single act.
      delay: seconds after the moment, so that it strikes elsewhere than at files.
      number: chooses among the variants of a kind.
      step: of the training, after which it strikes; 0: at any moment.
      only: what the names of the files hold whose reads or writes fail.
    """

    kind: str
    at: int = 0
    lasts: int = 0
    delay: float = 0.0
    number: int = 0
    step: int = 0
    only: str = ""


class Inside(keras.callbacks.Callback):
    """Counts the moments of this process and lets the strikes happen.

    Args:
      strikes: in any order.
      workdir: whose files are meant.
      images: the training images of a folder; none: other data.
      report: called with the kind of each fault when it takes effect.
    """

    def __init__(
        self,
        strikes: list[Strike],
        workdir: Path,
        images: list[Path],
        report: Callable[[str], None],
    ):
        super().__init__()
        self.workdir, self.images = workdir, images
        self.moments = 0
        # Errors of the system, and what is in the names of the files that they meet.
        self.writes_fail = self.reads_fail = (0, "")
        self.sync: Callable[[], None] | None = None
        self.read_image: Callable[[bytes], bytes] | None = None
        self._strikes = list(strikes)
        self._ends: list[tuple[int, Callable[[], None]]] = []
        self._report = report
        self._reported: set[str] = set()
        self._busy = threading.local()

    def install(self) -> None:
        """From here on this process is counted and struck."""
        sys.addaudithook(self._on_event)
        real_sync = os.fsync

        def fsync(descriptor: int) -> None:
            if self.sync is not None:
                self.sync()
            real_sync(descriptor)

        os.fsync = fsync  # type: ignore[assignment]
        if self.images:
            real_read = image_files.read

            def on_read(path: bytes) -> bytes:
                return path if self.read_image is None else self.read_image(path)

            def read(path: tf.Tensor, *rest) -> tf.Tensor:
                path = tf.numpy_function(on_read, [path], tf.string, stateful=False)
                return real_read(tf.ensure_shape(path, []), *rest)

            image_files.read = read

    def report(self, kind: str) -> None:
        """Says once that a fault has taken effect."""
        if kind not in self._reported:
            self._reported.add(kind)
            self._report(kind)

    def until(self, strike: Strike, end: Callable[[], None]) -> None:
        """Ends a fault after the moments that it lasts."""
        self._ends.append((self.moments + strike.lasts, end))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._moment()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self._moment()

    def _on_event(self, event: str, args: tuple) -> None:
        if event not in EVENTS or getattr(self._busy, "now", False):
            return
        path = args[0]
        if not isinstance(path, str | os.PathLike):
            return
        if not os.path.abspath(path).startswith(str(self.workdir)):
            return
        self._moment()
        reading = event in ("os.listdir", "os.scandir") or (
            event == "open" and not args[2] & WRITING
        )
        number, names = self.reads_fail if reading else self.writes_fail
        if number and names in str(path):
            self.report("no_reads" if reading else "no_writes")
            raise OSError(number, os.strerror(number), str(path))

    def _moment(self) -> None:
        """Counts, ends what is over and begins what is due."""
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            now, self.moments = self.moments, self.moments + 1
            for end in [end for end in self._ends if end[0] <= now]:
                self._ends.remove(end)
                end[1]()
            step = self.model.steps_done if self.model is not None else 0
            due = [s for s in self._strikes if s.at <= now and s.step <= step]
            for strike in due:
                self._strikes.remove(strike)
                if strike.delay:
                    act = threading.Timer(
                        strike.delay, ACTS[strike.kind], (self, strike)
                    )
                    act.daemon = True
                    act.start()
                else:
                    ACTS[strike.kind](self, strike)
        finally:
            self._busy.now = False


def _kill(inside: Inside, strike: Strike) -> None:
    inside.report("kill")
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(inside: Inside, strike: Strike) -> None:
    inside.report(strike.kind)
    number = Preemption.SIGNALS[strike.number % len(Preemption.SIGNALS)]
    for _ in range(2 if strike.kind == "stop_twice" else 1):
        os.kill(os.getpid(), number)


def _hang_up(inside: Inside, strike: Strike) -> None:
    inside.report("hang_up")
    os.kill(os.getpid(), signal.SIGHUP)


def _pause(inside: Inside, strike: Strike) -> None:
    """The tool sees that this process is stopped, and lets it go on."""
    inside.report(strike.kind)
    os.kill(os.getpid(), signal.SIGSTOP)


def _full_disk(inside: Inside, strike: Strike) -> None:
    """Fills the file system of the work directory, a small tmpfs."""
    inside.report("full_disk")
    filler = inside.workdir.with_name(FILLER)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    inside.until(strike, lambda: filler.unlink(missing_ok=True))


def _limit(inside: Inside, strike: Strike) -> None:
    """Lets the kernel refuse large files, or more open files."""
    inside.report(strike.kind)
    if strike.kind == "file_size":
        what, most = resource.RLIMIT_FSIZE, strike.number % 4096
    else:
        what, most = resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd"))
    before = resource.getrlimit(what)
    resource.setrlimit(what, (most, before[1]))
    inside.until(strike, lambda: resource.setrlimit(what, before))


def _refused(inside: Inside, strike: Strike) -> None:
    """Reports itself where an operation fails."""
    name = "reads_fail" if strike.kind == "no_reads" else "writes_fail"
    number = REFUSALS[strike.number % len(REFUSALS)]
    if strike.kind == "no_reads":
        number = errno.EIO
    setattr(inside, name, (number, strike.only))
    inside.until(strike, lambda: setattr(inside, name, (0, "")))


def _sync(inside: Inside, strike: Strike) -> None:
    def slow() -> None:
        inside.report("slow_disk")
        time.sleep(0.1)

    def fails() -> None:
        inside.report("no_sync")
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    inside.sync = slow if strike.kind == "slow_disk" else fails
    inside.until(strike, lambda: setattr(inside, "sync", None))


def _clock(inside: Inside, strike: Strike) -> None:
    inside.report("clock")
    real, jump = time.time, (strike.number % 101 - 50) * YEARS
    time.time = lambda: max(real() + jump, 0.0)


def _terminal(inside: Inside, strike: Strike) -> None:
    """Nobody reads what is printed any more."""
    inside.report("terminal")
    reader, writer = os.pipe()
    os.close(reader)
    for descriptor in (1, 2):
        os.dup2(writer, descriptor)
    os.close(writer)


def _image_file(inside: Inside, strike: Strike) -> None:
    """An image vanishes, or is replaced by something that is none."""
    inside.report(strike.kind)
    path = inside.images[strike.number % len(inside.images)]
    content = path.read_bytes()
    path.unlink()
    if strike.kind == "image_changes":
        path.write_bytes(content[: strike.number % len(content)])
        return  # the tool puts the folder in order again
    inside.until(strike, lambda: path.write_bytes(content) and None)


def _image_reads(inside: Inside, strike: Strike) -> None:
    def slow(path: bytes) -> bytes:
        inside.report("image_slow")
        time.sleep(0.02)
        return path

    def fails(path: bytes) -> bytes:
        inside.report("image_fails")
        # A name that ends nowhere: the kernel itself refuses to open it.
        return os.fsencode(inside.workdir.parent / "loop")

    inside.read_image = slow if strike.kind == "image_slow" else fails
    inside.until(strike, lambda: setattr(inside, "read_image", None))


ACTS: dict[str, Callable[[Inside, Strike], None]] = {
    "kill": _kill,
    "stop": _stop,
    "stop_twice": _stop,
    "hang_up": _hang_up,
    "pause": _pause,
    "second_start": _pause,
    "full_disk": _full_disk,
    "file_size": _limit,
    "open_files": _limit,
    "no_writes": _refused,
    "no_reads": _refused,
    "no_sync": _sync,
    "slow_disk": _sync,
    "clock": _clock,
    "terminal": _terminal,
    "image_vanishes": _image_file,
    "image_changes": _image_file,
    "image_slow": _image_reads,
    "image_fails": _image_reads,
}
