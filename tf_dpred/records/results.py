"""result.json: the last metrics of a run, and of each evaluation of its encoder.

An evaluation lies in evaluation/<which>/, beside the pre-training's own result.json,
which it does not touch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tf_dpred.config import refuse
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import files, json_files

_KNOWN = {
    "mode": str,
    "protocol?": (str, float, None),
    "dataset": str,
    "encoder": str,
    "weights?": str,
}
# What pages read of an evaluation that is there, ...
_SHAPE = (
    {**_KNOWN, "top1": float},
    {**_KNOWN, "finetuned": {"top1": float}},
    {**_KNOWN, "verdict": str},
)
# ... and what is printed of one that is not computed again.
_TRAINED = {"learning_rate": float, "top1": float, "top5": float}
_WHOLE = (
    {**_KNOWN, **_TRAINED},
    {**_KNOWN, "k": int, "temperature": float, "top1": float},
    {**_KNOWN, "finetuned": _TRAINED, "from_scratch?": _TRAINED},
)


def path_of(workdir: Path, identity: dict[str, Any]) -> Path:
    """Where an evaluation lies: by `mode`, `protocol`, `dataset` and `encoder`."""
    parts = [identity[name] for name in ("mode", "protocol", "dataset", "encoder")]
    name = "-".join(str(part) for part in parts if part)
    return Workdir(workdir).evaluation / re.sub(r"[^\w.-]+", "_", name) / "result.json"


def write(workdir: Path, result: dict[str, Any]) -> Path:
    """Writes one evaluation in place of an older one of the same name -> its path.

    Raises:
      OSError: it could not be written; the older one is intact.
    """
    path = path_of(workdir, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    json_files.write(path, result)
    return path


def check_can_write(workdir: Path, identity: dict[str, Any]) -> None:
    """Checks, before an evaluation is computed, that it can be written.

    Raises:
      Refused: it cannot.
    """
    path = path_of(workdir, identity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.check_can_write(path)
    except OSError as error:
        refuse(
            "workdir",
            str(workdir),
            "a work directory for the result, of this run or a copy of it",
            detail=f" with {path.parent}, which cannot be written to "
            f"({error.strerror})",
        )


def find(workdir: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The stored result of an evaluation, if it holds everything in `identity`.

    Raises:
      Refused: it is damaged.
    """
    stored = json_files.read(path_of(workdir, identity), _WHOLE)
    if stored is None:
        return None
    same = all(stored.get(name) == value for name, value in identity.items())
    return stored if same else None


def read_all(workdir: Path, flag: str = "workdir") -> list[dict[str, Any]]:
    """All evaluations of a work directory, by name.

    Args:
      workdir: of the run.
      flag: that names it, for the message.

    Raises:
      Refused: one is damaged.
    """
    paths = sorted(Workdir(workdir).evaluation.glob("*/result.json"))
    found = [json_files.read(path, _SHAPE, flag) for path in paths]
    return [result for result in found if result is not None]
