"""What evaluations leave in a work directory: evaluation/<which>/result.json.

Beside the pre-training's own result.json, which nothing here touches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write(workdir: Path, result: dict[str, Any]) -> Path:
    """Writes one evaluation; the same one again replaces it.

    Args:
      workdir: made if it does not exist.
      result: with at least `mode`, `protocol`, `dataset` and `encoder`.

    Returns:
      The path of the file.
    """
    parts = [result[name] for name in ("mode", "protocol", "dataset", "encoder")]
    name = re.sub(r"[^\w.-]+", "_", "-".join(str(part) for part in parts if part))
    path = workdir / "evaluation" / name / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(".result.json.tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(path)
    return path


def read_all(workdir: Path) -> list[dict[str, Any]]:
    """All evaluations of a work directory, by name."""
    paths = sorted(workdir.glob("evaluation/*/result.json"))
    return [json.loads(path.read_text()) for path in paths]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table in aligned columns."""
    widths = [max(len(str(cell)) for cell in column) for column in zip(header, *rows)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(str(c).ljust(w) for c, w in zip(line, widths)) + " |"
        for line in lines
    )
