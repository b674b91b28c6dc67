"""JSON files of a run: written whole, and refused in words where they are damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tf_dpred.config import refuse
from tf_dpred.system.files import write_whole


def read(path: Path, flag: str = "workdir") -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file.

    Args:
      path: of the file.
      flag: that names its directory, for the message.

    Raises:
      Refused: the file is damaged, or holds something other than an object.
    """
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}, not an object")
    except ValueError as error:
        refuse(
            flag,
            str(path.parent),
            f"one that is whole, or a new {flag}",
            detail=f" with a damaged {path.name} ({error})",
        )
    return value


def write(path: Path, value: dict[str, Any]) -> None:
    """Writes an object in place of what the file held before.

    Raises:
      OSError: it could not be written; the old file is intact.
    """
    write_whole(path, json.dumps(value, indent=2) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of one JSON object per line; none where there is no file.

    A last line that was cut off is left out: a resumed run records it again.

    Raises:
      Refused: a line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    if lines and not lines[-1].endswith("}"):
        lines.pop()
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        refuse(
            "workdir",
            str(path.parent),
            "one JSON object per line",
            detail=f" with a damaged {path.name} ({error})",
        )
