"""Tables as text: in Markdown, and readable on a console."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 100
"""Columns of a console, which breaks longer lines: a wider table is not padded."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; its columns are aligned if its lines have at most `WIDTH`.

    Args:
      header: names of the columns.
      rows: each has as many cells as the header; a `|` in a cell is escaped.

    Returns:
      Lines without a line break at the end.

    Raises:
      ValueError: a row has more or fewer cells than the header.
    """
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    if len("| | ") + sum(widths) + len(" | ") * (len(widths) - 1) > WIDTH:
        widths = [0 for _ in widths]
    lines.insert(1, ["-" * max(3, width) for width in widths])
    return "\n".join(
        f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines
    )
