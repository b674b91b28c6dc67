"""The paper's simulated figures, drawn anew. Needs Matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tf_dpred.theory import curves, portraits, style
from tf_dpred.theory.captions import CAPTIONS

FIGURES: dict[str, Callable[[], Figure]] = {
    "3": portraits.figure3,
    "4": portraits.figure4,
    "5": curves.figure5,
    "7": curves.figure7,
    "8": curves.figure8,
    "9": curves.figure9,
    "10": portraits.figure10,
    "cosine": portraits.figure_cosine,
}


def draw(names: Iterable[str], folder: Path) -> Iterator[Path]:
    """Writes figure<name>.png and .svg.

    Args:
      names: keys of `FIGURES`: the paper's numbers, and `cosine`.
      folder: made if it is missing.

    Returns:
      Each file, once it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with matplotlib.rc_context(style.SETTINGS):
            caption = f"Figure {name}. {CAPTIONS[name]}"
            yield from style.save(FIGURES[name](), caption, folder / f"figure{name}")
