"""Writes files that are always whole, and shows their names in messages."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tf_dpred.config import refuse

# Control characters, surrogates (Python's stand-ins for bytes that are not UTF-8), line
# and paragraph separators.
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a binary file that replaces the old one of this name only at the end.

    It is written under another name, flushed to the disk and renamed. The rename is
    flushed as well.

    Raises:
      OSError: it could not be written; nothing is left behind; the old file is intact.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
    if not name or not path.parent.is_dir() or (path.exists() and not path.is_file()):
        refuse("output", name, f"the name of {kind} in a directory that exists")
    if not os.access(path.parent, os.W_OK):
        refuse("output", name, f"the name of {kind} in a directory that can be written")
    return path


def printable(path: str) -> str:
    """A path as it can be shown, on one line and in one column of a table.

    A byte that is not UTF-8 becomes \\udcXX, a tab \\t, a line break \\n.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _ESCAPED
        else character
        for character in path
    )


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Writes an npz file by `whole`."""
    with whole(path) as file:
        np.savez(file, **arrays)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file by `whole`."""
    with whole(path) as file:
        file.write(text.encode())
