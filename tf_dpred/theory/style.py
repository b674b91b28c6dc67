"""How the figures look: one palette, one page, a caption with the parameters."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito's colours, told apart by all eyes and, by their lightness, in grey.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
DARK, GREY, COLLAPSE = "#222222", "#8a8a8a", "#f3d9d0"
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))

# Any: the keys are of one Literal in Matplotlib 3.11, and str before.
SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "legend.fontsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": DARK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.facecolor": "white",
    # So that the same figure is the same bytes every time.
    "svg.hashsalt": "tf_dpred",
}
DPI, COLORS_OF_PNG = 110, 96
CAPTION_INCHES = 0.19


def panels(
    rows: int, columns: int, *, width: float = 9.6, height: float = 3.0, **kwargs
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, row by row.

    Args:
      width: of the figure, inches.
      height: of a row, inches.
      **kwargs: of `Figure.subplots`.
    """
    # Without pyplot, whose backend and figures are those of the program around this.
    figure = Figure(figsize=(width, rows * height))
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    return figure, list(axes.flat)


def save(figure: Figure, caption: str, path: Path) -> list[Path]:
    """Writes `path`.png and .svg with the caption below the panels.

    Returns:
      The two files.
    """
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(" ".join(caption.split()), int(width * 16.5))
    below = CAPTION_INCHES * len(lines) + 0.1
    figure.set_size_inches(width, height + below)
    share = below / (height + below)
    figure.tight_layout(rect=(0, share, 1, 1))
    figure.text(
        0.015, share - 0.01, "\n".join(lines), va="top", fontsize=8.5, color=DARK
    )
    png, svg = (path.with_suffix(f".{kind}") for kind in ("png", "svg"))
    figure.savefig(svg, metadata={"Date": None})
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # With a palette the file has a third of the bytes and looks the same.
    palette = pixels.quantize(COLORS_OF_PNG, Image.Quantize.MAXCOVERAGE)
    palette.save(png, optimize=True, dpi=(DPI, DPI))
    return [png, svg]
