"""Files: written so that what is there is always whole, and named in messages."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Control characters, halves of pairs (what Python makes of bytes that are no UTF-8),
# line and paragraph separators.
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a binary file that only in the end replaces the one of this name.

    It is written under another name, flushed to the disk and renamed; so is the rename.

    Raises:
      OSError: it could not be written; nothing is left behind, and the file of before
        is intact.
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


def printable(path: str) -> str:
    """A path as it can be shown, on one line and in one column of a table.

    A byte of it that is no UTF-8 becomes \\udcXX, a tab \\t, a line break \\n.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _ESCAPED
        else character
        for character in path
    )


def write_whole(path: Path, text: str) -> None:
    """Writes a text file by `whole`."""
    with whole(path) as file:
        file.write(text.encode())
