"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tf_dpred.system import markdown


@dataclass
class Table:
    """What one part found.

    Attributes:
      title: of the table.
      header: names of the columns.
      rows: cells: text, or numbers, of which three digits are shown.
      notes: lines below the table.
      values: every value that was measured, for the JSON file.
    """

    title: str
    header: Sequence[str]
    rows: list[Sequence[Any]]
    notes: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        rows = [[text(cell) for cell in row] for row in self.rows]
        parts = [f"### {self.title}", markdown.table(self.header, rows), *self.notes]
        return "\n\n".join(parts)


def text(cell: Any) -> str:
    """A cell; a number with three significant digits."""
    if isinstance(cell, str):
        return cell
    if cell is None:
        return ""
    if abs(cell) >= 1000:
        return f"{round(cell, -max(len(str(int(abs(cell)))) - 4, 0)):,.0f}"
    if cell and abs(cell) < 0.01:
        return f"{cell:.1e}"
    return f"{cell:.3g}"
