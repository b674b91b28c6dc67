"""One process at a time works in a directory: it trains there, or writes features."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import weakref
from pathlib import Path
from typing import NoReturn, TextIO

from absl import logging

from tf_dpred.config import refuse

# The claims of this process, by the real path of the lock file.
_CLAIMS: weakref.WeakValueDictionary[str, Lock] = weakref.WeakValueDictionary()


class Lock:
    """Claims a work directory for one run, until the run or its process ends.

    It uses flock(2), which the system releases however a process ends. On a network
    file system that does not pass it on, it does not notice other machines.

    Inside one process the latest claim counts: a notebook's second run takes the
    directory over from its first one, unless that one is training right now.

    Args:
      path: of the lock file, in a directory that exists.
      flag: that names the directory, for the refusal.
    """

    def __init__(self, path: Path, flag: str = "workdir"):
        self.path = path
        self._flag = flag
        self.training = False
        self._file: TextIO | None = None
        self._taken_over = False

    def acquire(self) -> None:
        """Claims the directory; does nothing where this object holds it already.

        Raises:
          Refused: another process, or another run of this process, is training in it.
        """
        if self._file is not None:
            return
        name = os.path.realpath(self.path)
        other = _CLAIMS.get(name)
        if other is not None and other is not self:
            if other.training:
                self._refuse("another run of this process")
            other.release()
            other._taken_over = True
        try:
            self._file = self._locked()
        except OSError as error:  # some network and cluster file systems
            logging.warning(
                "%s cannot be locked (%s): a second run in it will not be noticed",
                self.path.parent,
                error.strerror,
            )
            self._file = open(os.devnull)
        _CLAIMS[name] = self

    def _locked(self) -> TextIO:
        """The lock file, locked, with the name of this process in it.

        Raises:
          Refused: another process holds it.
          OSError: only the lock of another process keeps a run away, nothing else.
        """
        with contextlib.ExitStack() as closed:
            file = closed.enter_context(open(self.path, "a+", errors="replace"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                self._refuse(file.read().strip() or "another process")
            owner = f"process {os.getpid()} on {socket.gethostname()}"
            with contextlib.suppress(OSError):  # a full disk: a lock without a name
                file.truncate(0)
                os.write(file.fileno(), owner.encode())
            closed.pop_all()
        return file

    def start_training(self) -> None:
        """Keeps the directory from later runs of this process as well.

        Raises:
          Refused: a later run has taken it over, and may have trained in it; see also
            `acquire`.
        """
        if self._taken_over:
            self._refuse("a later run of this process", "has begun")
        self.acquire()
        self.training = True

    def release(self) -> None:
        """Gives the directory up, if this object holds it."""
        self.training = False
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Removes the file, if this object holds the directory."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)

    def _refuse(self, owner: str, does: str | None = None) -> NoReturn:
        is_run = self._flag == "workdir"
        does = does or ("is training" if is_run else "is writing")
        refuse(
            self._flag,
            str(self.path.parent),
            f"a {'workdir' if is_run else 'directory'} that no other run uses",
            detail=f", where {owner} {does}",
        )
