"""The cosine loss: flows whose decay makes their own equilibria.

With X = I, X' = sigma^2 I and many dimensions, the lengths of predictions and targets
hardly differ between images: |W_p W x|^2 is near (1+sigma^2) N_p^2, N_p = |W_p W|, and
|W x|^2 near (1+sigma^2) N_a^2, N_a = |W| (Frobenius norms). The loss -cos is then

    J = -T / ((1+sigma^2) N_p N_a),   T = tr(W^T W_p W)

in the place of the mse loss of `flow` and `modes`, without EMA, the target and its
length held fixed by the stop-gradient. It is the approach of Bao (arXiv 2309.16109);
the equations are derived here, in the names of `modes`. A mode's equation on the
parabola is of order six, where that of the mse loss is of order three.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tf_dpred.theory.flow import Flow, State
from tf_dpred.theory.levers import Levers


def norms(p: ArrayLike, s: ArrayLike) -> tuple[float, float, float]:
    """N_p, N_a and T of modes p, s, [m]: the roots of sum p^2 s, of sum s; sum p s."""
    p, s = np.asarray(p, float), np.asarray(s, float)
    return float(np.sqrt(p**2 @ s)), float(np.sqrt(np.sum(s))), float(p @ s)


def velocity(
    p: ArrayLike, s: ArrayLike, levers: Levers
) -> tuple[np.ndarray, np.ndarray]:
    """How the modes move; each depends on all, by the norms.

        dp = alpha_p r s (1 - g p) - eta_p p
        ds = 2 r p s (1 - g p) - 2 eta s
        r = 1/((1+sigma^2) N_p N_a),   g = T/N_p^2

    Without decay |W_p|^2 = sum p^2 and |W|^2 = sum s never change; with it they fade as
    e^{-2 eta t}, r grows, and no decay is too much for the ratios of the modes.

    Args:
      p, s: [m], some s above 0.
      levers: `ema_rate` is not read.

    Returns:
      dp, ds.
    """
    p, s = np.asarray(p, float), np.asarray(s, float)
    n_p, n_a, t = norms(p, s)
    drive = (1 - t / n_p**2 * p) / (levers.curvature * n_p * n_a)
    dp = levers.predictor_rate * s * drive - levers.decay_of_predictor * p
    return dp, 2 * p * s * drive - 2 * levers.decay * s


def modes_flow(levers: Levers) -> Flow:
    """`velocity` as a flow of (p, s), [m] each, for `flow.integrate`."""
    return lambda state: velocity(state[0], state[1], levers)


def simsiam(levers: Levers, *, symmetric: bool = False) -> Flow:
    """The flow of the matrices W_p [n2, n2] and W [n2, n1], as `flow.simsiam`.

    Args:
      levers: `ema_rate` is not read.
      symmetric: keep W_p symmetric: only the symmetric part of its gradient counts.
    """

    def flow(state: State) -> State:
        w_p, w = state
        predicted = w_p @ w
        n_p, n_a = np.linalg.norm(predicted), np.linalg.norm(w)
        t = np.sum(w * predicted)
        error = (w - t / n_p**2 * predicted) / (levers.curvature * n_p * n_a)
        gradient = error @ w.T
        if symmetric:
            gradient = (gradient + gradient.T) / 2
        return (
            levers.predictor_rate * gradient - levers.decay_of_predictor * w_p,
            w_p.T @ error - levers.decay * w,
        )

    return flow


def velocity_on_parabola(
    p: ArrayLike,
    n_p: float,
    n_a: float,
    others: float,
    decay: float,
    variance: float = 0.0,
) -> np.ndarray:
    """dp of one mode where s = p^2 (alpha_p = 1), the norms given: order six in p.

        dp = [p^2 - (C + p^3) p^3/N_p^2] / ((1+sigma^2) N_p N_a) - eta p

    Args:
      p: any shape.
      n_p, n_a: N_p and N_a, above 0.
      others: C, the sum of p^3 over the other modes.
      decay, variance: eta and sigma^2.
    """
    p = np.asarray(p, float)
    drive = p**2 - (others + p**3) * p**3 / n_p**2
    return drive / ((1 + variance) * n_p * n_a) - decay * p


def equilibria(
    n_p: float, n_a: float, others: float, decay: float, variance: float = 0.0
) -> np.ndarray:
    """The p > 0 at which `velocity_on_parabola` is 0, increasing: none, or two.

    The lower one is unstable and bounds the basin of collapse, the upper one stable.
    """
    rate = 1 / ((1 + variance) * n_p * n_a)
    roots = np.roots([-rate / n_p**2, 0, 0, -rate * others / n_p**2, rate, -decay])
    real = np.real(roots[np.abs(np.imag(roots)) < 1e-9 * np.abs(roots)])
    return np.sort(real[real > 0])


def critical_decay(n_p: float, n_a: float, variance: float = 0.0) -> float:
    """The eta above which a mode without others (C = 0) has no equilibrium but 0.

    4/5 5^(-1/4) / ((1+sigma^2) N_p^(1/2) N_a): it grows as the norms fade. With the mse
    loss it is 1/(4 (1+sigma^2)), whatever the norms.
    """
    return 0.8 * 5**-0.25 / ((1 + variance) * n_p**0.5 * n_a)
