"""JSON files of a run: written whole, and refused in words where they are damaged.

A file that can be parsed may still hold something else than its readers take for
granted, so each of them says which shape it needs. A shape is

    str, int, float, None   text, a whole number, any number, null
    Any                     whatever
    [SHAPE], [SHAPE, ...]   a list of these; the second has at least one
    {str: SHAPE}            an object with any names
    {"a": SHAPE, "b?": S}   an object with these names and any others; b may be absent
    (SHAPE, SHAPE)          one of these; the first is what words are about
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tf_dpred.config import refuse
from tf_dpred.system.files import write_whole

OBJECT = {str: Any}
_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    None: "null",
}


def read(
    path: Path, shape: Any = OBJECT, flag: str = "workdir"
) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file.

    Args:
      path: of the file.
      shape: of the object.
      flag: that names its directory, for the message.

    Raises:
      Refused: the file is damaged, or holds something of another shape.
    """
    if not path.exists():
        return None
    try:
        return _parsed(_content(path), shape)
    except ValueError as error:
        refuse(
            flag,
            str(path.parent),
            f"one that is whole, or a new {flag}",
            detail=f" with a damaged {path.name} ({error})",
        )


def write(path: Path, value: dict[str, Any]) -> None:
    """Writes an object in place of what the file held before.

    Raises:
      OSError: it could not be written; the old file is intact.
    """
    write_whole(path, json.dumps(value, indent=2) + "\n")


def read_lines(
    path: Path, shape: Any = OBJECT, flag: str = "workdir"
) -> list[dict[str, Any]]:
    """The objects in a file of one JSON object per line; none where there is no file.

    A last line that was cut off is left out: a resumed run records it again.

    Args:
      path: of the file.
      shape: of each object.
      flag: that names its directory, for the message.

    Raises:
      Refused: a line is damaged, or holds something of another shape.
    """
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    where = ""
    try:
        *lines, tail = _content(path).split(b"\n")
        if _is_json(tail):  # an editor may have removed the last line break
            lines.append(tail)
        for number, line in enumerate(lines, start=1):
            where = f"line {number}: "
            found.append(_parsed(line, shape))
        return found
    except ValueError as error:
        refuse(
            flag,
            str(path.parent),
            "one JSON object per line",
            detail=f" with a damaged {path.name} ({where}{error})",
        )


def mismatch(value: Any, shape: Any, name: str = "it") -> str | None:
    """Why a value is not of a shape, in words; None where it is.

    Args:
      value: as `json.loads` makes them.
      shape: see above.
      name: of the value, for the words.
    """
    if shape is Any:
        return None
    if isinstance(shape, tuple):
        reasons = [mismatch(value, one, name) for one in shape]
        return None if None in reasons else reasons[0]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{name} is {_words(value)}, not a list"
        if ... in shape and not value:
            return f"{name} is empty"
        parts = [(f"{name}[{i}]", one, shape[0]) for i, one in enumerate(value)]
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            if name == "it":
                return f"it holds {_words(value)}, not an object"
            return f"{name} is {_words(value)}, not an object"
        inside = "" if name == "it" else f"{name}."
        if str in shape:
            parts = [(f"{inside}{key}", one, shape[str]) for key, one in value.items()]
        else:
            for key in shape:
                if not key.endswith("?") and key not in value:
                    return f"{name} lacks {key}"
            keys = {key.removesuffix("?"): part for key, part in shape.items()}
            parts = [(f"{inside}{k}", value[k], keys[k]) for k in keys if k in value]
    else:
        others: dict[Any, Any] = {float: (int, float), None: type(None)}
        kinds = others.get(shape, shape)
        good = isinstance(value, kinds) and not isinstance(value, bool)
        return None if good else f"{name} is {_words(value)}, not {_WORDS[shape]}"
    return next(filter(None, (mismatch(v, s, where) for where, v, s in parts)), None)


def _words(value: Any) -> str:
    if value is None:
        return "null"
    kinds: dict[Any, str] = {list: "a list", dict: "an object", bool: "true or false"}
    return (kinds | _WORDS)[type(value)]


def _content(path: Path) -> bytes:
    """Of a regular file: to read from a pipe of that name would wait for ever."""
    if not path.is_file():
        raise ValueError("it is not a regular file")
    return path.read_bytes()


def _parsed(text: bytes, shape: Any) -> dict[str, Any]:
    try:
        value = json.loads(text.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if reason := mismatch(value, shape):
        raise ValueError(reason)
    return value


def _is_json(text: bytes) -> bool:
    try:
        _parsed(text, Any)
    except ValueError:
        return False
    return True
