"""A run's spectra and alignment as one picture, after the paper's Figure 2."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from tf_dpred.theory import measures, style

MODES = 32  # drawn; more could hardly be told apart


def draw(entries: list[dict], path: Path, title: str = "") -> list[Path]:
    """Writes `path`.png and .svg.

    Left: the eigenvalues of F over time, above those of W. Middle: the cosine between
    u_j and W u_j. Right: p_j against s_j at the last measurement, with the fit
    p = c s^e. A run whose predictor is not a matrix has the eigenvalues of F alone.

    Args:
      entries: lines of theory.jsonl, at least one.
      path: without suffix.
      title: stands before the caption.

    Returns:
      The two files.
    """
    steps = np.array([entry["step"] for entry in entries])
    with matplotlib.rc_context(style.SETTINGS):
        if "p" not in entries[-1]:
            figure, (axes,) = style.panels(1, 1, width=5.0)
            _modes(axes, steps, entries, "eigenvalues", "eigenvalues of F", log=True)
        else:
            figure, panels = style.panels(2, 2)
            _modes(panels[0], steps, entries, "eigenvalues", "of F, s_j", log=True)
            _modes(panels[2], steps, entries, "eigenvalues_w", "of W, symmetric part")
            _modes(panels[1], steps, entries, "cosine", "cosine of u_j and W u_j")
            panels[1].set_ylim(bottom=max(panels[1].get_ylim()[0], -1.05), top=1.05)
            _relation(panels[3], entries[-1])
        d = len(entries[-1]["eigenvalues"])
        caption = (
            f"{title} Step {steps[-1]}, d = {d}; the {min(d, MODES)} largest modes, "
            "the largest darkest."
        )
        return style.save(figure, caption.strip(), path)


def _modes(axes, steps, entries, name: str, label: str, *, log: bool = False) -> None:
    values = np.array([entry[name][:MODES] for entry in entries])
    count = values.shape[1]
    marker = "o" if len(steps) < 3 else None
    for j in range(count - 1, -1, -1):
        shade = matplotlib.colormaps["viridis"](0.9 * j / max(count - 1, 1))
        y = values[:, j]
        if log:
            y = np.where(y > 0, y, np.nan)
        axes.plot(steps, y, color=shade, linewidth=1.0, marker=marker, markersize=3)
    if log:
        axes.set_yscale("log")
    if name.startswith("eigenvalues"):
        label = label if label.startswith("eigen") else f"eigenvalues {label}"
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(label)


def _relation(axes, last: dict) -> None:
    s, p = np.array(last["eigenvalues"]), np.array(last["p"])
    used = (s > measures.SMALLEST * s.max()) & (p > 0)
    axes.scatter(s[used], p[used], s=12, color=style.COLORS[0], label="modes")
    if last["exponent"] is not None:
        e = last["exponent"]
        c = np.exp(np.mean(np.log(p[used]) - e * np.log(s[used])))
        line = np.geomspace(s[used].min(), s[used].max(), 50)
        axes.plot(line, c * line**e, color=style.COLORS[5], label=f"fit: s^{e:.2f}")
        half = np.exp(np.mean(np.log(p[used]) - 0.5 * np.log(s[used])))
        axes.plot(line, half * line**0.5, "--", color=style.GREY, label="s^0.5")
    if used.any():
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set_xlabel("eigenvalue of F, s_j")
    axes.set_ylabel("p_j = u_j W u_j")
    axes.legend()
