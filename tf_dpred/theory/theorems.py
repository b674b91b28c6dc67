"""Theorems 1 to 3 and the closed forms of a mode, predicted and simulated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.linalg import expm

from tf_dpred.theory import basin, flow, modes
from tf_dpred.theory.comparison import Comparison
from tf_dpred.theory.levers import Levers

N1, N2 = 6, 4


def random_moments(
    rng: np.random.Generator, n1: int = N1
) -> tuple[np.ndarray, np.ndarray]:
    """X and X', [n1, n1] random covariances; X' is about a third of X."""
    x, x_aug = (rng.normal(size=(n1, 2 * n1)) for _ in range(2))
    return x @ x.T / (2 * n1), x_aug @ x_aug.T / (6 * n1)


def random_weights(
    rng: np.random.Generator, n1: int = N1, n2: int = N2
) -> tuple[np.ndarray, np.ndarray]:
    """W_p [n2, n2] and W [n2, n1], normal with variance 1/4."""
    return rng.normal(0, 0.5, (n2, n2)), rng.normal(0, 0.5, (n2, n1))


def symmetric_pair(
    rng: np.random.Generator, n2: int = N2
) -> tuple[np.ndarray, np.ndarray]:
    """W_p and F, [n2, n2] positive definite, that do not commute."""
    a, b = (rng.normal(size=(n2, 2 * n2)) for _ in range(2))
    return a @ a.T / (4 * n2), b @ b.T / (2 * n2)


def theorem1(seed: int = 0) -> Iterator[Comparison]:
    """W W^T - W_p^T W_p / alpha_p = e^{-2 eta t} C, for any X and X'."""
    rng = np.random.default_rng(seed)
    moments, (w_p, w) = random_moments(rng), random_weights(rng)
    time = 20.0
    start: flow.State
    for name, ema_rate in (("beta .4", 0.4), ("SimSiam", None)):
        levers = Levers(predictor_rate=2.5, decay=0.05, ema_rate=ema_rate)
        if ema_rate is None:
            start, rule = (w_p, w), flow.simsiam(*moments, levers)
        else:
            start = (w_p, w, np.zeros_like(w))
            rule = flow.with_target(*moments, levers)
        state = flow.integrate(rule, start, [0, time])
        c = flow.conserved(state[0], state[1], levers.predictor_rate)
        expected = np.exp(-2 * levers.decay * time) * c[0]
        setting = f"random X, X'; alpha_p 2.5, eta .05, {name}, t = 20"
        yield Comparison(
            "Theorem 1",
            f"norm of W W^T - W_p^T W_p/alpha_p ({setting})",
            float(np.linalg.norm(expected)),
            float(np.linalg.norm(c[1])),
            tolerance=1e-9,
        )
        yield Comparison(
            "Theorem 1",
            f"largest error of an entry ({setting})",
            0.0,
            float(np.abs(c[1] - expected).max()),
            tolerance=1e-9,
        )


def theorem2(seed: int = 0) -> Iterator[Comparison]:
    """Without stop-gradient, or without predictor, W goes to 0."""
    rng = np.random.default_rng(seed)
    (x, x_aug), (w_p, w) = random_moments(rng), random_weights(rng)
    levers, end = Levers(decay=0.01), 20.0
    times = np.linspace(0, end, 401)
    w_p_t, w_t = flow.integrate(
        flow.no_stop_gradient(x, x_aug, levers), (w_p, w), times
    )
    smallest = min(
        np.linalg.eigvalsh(flow.collapse_matrix(m, x, x_aug, levers.decay))[0]
        for m in w_p_t
    )
    yield Comparison(
        "Theorem 2",
        "norm of W, below e^{-l0 t} of its start, l0 the least eigenvalue of H on the "
        "way (no stop-gradient; random X, X'; eta .01, t = 20)",
        float(np.exp(-smallest * end) * np.linalg.norm(w)),
        float(np.linalg.norm(w_t[-1])),
        "<",
    )
    (kept,) = flow.integrate(flow.no_predictor(x_aug, levers), (w,), [0, end])
    exact = w @ expm(-end * (x_aug + levers.decay * np.eye(len(x))))
    yield Comparison(
        "Theorem 2",
        "norm of W = W(0) e^{-(X' + eta) t} (no predictor; the same)",
        float(np.linalg.norm(exact)),
        float(np.linalg.norm(kept[1])),
        tolerance=1e-9,
    )


def theorem3(seed: int = 0) -> Iterator[Comparison]:
    """The commutator of F and W_p decays, with equal and with separate decays."""
    w_p, f = symmetric_pair(np.random.default_rng(seed))
    for name, decay, decay_p in (
        ("eta .1", 0.1, None),
        ("eta .02, eta_p .2", 0.02, 0.2),
    ):
        levers = Levers(decay=decay, predictor_decay=decay_p, variance=0.5)
        times = np.linspace(0, 10, 401)
        w_p_t, f_t = flow.integrate(flow.isotropic(levers), (w_p, f), times)
        k = flow.alignment_matrix(w_p_t, f_t, levers)
        smallest = float(np.linalg.eigvalsh(k).min())
        norms = np.linalg.norm(flow.commutator(f_t, w_p_t), axis=(1, 2))
        yield Comparison(
            "Theorem 3",
            f"norm of [F, W_p], below e^{{-2 l0 t}} of its start, l0 = {smallest:.4f} "
            f"the least eigenvalue of K on the way ({name}, sigma^2 .5, t = 10)",
            float(np.exp(-2 * smallest * times[-1]) * norms[0]),
            float(norms[-1]),
            "<",
        )


def closed_forms() -> Iterator[Comparison]:
    """Fixed points, basin, critical decay, invariant and travel time of a mode."""
    levers = Levers(decay=0.05, variance=0.5)
    p_minus, p_plus = (float(p) for p in modes.fixed_points(0.05, 1.0, 0.5))
    setting = "sigma^2 .5, tau 1, eta .05"
    rule = modes.flow_at_constant_tau(levers, 1.0)
    for factor, expected in ((0.98, 0.0), (1.02, p_plus)):
        start = factor * p_minus
        p, _ = flow.integrate(rule, (start, start**2), [0, 2000])
        yield Comparison(
            "Fixed points",
            f"p at the end, from {factor} p- ({setting})",
            expected,
            float(p[-1]),
            tolerance=1e-9,
        )
    yield Comparison(
        "Basin",
        f"p- ({setting})",
        p_minus,
        basin.simulated_boundary(levers),
        tolerance=1e-6,
    )
    times = np.array([0, 40.0])
    levers = Levers(predictor_rate=1.5, decay=0.04, ema_rate=0.4, variance=0.03**2)
    p, s, _ = flow.integrate(modes.flow(levers), (0.3, 0.2, 0.0), times)
    yield Comparison(
        "Invariant",
        "s - p^2/alpha_p (alpha_p 1.5, beta .4, eta .04, sigma .03, t = 40)",
        float(modes.invariant(0.3, 0.2, levers) * np.exp(-0.08 * times[-1])),
        float(s[-1] - p[-1] ** 2 / 1.5),
        tolerance=1e-12,
    )
    levers = Levers(decay=0.05, variance=0.5)
    end = modes.travel_time(0.06, 0.5, 0.05, 1.0, 0.5)
    p, _ = flow.integrate(rule, (0.06, 0.06**2), [0, end])
    yield Comparison(
        "Travel time",
        f"p after t = {end:.4f}, which takes it from .06 to .5 ({setting})",
        0.5,
        float(p[-1]),
        tolerance=1e-9,
    )


def all_comparisons() -> Iterator[Comparison]:
    """Everything above."""
    for rows in (theorem1, theorem2, theorem3, closed_forms):
        yield from rows()
