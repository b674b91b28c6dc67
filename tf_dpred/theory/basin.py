"""Where the basin of collapse ends, found by simulation.

It checks the closed forms of `modes`, which hold on the parabola s = p^2/alpha_p, and
covers what has no closed form: the whole (p, s) plane, and a target that follows by
EMA.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import optimize
from scipy.integrate import solve_ivp

from tf_dpred.theory import modes
from tf_dpred.theory.levers import Levers

RTOL, ATOL = 1e-9, 1e-13
# A mode that moves more slowly than this counts as being at rest.
SETTLED = 1e-7
# Time after which a mode is not followed any further.
LONGEST = 1e4
# A p that survives, and from which the boundary is looked for.
HIGH = 2.0


def collapses(p: float, s: float, levers: Levers, tau: float = 1.0) -> bool:
    """Whether a mode that starts at (p, s, tau) ends at s = 0.

    The mode is followed until s is a millionth of its start, p has risen to p+, or
    nothing moves. One that comes to rest below the middle of p- and p+ is at the
    boundary and counts as collapsed.

    Args:
      p, s: the start; s above 0.
      levers: with `ema_rate`, tau starts at `tau` and moves; without, it is constant.
      tau: the start, or the constant.
    """
    final_tau = tau if levers.ema_rate is None else 1.0
    p_minus, p_plus = map(
        float, modes.fixed_points(levers.decay, final_tau, levers.variance)
    )
    small = 1e-6 * min(s, 1.0)

    def velocity(_, state) -> np.ndarray:
        p, s, tau = state
        return np.array(modes.velocity(p, s, tau, levers))

    def gone(_, state) -> float:
        return state[1] - small

    def risen(_, state) -> float:
        return 1.0 if np.isnan(p_plus) else 0.95 * p_plus - state[0]

    def settled(time, state) -> float:
        dp, ds, dtau = velocity(time, state)
        return max(abs(dp), abs(ds) / state[1], abs(dtau)) - SETTLED

    for event in (gone, risen, settled):
        # SciPy reads attributes of the function.
        event.terminal, event.direction = True, -1  # type: ignore[union-attr]
    solution = solve_ivp(
        velocity,
        (0.0, LONGEST),
        [p, s, tau],
        method="DOP853",
        rtol=RTOL,
        atol=ATOL,
        events=(gone, risen, settled),
    )
    is_gone, has_risen, _ = map(len, solution.t_events)
    if is_gone or has_risen:
        return bool(is_gone)
    return not solution.y[0, -1] > (p_minus + p_plus) / 2


def bisect(
    collapses_at: Callable[[float], bool], low: float, high: float, tol: float = 1e-7
) -> float:
    """The value at which collapse begins or ends.

    Args:
      collapses_at: of one value; differs between `low` and `high`.
      low, high: the bracket.
      tol: largest error, relative to `high` - `low`.

    Raises:
      ValueError: both ends do the same.
    """

    def sign(value: float) -> float:
        return 1.0 if collapses_at(value) else -1.0

    return optimize.bisect(sign, low, high, xtol=tol * abs(high - low))


def simulated_boundary(levers: Levers, tau: float = 1.0) -> float:
    """The p on the parabola below which a mode collapses, by bisection.

    Without EMA it is `modes.basin_boundary`; with it, tau starts at `tau`.

    Args:
      levers: decay below the critical one.
      tau: constant, or the start.
    """

    def at(p: float) -> bool:
        return collapses(p, p**2 / levers.predictor_rate, levers, tau)

    return bisect(at, 1e-6, HIGH)


def separatrix(
    levers: Levers, tau: float = 1.0, *, p_range: tuple[float, float] = (-1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray]:
    """The curve in the (p, s) plane between collapse and survival (derived).

    The stable manifold of the saddle at p-: the flow followed backwards from it. It
    crosses the parabola only there.

    Args:
      levers: 0 < decay < critical; `ema_rate` is not read.
      tau: constant.
      p_range: where the curve is cut.

    Returns:
      p [k] increasing, s [k]. Starts below the curve collapse.

    Raises:
      ValueError: decay out of range.
    """
    critical = float(modes.critical_decay(tau, levers.variance))
    if not 0 < levers.decay < critical:
        raise ValueError(
            f"Invalid decay: received {levers.decay}, accepted: above 0, below "
            f"{critical:.6g}."
        )
    p = float(modes.fixed_points(levers.decay, tau, levers.variance)[0])
    s = float(modes.eigenvalue_of_f(p, levers))
    saddle = np.array([p, s])
    values, vectors = np.linalg.eig(modes.jacobian(p, s, tau, levers))
    stable = np.real(vectors[:, np.argmin(np.real(values))])
    backward = modes.flow_at_constant_tau(levers, tau)
    pieces = []
    for sign in (-1, 1):
        start = saddle + sign * 1e-6 * stable

        def outside(_, state) -> float:
            return min(state[0] - p_range[0], p_range[1] - state[0], 1e3 - state[1])

        def emptied(_, state) -> float:
            return state[1] - 1e-12

        outside.terminal = emptied.terminal = True  # type: ignore[attr-defined]
        pieces.append(
            solve_ivp(
                lambda _, state: -np.array(backward(state)),
                (0.0, 1e4),
                start,
                method="DOP853",
                rtol=RTOL,
                atol=ATOL,
                max_step=0.2,
                events=(outside, emptied),
            ).y
        )
    points = np.concatenate([pieces[0].T, [saddle], pieces[1].T])
    points = points[np.argsort(points[:, 0])]
    return points[:, 0], points[:, 1]
