"""result.json: the last metrics of a run, and of each evaluation of its encoder.

An evaluation lies in evaluation/<which>/, beside the pre-training's own result.json,
which it does not touch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tf_dpred.records.workdir import Workdir
from tf_dpred.system import json_files


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


def find(workdir: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The stored result of an evaluation, if it holds everything in `identity`."""
    stored = json_files.read(path_of(workdir, identity))
    same = all(stored.get(name) == value for name, value in identity.items())
    return stored if same else None


def read_all(workdir: Path) -> list[dict[str, Any]]:
    """All evaluations of a work directory, by name."""
    paths = sorted(Workdir(workdir).evaluation.glob("*/result.json"))
    return [json_files.read(path) for path in paths]
