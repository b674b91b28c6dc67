"""The matrix flows of linear networks, and the solver of every flow.

W [n2, n1] is the online network, W_p [n2, n2] the predictor, W_a [n2, n1] the target; X
[n1, n1] is E[xbar xbar^T] over images and X' [n1, n1] the mean covariance of the
augmentations of one image. A flow is a function from a state, a tuple of arrays, to its
time derivative of the same shapes; those here are made by a factory and solved by
`integrate`. Source: arXiv 2102.06810, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from tf_dpred.theory.levers import Levers

State = tuple[np.ndarray, ...]
Flow = Callable[[State], State]

# Relative and absolute error of one step of the solver.
RTOL, ATOL = 1e-12, 1e-14


def integrate(
    flow: Flow,
    start: tuple[ArrayLike, ...],
    times: ArrayLike,
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
) -> State:
    """Solves d state/dt = flow(state) in float64, Dormand-Prince of order 8.

    Args:
      flow: state -> derivative.
      start: the state at times[0].
      times: [t] increasing or decreasing.
      rtol, atol: error of one step, as of `scipy.integrate.solve_ivp`.

    Returns:
      The state at each time, each array with a leading axis [t].

    Raises:
      ValueError: fewer than two times, or not in order.
      FloatingPointError: the state became infinite.
    """
    times = np.asarray(times, float)
    steps = np.diff(np.atleast_1d(times))
    if not len(steps) or not (np.all(steps > 0) or np.all(steps < 0)):
        raise ValueError(
            f"Invalid times: received shape {times.shape}, accepted: at least two, "
            "increasing or decreasing."
        )
    arrays = [np.asarray(a, float) for a in start]
    shapes = [a.shape for a in arrays]
    ends = np.cumsum([a.size for a in arrays])[:-1]

    def unpack(vector: np.ndarray) -> State:
        parts = np.split(vector, ends, axis=-1)
        lead = vector.shape[:-1]
        return tuple(
            a.reshape(lead + shape) for a, shape in zip(parts, shapes, strict=True)
        )

    def derivative(_: float, vector: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ravel(a) for a in flow(unpack(vector))])

    solution = solve_ivp(
        derivative,
        (times[0], times[-1]),
        np.concatenate([np.ravel(a) for a in arrays]),
        method="DOP853",
        t_eval=times,
        rtol=rtol,
        atol=atol,
    )
    if not solution.success or not np.all(np.isfinite(solution.y)):
        raise FloatingPointError(
            f"integrate: the solver stopped before time {times[-1]}: {solution.message}"
        )
    return unpack(solution.y.T)


def _symmetric_part(a: np.ndarray) -> np.ndarray:
    return (a + a.T) / 2


def _bootstrap(
    w_p: np.ndarray,
    w: np.ndarray,
    w_a: np.ndarray,
    x: np.ndarray,
    x_aug: np.ndarray,
    levers: Levers,
    symmetric: bool,
) -> State:
    """dW_p and dW of Lemma 1."""
    error = -w_p @ w @ (x + x_aug) + w_a @ x
    gradient = error @ w.T
    if symmetric:
        gradient = _symmetric_part(gradient)
    return (
        levers.predictor_rate * gradient - levers.decay_of_predictor * w_p,
        w_p.T @ error - levers.decay * w,
    )


def with_target(
    x: ArrayLike, x_aug: ArrayLike, levers: Levers, *, symmetric: bool = False
) -> Flow:
    """Lemma 1: a predictor, stop-gradient and a target that follows.

        E = -W_p W (X + X') + W_a X
        dW_p = alpha_p E W^T - eta_p W_p
        dW = W_p^T E - eta W
        dW_a = beta (W - W_a)

    Args:
      x, x_aug: X and X', [n1, n1] symmetric.
      levers: with an `ema_rate`.
      symmetric: W_p is kept symmetric: its gradient counts with its symmetric part.

    Returns:
      Flow of (W_p, W, W_a).

    Raises:
      ValueError: no `ema_rate`.
    """
    if levers.ema_rate is None:
        raise ValueError(
            "with_target: received levers without ema_rate, accepted: above 0."
        )
    x, x_aug = np.asarray(x, float), np.asarray(x_aug, float)

    def flow(state: State) -> State:
        w_p, w, w_a = state
        rates = _bootstrap(w_p, w, w_a, x, x_aug, levers, symmetric)
        return *rates, levers.ema_rate * (w - w_a)

    return flow


def simsiam(
    x: ArrayLike, x_aug: ArrayLike, levers: Levers, *, symmetric: bool = False
) -> Flow:
    """Lemma 1 with W_a = W: the target is the online network, stop-gradient kept.

    Args:
      x, x_aug: X and X', [n1, n1] symmetric.
      levers: `ema_rate` is not read.
      symmetric: keep W_p symmetric: only the symmetric part of its gradient counts.

    Returns:
      Flow of (W_p, W).
    """
    x, x_aug = np.asarray(x, float), np.asarray(x_aug, float)

    def flow(state: State) -> State:
        w_p, w = state
        return _bootstrap(w_p, w, w, x, x_aug, levers, symmetric)

    return flow


def no_stop_gradient(x: ArrayLike, x_aug: ArrayLike, levers: Levers) -> Flow:
    """W_a = W without stop-gradient, which collapses (Theorem 2).

    dW = -(W_p^T W_p + I) W X' - (W_p - I)^T (W_p - I) W X - eta W; dW_p as in Lemma 1.

    Args:
      x, x_aug: X and X', [n1, n1] symmetric.
      levers: `ema_rate` is not read.

    Returns:
      Flow of (W_p, W).
    """
    x, x_aug = np.asarray(x, float), np.asarray(x_aug, float)

    def flow(state: State) -> State:
        w_p, w = state
        d_w_p, _ = _bootstrap(w_p, w, w, x, x_aug, levers, symmetric=False)
        identity = np.eye(len(w_p))
        away = w_p - identity
        d_w = -(w_p.T @ w_p + identity) @ w @ x_aug - away.T @ away @ w @ x
        return d_w_p, d_w - levers.decay * w

    return flow


def no_predictor(x_aug: ArrayLike, levers: Levers) -> Flow:
    """W_p = I and W_a = W: dW = -W (X' + eta I), which collapses (Theorem 2).

    Args:
      x_aug: X', [n1, n1] symmetric.
      levers: only `decay` is read.

    Returns:
      Flow of (W,).
    """
    x_aug = np.asarray(x_aug, float)
    return lambda state: (-state[0] @ x_aug - levers.decay * state[0],)


def isotropic(levers: Levers, tau: float = 1.0) -> Flow:
    """X = I, X' = sigma^2 I, W_a = tau W and W_p symmetric: a flow of W_p and F.

    With F = W W^T and {A, B} = AB + BA (Eqs. 11-12):

        dW_p = -(alpha_p/2)(1+sigma^2) {W_p, F} + alpha_p tau F - eta_p W_p
        dF = -(1+sigma^2) {W_p^2, F} + tau {W_p, F} - 2 eta F

    For tau = 1 it is exactly `simsiam(..., symmetric=True)`.

    Args:
      levers: `ema_rate` is not read.
      tau: constant.

    Returns:
      Flow of (W_p, F), each [n2, n2] symmetric.
    """
    kappa, alpha = levers.curvature, levers.predictor_rate

    def flow(state: State) -> State:
        w_p, f = state
        both = w_p @ f
        both = both + both.T
        squared = w_p @ w_p @ f
        squared = squared + squared.T
        return (
            alpha * (tau * f - kappa / 2 * both) - levers.decay_of_predictor * w_p,
            tau * both - kappa * squared - 2 * levers.decay * f,
        )

    return flow


def from_modes(
    p: ArrayLike,
    s: ArrayLike,
    tau: ArrayLike = 1.0,
    u: np.ndarray | None = None,
    v: np.ndarray | None = None,
) -> State:
    """Weights that are aligned: W_p = U diag(p) U^T, W = U diag(sqrt s) V^T, W_a = ...

    Args:
      p, s, tau: [n2] or scalars; W_a is W with mode j scaled by tau_j.
      u: [n2, n2] orthogonal; None: the identity.
      v: [n1, n2] with orthonormal columns; None: the identity.

    Returns:
      W_p [n2, n2], W [n2, n1], W_a [n2, n1].
    """
    p, s, tau = np.broadcast_arrays(*(np.atleast_1d(a) for a in (p, s, tau)))
    u = np.eye(len(p)) if u is None else u
    v = np.eye(len(p)) if v is None else v
    w = np.sqrt(s)
    return (u * p) @ u.T, (u * w) @ v.T, (u * (tau * w)) @ v.T


def conserved(w_p: np.ndarray, w: np.ndarray, predictor_rate: float) -> np.ndarray:
    """W W^T - W_p^T W_p / alpha_p, which is e^{-2 eta t} C (Theorem 1).

    With equal decays, for `with_target` and `simsiam` with a free predictor.

    Args:
      w_p, w: [..., n2, n2] and [..., n2, n1].

    Returns:
      [..., n2, n2] symmetric.
    """
    return w @ np.swapaxes(w, -1, -2) - np.swapaxes(w_p, -1, -2) @ w_p / predictor_rate


def collapse_matrix(
    w_p: np.ndarray, x: ArrayLike, x_aug: ArrayLike, decay: float
) -> np.ndarray:
    """H = X' kron (W_p^T W_p + I) + X kron (W_p - I)^T (W_p - I) + eta I (Theorem 2).

    Without stop-gradient d vec W = -H vec W, vec stacking columns.

    Args:
      w_p: [n2, n2].
      x, x_aug: X and X', [n1, n1].
      decay: eta.

    Returns:
      [n1 n2, n1 n2] symmetric; its eigenvalues are at least eta + lambda_min(X').
    """
    x, x_aug = np.asarray(x, float), np.asarray(x_aug, float)
    identity = np.eye(len(w_p))
    away = w_p - identity
    h = np.kron(x_aug, w_p.T @ w_p + identity) + np.kron(x, away.T @ away)
    return h + decay * np.eye(len(h))


def commutator(f: np.ndarray, w_p: np.ndarray) -> np.ndarray:
    """L = [F, W_p] = F W_p - W_p F, 0 where they share their eigenvectors.

    Args:
      f, w_p: [..., n2, n2].
    """
    return f @ w_p - w_p @ f


def alignment_matrix(
    w_p: np.ndarray, f: np.ndarray, levers: Levers, tau: float = 1.0
) -> np.ndarray:
    """K of Theorem 3: in the isotropic flow dL = -L K - K L, L = [F, W_p].

    K = (1+sigma^2) [(alpha_p/2) F + W_p^2] - tau W_p + (eta + eta_p/2) I

    If its smallest eigenvalue stays above l0 > 0, |L(t)| <= e^{-2 l0 t} |L(0)|. The
    last term is 3/2 eta in the paper; that of separate decays is derived.

    Args:
      w_p, f: [..., n2, n2] symmetric.
      levers: `ema_rate` is not read.
      tau: constant.

    Returns:
      [..., n2, n2] symmetric.
    """
    decay = levers.decay + levers.decay_of_predictor / 2
    k = levers.curvature * (levers.predictor_rate / 2 * f + w_p @ w_p) - tau * w_p
    return k + decay * np.eye(f.shape[-1])
