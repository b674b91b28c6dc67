"""Paths as a user writes them where no shell reads them: in a flagfile, behind `=`."""

from __future__ import annotations

import os
import re
from pathlib import Path

_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


class Unusable(ValueError):
    """Says of a path why it is none; follows it in a message without a space."""


def expand(path: str) -> str:
    """A path with `~`, `~user`, `$NAME` and `${NAME}` replaced by what they stand for.

    What exists under exactly this name is meant as it stands, but for `~` itself; so
    are addresses, as gs://bucket.

    Raises:
      Unusable: it is blank, has blanks or quotes around it, or names a variable or a
        user that there is not. A directory of such a name would be made, or the
        current one taken, without a word.
    """
    if not path.strip():
        raise Unusable
    if "\0" in path:
        raise Unusable(" with a zero byte")
    of_home = path == "~" or path.startswith("~/")
    if "://" in path or (os.path.lexists(path) and not of_home):
        return path
    if path != path.strip():
        raise Unusable(" with blanks around it")
    if path[0] == path[-1] and path[0] in "'\"":
        raise Unusable(" with quotes around it, which only a shell removes")
    if re.search(r"\s#", path):
        raise Unusable(" with a comment, which has a line of its own in a flagfile")
    for found in _VARIABLE.finditer(path):
        name = found[1].strip("{}")
        if not os.environ.get(name):
            raise Unusable(f", where {name} is not set")
    path = _VARIABLE.sub(lambda found: os.environ[found[1].strip("{}")], path)
    path = os.path.expanduser(path)
    if path.startswith("~"):
        raise Unusable(", where there is no such user")
    return path


def several(text: str) -> list[str]:
    """Paths with commas between them; one, if it exists under exactly this name."""
    return [text] if os.path.lexists(text) else text.split(",")


def argument(text: str) -> Path:
    """A path of a tool's command line: the `type` of an argument of `argparse`.

    Raises:
      argparse.ArgumentTypeError: see `expand`.
    """
    import argparse

    try:
        return Path(expand(text))
    except Unusable as error:
        message = f"received {text!r}{error}, accepted: a path"
        raise argparse.ArgumentTypeError(message) from None
