"""Figures 3, 4 and 10, and the cosine loss: where a mode goes from each start."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tf_dpred.theory import basin, cosine, modes
from tf_dpred.theory.levers import Levers
from tf_dpred.theory.style import COLLAPSE, COLORS, DARK, GREY, panels

VARIANCE = 0.03**2
P_RANGE, S_RANGE = (-1.0, 1.5), (0.0, 1.5)
P_LABEL, S_LABEL = "$p_j$ (eigenvalue of $W_p$)", "$s_j$ (eigenvalue of $F$)"


def _shade_basin(axis: Axes, levers: Levers, tau: float) -> None:
    """The starts that collapse."""
    if levers.decay > float(modes.critical_decay(tau, levers.variance)):
        axis.axhspan(*S_RANGE, color=COLLAPSE, lw=0, zorder=0)
        return
    if levers.decay == 0:
        # s - p^2/alpha_p never changes: collapse where it leads to s = 0 before p+.
        p, p_plus = np.linspace(*P_RANGE, 301), tau / levers.curvature
        s = np.where(p < 0, p**2, p**2 - p_plus**2) / levers.predictor_rate
        s = np.where((p < 0) | (p > p_plus), s, 0)
    else:
        p, s = basin.separatrix(levers, tau, p_range=P_RANGE)
        axis.plot(p, s, color=COLORS[5], lw=1.3, label="end of the basin")
    axis.fill_between(p, 0, s, color=COLLAPSE, lw=0, zorder=0)


def _mark_fixed_points(axis: Axes, levers: Levers, tau: float) -> None:
    p_minus, p_plus = (
        float(p) for p in modes.fixed_points(levers.decay, tau, levers.variance)
    )
    if levers.decay == 0:
        axis.plot([p_plus] * 2, S_RANGE, color=DARK, lw=2.2, label="stable")
        for low, high, line in (
            (P_RANGE[0], 0, "-"),
            (0, p_plus, ":"),
            (p_plus, P_RANGE[1], "-"),
        ):
            axis.plot([low, high], [0, 0], line, color=DARK, lw=3, clip_on=False)
        return
    stable = [0.0] if np.isnan(p_plus) else [p_plus, 0.0]
    height = [float(modes.eigenvalue_of_f(p, levers)) for p in stable]
    style: dict[str, Any] = {"ls": "", "color": DARK, "clip_on": False, "zorder": 5}
    axis.plot(stable, height, "o", ms=7, label="stable", **style)
    if not np.isnan(p_minus):
        saddle = float(modes.eigenvalue_of_f(p_minus, levers))
        style = style | {"ms": 6, "mfc": "white", "zorder": 6}
        axis.plot([p_minus], [saddle], "s", label="saddle, $p_-$", **style)


def portrait(axis: Axes, levers: Levers, tau: float = 1.0) -> None:
    """Draws the (p, s) plane of a mode at constant tau (Eqs. 13-14)."""
    p, s = np.meshgrid(np.linspace(*P_RANGE, 41), np.linspace(*S_RANGE, 31))
    dp, ds, _ = modes.velocity(p, s, tau, levers)
    _shade_basin(axis, levers, tau)
    axis.streamplot(
        p, s, dp, ds, color=GREY, density=0.65, linewidth=0.7, arrowsize=0.8
    )
    line = np.linspace(*P_RANGE, 201)
    axis.plot(
        line,
        line**2 / levers.predictor_rate,
        "--",
        color=COLORS[0],
        lw=1.4,
        label=r"$s = p^2/\alpha_p$",
    )
    _mark_fixed_points(axis, levers, tau)
    axis.set(xlim=P_RANGE, ylim=S_RANGE, xlabel=P_LABEL, ylabel=S_LABEL)


def figure3() -> Figure:
    """Phase portraits without, with little and with too much decay."""
    figure, axes = panels(1, 3, height=3.3, sharey=True)
    titles = ("no decay", "weak decay", "above the critical decay")
    for axis, decay, title in zip(axes, (0.0, 0.01, 1.0), titles, strict=True):
        portrait(axis, Levers(decay=decay, variance=VARIANCE))
        axis.set_title(rf"$\eta$ = {decay:g}: {title}")
    for axis in axes[1:]:
        axis.set_ylabel("")
    figure.legend(
        *axes[1].get_legend_handles_labels(), loc="upper center", ncols=4, borderpad=0
    )
    figure.suptitle(" ", fontsize=8)
    return figure


def figure4() -> Figure:
    """dp against p on the parabola, in three regimes of decay."""
    figure, axes = panels(1, 3, height=2.9, sharey=True)
    critical = float(modes.critical_decay(1.0, VARIANCE))
    p = np.linspace(-0.2, 1.15, 400)
    for axis, decay in zip(axes, (0.0, 0.15, 0.35), strict=True):
        moved = modes.velocity_on_parabola(p, decay, 1.0, VARIANCE)
        p_minus, p_plus = (float(x) for x in modes.fixed_points(decay, 1.0, VARIANCE))
        end = 1.15 if np.isnan(p_minus) else p_minus
        axis.axvspan(-0.2, end, color=COLLAPSE, lw=0)
        axis.axhline(0, color=DARK, lw=0.8)
        axis.plot(p, moved, color=COLORS[0])
        style: dict[str, Any] = {"color": DARK, "ms": 7, "zorder": 5, "ls": ""}
        stable = [0.0] if np.isnan(p_plus) else [0.0, p_plus]
        if decay == 0:
            axis.plot([0], [0], "D", mfc="white", label="0: half-stable", **style)
            stable = [p_plus]
        axis.plot(stable, [0] * len(stable), "o", label="stable", **style)
        if decay and not np.isnan(p_minus):
            axis.plot(
                [p_minus], [0], "s", mfc="white", label="unstable, $p_-$", **style
            )
        for place in np.linspace(-0.12, 1.1, 9):
            speed = float(modes.velocity_on_parabola(place, decay, 1.0, VARIANCE))
            if abs(speed) > 4e-3:
                axis.annotate(
                    "",
                    (place + np.sign(speed) * 0.06, -0.235),
                    (place, -0.235),
                    arrowprops={"arrowstyle": "->", "color": GREY},
                )
        where = "" if decay == 0 else (" < " if decay < critical else " > ")
        note = f"{where}{critical:.3f} (critical)" if where else ""
        axis.set(xlim=(-0.2, 1.15), ylim=(-0.26, 0.2), xlabel=P_LABEL)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axis.set_title(rf"$\eta$ = {decay:g}{note}")
        axis.legend(loc="upper left")
    axes[0].set_ylabel(r"$\dot p_j$ (per unit of time)")
    return figure


def figure10() -> Figure:
    """Phase portraits for each lever in turn."""
    figure, axes = panels(3, 3, width=9.6, height=2.75, sharex=True, sharey=True)
    settings = [
        (Levers(0.7, 0.05, variance=VARIANCE), 1.0, r"$\alpha_p$ = .7"),
        (Levers(2.0, 0.05, variance=VARIANCE), 1.0, r"$\alpha_p$ = 2"),
        (Levers(8.0, 0.05, variance=VARIANCE), 1.0, r"$\alpha_p$ = 8"),
        (Levers(1.0, 0.01, variance=VARIANCE), 1.0, r"$\eta$ = .01"),
        (Levers(1.0, 0.1, variance=VARIANCE), 1.0, r"$\eta$ = .1"),
        (Levers(1.0, 0.2, variance=VARIANCE), 1.0, r"$\eta$ = .2"),
        (Levers(1.0, 0.05, variance=VARIANCE), 0.8, r"$\tau$ = .8"),
        (Levers(1.0, 0.05, variance=VARIANCE), 0.6, r"$\tau$ = .6"),
        (Levers(1.0, 0.05, variance=VARIANCE), 0.4, r"$\tau$ = .4"),
    ]
    for axis, (levers, tau, title) in zip(axes, settings, strict=True):
        portrait(axis, levers, tau)
        axis.set_title(title)
        axis.label_outer()
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="upper center", ncols=4, borderpad=0
    )
    figure.suptitle(" ", fontsize=8)
    return figure


def figure_cosine() -> Figure:
    """One mode under the cosine loss, at a decay above critical, while norms fade."""
    figure, (rates, ends) = panels(1, 2, height=3.1)
    decay, p = 0.5, np.linspace(0, 1.0, 400)
    for scale, color in zip((1.2, 0.8, 0.5, 0.35), COLORS, strict=False):
        settings = (scale, scale, 0.0, decay, VARIANCE)
        moved = cosine.velocity_on_parabola(p, *settings)
        rates.plot(p, moved, color=color, label=f"r = {scale:g}")
        for place, face in zip(
            cosine.equilibria(*settings), ("white", DARK), strict=False
        ):
            rates.plot([place], [0], "o", mfc=face, color=DARK, ms=6, zorder=5)
    rates.axhline(0, color=DARK, lw=0.8)
    rates.set(xlim=(0, 0.8), ylim=(-0.35, 0.5), xlabel=P_LABEL)
    rates.set_ylabel(r"$\dot p_j$ (per unit of time)")
    rates.legend(loc="upper left")
    # The scale at which the decay is the critical one: that goes as its power -3/2.
    most = (cosine.critical_decay(1.0, 1.0, VARIANCE) / decay) ** (2 / 3)
    scales = np.linspace(0.05, most * (1 - 1e-6), 300)
    lower, upper = np.transpose(
        [cosine.equilibria(r, r, 0.0, decay, VARIANCE) for r in scales]
    )
    ends.fill_between(scales, 0, lower, color=COLLAPSE, lw=0)
    ends.axvspan(most, 1.2, color=COLLAPSE, lw=0)
    ends.plot(scales, upper, color=COLORS[0], label="stable")
    ends.plot(scales, lower, color=COLORS[0], ls=":", label="unstable")
    ends.set(xlim=(1.2, 0.05), ylim=(0, 0.8), xlabel="norms r", ylabel=P_LABEL)
    ends.legend(loc="upper right")
    return figure
