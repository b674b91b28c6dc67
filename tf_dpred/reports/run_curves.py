"""The curves of several runs in the same axes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.ticker import MaxNLocator

from tf_dpred.theory import style

if TYPE_CHECKING:
    from tf_dpred.reports.page import Run


def svg(runs: Sequence[Run]) -> str:
    """Loss, kNN, view retrieval, feature std, ranks over time, as an SVG file.

    Args:
      runs: each is a line in every panel.
    """
    with matplotlib.rc_context(style.SETTINGS | {"svg.fonttype": "none"}):
        figure, axes = style.panels(2, 3, height=2.6)
        for name, label, panel in (
            ("loss", "loss", axes[0]),
            ("knn", "kNN top-1", axes[1]),
            ("view_top1", "view retrieval top-1", axes[2]),
            ("feature_std", "feature std x sqrt(d)", axes[3]),
            ("lidar", "LiDAR", axes[5]),
        ):
            for index, run in enumerate(runs):
                known = [e for e in run.epochs if name in e]
                x, y = ([e[k] for e in known] for k in ("epoch", name))
                _line(panel, x, y, run.name, index)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_xlabel("epoch")
            panel.set_ylabel(label)
        for index, run in enumerate(runs):
            x, y = ([e[k] for e in run.theory] for k in ("step", "centered_rank"))
            _line(axes[4], x, y, run.name, index)
        axes[4].set_xlabel("optimizer steps")
        axes[4].set_ylabel("directions")
        axes[0].legend()
        figure.tight_layout()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _line(axes, x: list, y: list, label: str, index: int) -> None:
    axes.plot(
        x,
        y,
        color=style.COLORS[index % len(style.COLORS)],
        linestyle=style.STYLES[index // len(style.COLORS) % len(style.STYLES)],
        marker="o" if len(x) < 20 else None,
        markersize=3,
        label=label,
    )
