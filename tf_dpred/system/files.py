"""Writes files that are always whole."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.config.text import printable as printable

# What file systems answer to something that they do not offer.
_UNKNOWN = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY}
_CANNOT_RENAME = _UNKNOWN | {errno.EPERM, errno.EEXIST, errno.EXDEV, errno.EISDIR}


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a binary file that replaces the old one of this name only at the end.

    It is written under another name, flushed to the disk and renamed. The rename is
    flushed as well. What a file system cannot do of this is left out, with a warning.

    Raises:
      OSError: it could not be written; nothing is left behind; the old file is intact.
    """
    temporary = _temporary(path)
    with errors_named(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                _flush(file.fileno())
            replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)


@contextlib.contextmanager
def errors_named(path: Path) -> Iterator[None]:
    """Adds the file to errors that do not say it, as those of writing and flushing."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def replace(source: Path, target: Path) -> None:
    """Renames a file, in place of another of that name; copies where nothing renames.

    Mounted buckets and some network file systems cannot rename, or not over a file.

    Raises:
      OSError: it could not be done.
    """
    try:
        source.replace(target)
    except OSError as error:
        if error.errno not in _CANNOT_RENAME:
            raise
        _warn_once(f"files are copied and not renamed ({error.strerror})")
        shutil.copyfile(source, target)
        with target.open("rb+") as copy:
            _flush(copy.fileno())
        source.unlink()


def replace_directory(source: Path, target: Path) -> None:
    """Renames a directory, in place of another of that name, as `replace`.

    Raises:
      OSError: it could not be done; what was there before is there again.
    """
    before = target.with_name(f".{target.name}.old")
    shutil.rmtree(before, ignore_errors=True)
    if target.exists():
        shutil.move(target, before)
    try:
        shutil.move(source, target)
    except OSError:
        if before.exists():
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(before, target)
        raise
    shutil.rmtree(before, ignore_errors=True)


def check_can_write(path: Path) -> None:
    """Tries whether `whole` could begin to write a file, which it leaves as it is.

    Raises:
      OSError: its directory is missing or cannot be written to, or the name is none
        that the file system takes.
    """
    temporary = _temporary(path)
    try:
        temporary.open("xb").close()
    except FileExistsError:  # another process writes there, or did until it was killed
        return
    temporary.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        _warn_once(f"files are not flushed to the disk ({error.strerror})")


def _flush_directory(path: Path) -> None:
    """So that a rename outlives a loss of power; many file systems do not offer it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # one may write into some directories that one may not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNKNOWN | {errno.EBADF, errno.EACCES, errno.EPERM}:
            raise
    finally:
        os.close(descriptor)


@functools.cache
def _warn_once(what: str) -> None:
    logging.warning(
        "the file system cannot do all that keeps files whole: %s. A file may be cut "
        "short if the machine dies while it is written; that is noticed when it is "
        "read",
        what,
    )


def output_folder(flag: str, path: Path) -> None:
    """Makes a folder for files that take long to compute, if it is missing.

    Raises:
      Refused: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_can_write(path / "any")
    except OSError as error:
        accepted = f"a directory that can be written to ({error.strerror})"
        refuse(flag, str(path), accepted)


def output_file(name: str | None, kind: str) -> Path:
    """The file of `--output`, checked before the work whose result it takes.

    Args:
      name: the flag's value.
      kind: of file, for the message: "an npz file".

    Raises:
      Refused: there is no name, its directory does not exist or cannot be written to,
        or something that is not a file has this name.
    """
    path = Path(name or "")
    if (
        not name
        or not os.path.isdir(path.parent)
        or (os.path.exists(path) and not os.path.isfile(path))
    ):
        refuse("output", name, f"the name of {kind} in a directory that exists")
    try:
        check_can_write(path)
    except OSError as error:
        accepted = f"the name of {kind} in a directory that can be written"
        refuse("output", name, f"{accepted} ({error.strerror})")
    return path


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes an npz file by `whole`."""
    with whole(path) as file:
        np.savez(file, **arrays)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file by `whole`."""
    with whole(path) as file:
        file.write(text.encode())
