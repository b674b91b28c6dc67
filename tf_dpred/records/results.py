"""What evaluations leave in a work directory: evaluation/<which>/result.json.

Beside the pre-training's own result.json, which nothing here touches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def path_of(workdir: Path, identity: dict[str, Any]) -> Path:
    """Where an evaluation lies: by `mode`, `protocol`, `dataset` and `encoder`."""
    parts = [identity[name] for name in ("mode", "protocol", "dataset", "encoder")]
    name = "-".join(str(part) for part in parts if part)
    return workdir / "evaluation" / re.sub(r"[^\w.-]+", "_", name) / "result.json"


def write(workdir: Path, result: dict[str, Any]) -> Path:
    """Writes one evaluation in place of an older one of the same name -> its path."""
    path = path_of(workdir, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(".result.json.tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(path)
    return path


def find(workdir: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The stored result of an evaluation, if it agrees in all of `identity`."""
    path = path_of(workdir, identity)
    stored = json.loads(path.read_text()) if path.exists() else {}
    same = all(stored.get(name) == value for name, value in identity.items())
    return stored if same else None


def read_all(workdir: Path) -> list[dict[str, Any]]:
    """All evaluations of a work directory, by name."""
    paths = sorted(workdir.glob("evaluation/*/result.json"))
    return [json.loads(path.read_text()) for path in paths]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table in aligned columns."""
    columns = zip(header, *rows, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines
    )
