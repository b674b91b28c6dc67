"""One eigenmode of the linear theory, in closed form.

Where F = W W^T and W_p share an eigenvector u_j and W_a = tau W, the matrices decouple
into scalars: p_j = u_j^T W_p u_j, s_j = u_j^T F u_j and tau. Everything here takes
numbers or arrays that broadcast (one entry a mode), in float64, and needs NumPy alone.
`decay` is that of the network: a predictor's own decay moves no fixed point in p.
Source: arXiv 2102.06810, section 3 and its appendix; (derived) marks our deductions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tf_dpred.theory.levers import Levers


def velocity(
    p: ArrayLike, s: ArrayLike, tau: ArrayLike, levers: Levers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How a mode moves (Eqs. 13-15).

        dp = alpha_p s [tau - (1+sigma^2) p] - eta_p p
        ds = 2 p s [tau - (1+sigma^2) p] - 2 eta s
        dtau = beta (1 - tau) - tau ds/(2s); SimSiam: 0

    Args:
      p, s, tau: any shapes that broadcast.
      levers: the settings.

    Returns:
      dp, ds, dtau.
    """
    p, s, tau = (np.asarray(a, float) for a in (p, s, tau))
    drive = tau - levers.curvature * p
    dp = levers.predictor_rate * s * drive - levers.decay_of_predictor * p
    # ds/(2s), which has a limit where s is 0.
    log_rate = p * drive - levers.decay
    if levers.ema_rate is None:
        dtau = np.zeros_like(log_rate)
    else:
        dtau = levers.ema_rate * (1 - tau) - tau * log_rate
    return dp, 2 * s * log_rate, dtau


def flow(levers: Levers):
    """`velocity` as a flow of (p, s, tau), each [m], for `flow.integrate`."""

    def rates(state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        p, s, tau = state
        return velocity(p, s, tau, levers)

    return rates


def flow_at_constant_tau(levers: Levers, tau: float):
    """`velocity` as a flow of (p, s), each [m], with tau held."""

    def rates(state: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        p, s = state
        return velocity(p, s, tau, levers)[:2]

    return rates


def jacobian(p: float, s: float, tau: float, levers: Levers) -> np.ndarray:
    """d(dp, ds)/d(p, s) at constant tau, [2, 2] (derived from Eqs. 13-14)."""
    kappa, alpha = levers.curvature, levers.predictor_rate
    drive = tau - kappa * p
    return np.array(
        [
            [-alpha * s * kappa - levers.decay_of_predictor, alpha * drive],
            [2 * s * (drive - kappa * p), 2 * (p * drive - levers.decay)],
        ]
    )


def velocity_on_parabola(
    p: ArrayLike, decay: float, tau: ArrayLike = 1.0, variance: float = 0.0
) -> np.ndarray:
    """dp = p^2 [tau - (1+sigma^2) p] - eta p, where s = p^2/alpha_p (Eq. 16).

    The parabola is invariant, and with equal decays eta > 0 every start ends on it.

    Args:
      p: any shape.
      decay, tau, variance: eta, tau and sigma^2.
    """
    p, tau = np.asarray(p, float), np.asarray(tau, float)
    return p**2 * (tau - (1 + variance) * p) - decay * p


def critical_decay(tau: ArrayLike = 1.0, variance: ArrayLike = 0.0) -> np.ndarray:
    """tau^2 / (4 (1+sigma^2)): above it, every start collapses (section 3.2).

    Args:
      tau, variance: any shapes that broadcast.
    """
    tau, variance = np.asarray(tau, float), np.asarray(variance, float)
    return tau**2 / (4 * (1 + variance))


def fixed_points(
    decay: ArrayLike, tau: ArrayLike = 1.0, variance: ArrayLike = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """p- and p+, the fixed points of p beside 0 (section 3.2).

    p+- = [tau +- sqrt(tau^2 - 4 eta (1+sigma^2))] / (2 (1+sigma^2))

    0 and p+ are stable, p- is not: it ends the basin of collapse. They are the same off
    the parabola, and with separate decays, eta being the network's (derived).

    Args:
      decay, tau, variance: any shapes that broadcast; decay >= 0.

    Returns:
      p-, p+; NaN above the critical decay, where there are none.
    """
    decay, tau, variance = (np.asarray(a, float) for a in (decay, tau, variance))
    discriminant = tau**2 - 4 * decay * (1 + variance)
    root = np.sqrt(np.where(discriminant < 0, np.nan, discriminant))
    p_plus = (tau + root) / (2 * (1 + variance))
    # (tau - root)/... would lose all digits for small eta.
    p_minus = 2 * decay / (tau + root)
    return p_minus, p_plus


def basin_boundary(
    decay: ArrayLike, tau: ArrayLike = 1.0, variance: ArrayLike = 0.0
) -> np.ndarray:
    """Where on the parabola collapse ends: p below it goes to 0 (section 3.2).

    Args:
      decay, tau, variance: as of `fixed_points`.

    Returns:
      p-; infinity above the critical decay.
    """
    p_minus = fixed_points(decay, tau, variance)[0]
    return np.where(np.isnan(p_minus), np.inf, p_minus)


def eigenvalue_of_f(p: ArrayLike, levers: Levers) -> np.ndarray:
    """s at a fixed point p: p^2 eta_p / (alpha_p eta) (derived).

    With equal decays this is the parabola s = p^2/alpha_p.

    Raises:
      ValueError: separate decays of which the network's is 0: s has no fixed point, it
        grows for ever.
    """
    p, ratio = np.asarray(p, float), 1.0
    if levers.decay_of_predictor != levers.decay:
        if levers.decay == 0:
            raise ValueError(
                "eigenvalue_of_f: received decay 0 and predictor_decay "
                f"{levers.predictor_decay}, accepted: equal decays, or decay above 0."
            )
        ratio = levers.decay_of_predictor / levers.decay
    return ratio * p**2 / levers.predictor_rate


def invariant(
    p: ArrayLike, s: ArrayLike, levers: Levers, time: ArrayLike = 0.0
) -> np.ndarray:
    """c = e^{2 eta t} (s - p^2/alpha_p), constant along a trajectory (Eq. 16).

    So s = p^2/alpha_p + e^{-2 eta t} c. (The paper's main text prints the other sign.)

    Args:
      p, s, time: any shapes that broadcast; p and s at that time.
      levers: with equal decays.

    Raises:
      ValueError: separate decays, under which nothing is conserved.
    """
    if levers.decay_of_predictor != levers.decay:
        raise ValueError(
            f"invariant: received decay {levers.decay} and predictor_decay "
            f"{levers.predictor_decay}, accepted: equal ones."
        )
    p, s, time = (np.asarray(a, float) for a in (p, s, time))
    return np.exp(2 * levers.decay * time) * (s - p**2 / levers.predictor_rate)


def growth(p: ArrayLike, tau: ArrayLike, levers: Levers) -> np.ndarray:
    """Delta_j = p [tau - (1+sigma^2) p] - eta, half the relative rate of s (Eq. 17).

    Args:
      p, tau: any shapes that broadcast.
    """
    p, tau = np.asarray(p, float), np.asarray(tau, float)
    return p * (tau - levers.curvature * p) - levers.decay


def alignment_rate(
    p: ArrayLike, s: ArrayLike, tau: ArrayLike, levers: Levers
) -> np.ndarray:
    """lambda_j = [alpha_p (1+sigma^2) s + eta_p]/2 - Delta_j (Theorem 3, derived).

    The eigenvalue of Theorem 3's K on mode j. A small misalignment between modes j and
    k, the entry jk of [F, W_p], decays as e^{-(lambda_j + lambda_k) t}.

    Args:
      p, s, tau: any shapes that broadcast.

    Returns:
      Above 0 where the mode is held aligned, below where misalignment grows.
    """
    pull = levers.predictor_rate * levers.curvature * np.asarray(s, float)
    return (pull + levers.decay_of_predictor) / 2 - growth(p, tau, levers)


def stays_aligned(
    p: ArrayLike, s: ArrayLike, tau: ArrayLike, levers: Levers
) -> np.ndarray:
    """Whether 0 < Delta_j < [alpha_p (1+sigma^2) s + eta]/2 (Eq. 17).

    The mode grows, and its misalignment shrinks meanwhile.

    Args:
      p, s, tau: any shapes that broadcast.

    Returns:
      Booleans.
    """
    delta = growth(p, tau, levers)
    return (delta > 0) & (alignment_rate(p, s, tau, levers) > 0)


def travel_time(
    start: float, end: float, decay: float, tau: float = 1.0, variance: float = 0.0
) -> float:
    """The time from one p to another on the parabola (derived from Eq. 16).

    t = int dp / (p^2 [tau - (1+sigma^2) p] - eta p), by partial fractions.

    Args:
      start, end: p above 0, with no fixed point from one to the other.
      decay, tau, variance: eta below the critical one, tau and sigma^2.

    Returns:
      Time; negative where the motion goes from `end` to `start`.

    Raises:
      ValueError: decay at or above the critical one, or a fixed point on the way.
    """
    critical = float(critical_decay(tau, variance))
    if not 0 <= decay < critical:
        raise ValueError(
            f"Invalid decay: received {decay}, accepted: at least 0, below {critical}."
        )
    p_minus, p_plus = (float(p) for p in fixed_points(decay, tau, variance))
    low, high = min(start, end), max(start, end)
    if not low > 0 or any(low <= point <= high for point in (p_minus, p_plus)):
        raise ValueError(
            f"Invalid start, end: received {start}, {end}, accepted: both above 0 and "
            f"on one side of each of the fixed points {p_minus:.6g}, {p_plus:.6g}."
        )

    def antiderivative(p: float) -> float:
        if decay == 0:
            return np.log(p / abs(p - p_plus)) / p_plus**2 - 1 / (p * p_plus)
        return (
            np.log(abs(p - p_minus)) / (p_minus * (p_plus - p_minus))
            - np.log(p) / (p_minus * p_plus)
            - np.log(abs(p - p_plus)) / (p_plus * (p_plus - p_minus))
        )

    return float((antiderivative(end) - antiderivative(start)) / (1 + variance))


def slow_ema_time(fraction: float, ema_rate: float) -> float:
    """The time in which a slow target lets p grow to a fraction of its end (derived).

    For small beta, p follows the target at once, p = tau/(1+sigma^2). On the parabola,
    with eta = 0, w = sqrt(s) then grows as tau does and w_a = tau w as tau^2, so
    beta (w - w_a) = dw_a reads dtau = beta (1 - tau)/2:

        t = -2 ln(1 - fraction) / beta

    Args:
      fraction: of p+, in [0, 1).
      ema_rate: beta.
    """
    return -2 * np.log1p(-fraction) / ema_rate
