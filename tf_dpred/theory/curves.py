"""Figures 5, 7, 8 and 9: trajectories of modes and of random matrices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tf_dpred.theory import flow, modes
from tf_dpred.theory.levers import Levers
from tf_dpred.theory.style import COLORS, STYLES, panels

LEARNING_RATE = 0.01  # time per step, for the axes
STD = 0.03  # sigma
N1, N2, RUNS = 12, 8, 10
STEPS_LABEL = "steps (time / .01)"


def _looks() -> Iterator[dict]:
    """A colour and a line style for each curve."""
    for color, style in zip(COLORS, STYLES, strict=False):
        yield {"color": color, "ls": style}


def _random_start(seed: int) -> flow.State:
    """W_p, W and W_a = 0 of one run: uniform, as linear layers start."""
    rng = np.random.default_rng(seed)
    w_p = rng.uniform(-1, 1, (N2, N2)) / np.sqrt(N2)
    return w_p, rng.normal(size=(N2, N1)) / np.sqrt(N1), np.zeros((N2, N1))


def _runs(levers: Levers, times: np.ndarray) -> flow.State:
    """Lemma 1 with X = I, X' = sigma^2 I from ten starts, each [run, t, ...]."""
    rule = flow.with_target(np.eye(N1), STD**2 * np.eye(N1), levers)
    runs = [
        flow.integrate(rule, _random_start(seed), times, rtol=1e-8, atol=1e-11)
        for seed in range(RUNS)
    ]
    return tuple(np.stack(matrices) for matrices in zip(*runs, strict=True))


def _band(axis: Axes, steps: np.ndarray, runs: np.ndarray, label: str, **look) -> None:
    """The mean over runs [run, t], and a standard deviation to each side."""
    mean, std = runs.mean(axis=0), runs.std(axis=0)
    axis.plot(steps, mean, label=label, **look)
    axis.fill_between(
        steps, mean - std, mean + std, color=look["color"], alpha=0.18, lw=0
    )


def _modes_row(axes: list[Axes], settings: list[tuple[str, Levers]], time: float):
    times = np.linspace(0, time, 400)
    for (label, levers), look in zip(settings, _looks(), strict=False):
        tau = 1.0 if levers.ema_rate is None else 0.0
        solved = flow.integrate(modes.flow(levers), (0.3, 0.2, tau), times)
        for axis, values in zip(axes, solved, strict=True):
            axis.plot(times / LEARNING_RATE, values, label=label, **look)
    for axis, name in zip(axes, ("$p_j$", "$s_j$", r"$\tau$"), strict=True):
        axis.set(ylabel=name, xlabel=STEPS_LABEL, xlim=(0, time / LEARNING_RATE))
        axis.set_ylim(bottom=0)


def figure5() -> Figure:
    """p, s and tau over training, for several decays and several EMA rates."""
    figure, axes = panels(2, 3, height=2.5)

    def levers(**given) -> Levers:
        return Levers(1.5, variance=STD**2, **{"decay": 0.04, "ema_rate": 0.4} | given)

    _modes_row(
        axes[:3],
        [
            (rf"$\eta$ = {decay:g}", levers(decay=decay))
            for decay in (0.0, 0.01, 0.04, 0.1, 0.3)
        ],
        60.0,
    )
    with_ema = [
        (f"{rate:g} ({1 - LEARNING_RATE * rate:g})", levers(ema_rate=rate))
        for rate in (4.0, 0.4, 0.1, 0.04)
    ]
    _modes_row(axes[3:], [("no EMA", levers(ema_rate=None)), *with_ema], 100.0)
    axes[1].set_title(r"decay varies, $\beta$ = .4")
    axes[4].set_title(r"$\beta$ (EMA momentum) varies, $\eta$ = .04")
    axes[0].legend(loc="center right")
    axes[3].legend(loc="lower right")
    return figure


def figure7() -> Figure:
    """How nearly W_a is a multiple of W."""
    figure, axes = panels(1, 2, height=3.0)
    times = np.linspace(0.02, 40, 300)
    for decay, look in zip((0.0, 0.01, 0.1), _looks(), strict=False):
        levers = Levers(decay=decay, ema_rate=0.4)
        start = np.concatenate([[0.0], times])
        _, w, w_a = (m[:, 1:] for m in _runs(levers, start))
        inner = np.sum(w * w_a, axis=(2, 3))
        squares = np.sum(w**2, axis=(2, 3))
        norms = np.sqrt(squares * np.sum(w_a**2, axis=(2, 3)))
        label, steps = rf"$\eta$ = {decay:g}", times / LEARNING_RATE
        _band(axes[0], steps, inner / norms, label, **look)
        _band(axes[1], steps, inner / squares, label, **look)
    for axis in axes:
        axis.set(xlabel=STEPS_LABEL, xlim=(0, times[-1] / LEARNING_RATE))
        axis.legend(loc="lower right")
    axes[0].set(ylabel="correlation of $W_a$ and $W$", ylim=(0.98, 1.0005))
    axes[1].set(ylabel=r"$\tau = \langle W_a, W\rangle / |W|^2$", ylim=(0, None))
    return figure


def figure8() -> Figure:
    """The symmetric and the antisymmetric part of W_p."""
    figure, axes = panels(1, 3, height=3.0, sharey=True)
    times = np.linspace(0, 100, 300)
    for axis, decay in zip(axes, (0.001, 0.01, 0.05), strict=True):
        w_p = _runs(Levers(decay=decay, ema_rate=0.4), times)[0]
        turned = np.swapaxes(w_p, 2, 3)
        looks = _looks()
        for part, name in (
            ((w_p + turned) / 2, "symmetric part"),
            ((w_p - turned) / 2, "antisymmetric part"),
        ):
            norms = np.linalg.norm(part, axis=(2, 3))
            _band(axis, times / LEARNING_RATE, norms, name, **next(looks))
        axis.set(xlabel=STEPS_LABEL, xlim=(0, 1e4), ylim=(0, None))
        axis.set_title(rf"$\eta$ = {decay:g}")
    axes[0].set_ylabel("Frobenius norm")
    axes[0].legend(loc="center right")
    return figure


def figure9() -> Figure:
    """The commutator of F and W_p for several tau and several decays."""
    figure, axes = panels(1, 2, height=3.1, sharey=True)
    times = np.linspace(0, 30, 400)
    rows = (
        [(rf"$\tau$ = {tau:g}", 0.04, tau) for tau in (1.0, 0.8, 0.6, 0.4)],
        [(rf"$\eta$ = {decay:g}", decay, 1.0) for decay in (0.0, 0.01, 0.04, 0.1)],
    )
    for axis, settings in zip(axes, rows, strict=True):
        for (label, decay, tau), look in zip(settings, _looks(), strict=False):
            levers = Levers(decay=decay, variance=STD**2)
            norms = []
            for seed in range(RUNS):
                w_p, w, _ = _random_start(seed)
                start = ((w_p + w_p.T) / 2, 0.1 * w @ w.T)
                states = flow.integrate(
                    flow.isotropic(levers, tau), start, times, rtol=1e-9, atol=1e-13
                )
                c = flow.commutator(states[1], states[0])
                norm = np.linalg.norm(c, axis=(1, 2))
                norms.append(norm / norm[0])
            mean = np.exp(np.mean(np.log(norms), axis=0))
            axis.semilogy(times / LEARNING_RATE, mean, label=label, **look)
        axis.set(xlabel=STEPS_LABEL, xlim=(0, times[-1] / LEARNING_RATE))
        axis.legend(loc="lower left")
    axes[0].set(ylabel="$|[F, W_p](t)| \\,/\\, |[F, W_p](0)|$", ylim=(1e-7, 3))
    axes[0].set_title(r"$\tau$ varies, $\eta$ = .04")
    axes[1].set_title(r"decay varies, $\tau$ = 1")
    return figure
