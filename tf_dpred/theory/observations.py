"""Observations #1 to #10 of the paper's Table 4, predicted and simulated.

Each says what one lever does. The rows of an observation vary the lever: their sequence
shows the direction of the effect, and the predicted numbers its size.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from tf_dpred.theory import basin, flow, modes
from tf_dpred.theory.comparison import Comparison
from tf_dpred.theory.levers import Levers

VARIANCE = 0.5
TOP = float(modes.fixed_points(0.0, 1.0, VARIANCE)[1])  # p+ without decay


def basin_shrinks_with_predictor_rate() -> Iterator[Comparison]:
    """#1: without decay, a mode that starts at p < 0 and s < p^2/alpha_p collapses.

    One that starts above p+, at s < (p^2 - p+^2)/alpha_p, does so as well (derived).
    """
    for rate in (1.0, 4.0, 16.0):
        levers = Levers(rate, variance=VARIANCE)
        boundary = 0.25 / rate
        found = basin.bisect(
            functools.partial(basin.collapses, -0.5, levers=levers),
            boundary / 4,
            boundary * 4,
        )
        yield Comparison(
            "#1 predictor rate: smaller basin",
            f"s below which p = -.5 collapses (alpha_p {rate:g}, eta 0)",
            boundary,
            found,
            tolerance=1e-6,
        )
    p, rate = 1.0, 4.0
    boundary = (p**2 - TOP**2) / rate
    yield Comparison(
        "#1 predictor rate: smaller basin",
        "s below which p = 1 collapses (alpha_p 4, eta 0; derived)",
        boundary,
        basin.bisect(
            lambda s: basin.collapses(p, s, Levers(rate, variance=VARIANCE)),
            boundary / 4,
            boundary * 4,
        ),
        # Next to p+ a mode fades so slowly that `collapses` gives up before its end.
        tolerance=1e-3 * boundary,
    )


def features_grow_less_with_predictor_rate() -> Iterator[Comparison]:
    """#2: s grows by (p_end^2 - p_0^2)/alpha_p."""
    for rate in (1.0, 10.0, 100.0):
        levers = Levers(rate, variance=VARIANCE)
        rule = modes.flow_at_constant_tau(levers, 1.0)
        _, s = flow.integrate(rule, (0.1, 0.1), [0, 400])
        yield Comparison(
            "#2 huge predictor rate: F grows little",
            f"growth of s from p = .1, s = .1 (alpha_p {rate:g}, eta 0)",
            (TOP**2 - 0.1**2) / rate,
            float(s[-1] - s[0]),
            tolerance=1e-6,
        )


def decay_forgets_the_start() -> Iterator[Comparison]:
    """#3: the influence of the start on s fades as e^{-2 eta t}."""
    time = 100.0
    for decay in (0.0, 0.01, 0.04):
        rule = modes.flow_at_constant_tau(Levers(decay=decay, variance=VARIANCE), 1.0)
        ends = []
        for start in (0.2, 0.5):
            p, s = flow.integrate(rule, (0.3, start), [0, time])
            ends.append(float(s[-1] - p[-1] ** 2))
        yield Comparison(
            "#3 decay: the start is forgotten",
            f"difference of s - p^2 at t = 100, from s = .5 and .2 (eta {decay:g})",
            0.3 * float(np.exp(-2 * decay * time)),
            ends[1] - ends[0],
            tolerance=1e-10,
        )


def decay_widens_the_basin() -> Iterator[Comparison]:
    """#4: p- grows with eta."""
    for decay in (0.01, 0.05, 0.15):
        yield Comparison(
            "#4 decay: larger basin",
            f"p below which all is lost (eta {decay:g})",
            float(modes.basin_boundary(decay, 1.0, VARIANCE)),
            basin.simulated_boundary(Levers(decay=decay, variance=VARIANCE)),
            tolerance=1e-6,
        )


def too_much_decay_collapses() -> Iterator[Comparison]:
    """#5: above tau^2/(4 (1+sigma^2)) even a mode from p = s = 1 collapses."""
    for variance in (0.0, VARIANCE, 2.0):
        critical = float(modes.critical_decay(1.0, variance))

        def at(decay: float, variance: float = variance) -> bool:
            return basin.collapses(1.0, 1.0, Levers(decay=decay, variance=variance))

        found = basin.bisect(at, 0.9 * critical, 1.1 * critical, 1e-4)
        yield Comparison(
            "#5 too much decay: only collapse",
            f"eta above which p = 1, s = 1 collapses (sigma^2 {variance:g})",
            critical,
            found,
            tolerance=1e-5,
        )


def misalignment(levers: Levers, tau: float = 1.0) -> tuple[float, float]:
    """ln of the growth of |[F, W_p]| of two modes until t = 2: predicted, simulated.

    From p = .3, .4 and s = .05, .1, the eigenvectors of W_p turned by 1e-5. Predicted:
    - int (lambda_1 + lambda_2) dt along the modes (`modes.alignment_rate`).
    """
    p, s, angle, time = np.array([0.3, 0.4]), np.array([0.05, 0.1]), 1e-5, 2.0

    def aligned(state):
        dp, ds, _ = modes.velocity(state[0], state[1], tau, levers)
        return dp, ds, -modes.alignment_rate(state[0], state[1], tau, levers).sum()

    predicted = float(flow.integrate(aligned, (p, s, 0.0), [0, time])[2][-1])
    c, d = np.cos(angle), np.sin(angle)
    turned = flow.from_modes(p, s, u=np.array([[c, -d], [d, c]]))[0]
    w_p, f = flow.integrate(
        flow.isotropic(levers, tau), (turned, np.diag(s)), [0, time]
    )
    norms = np.linalg.norm(flow.commutator(f, w_p), axis=(1, 2))
    return predicted, float(np.log(norms[1] / norms[0]))


def _alignment_row(source: str, setting: str, levers: Levers, tau: float = 1.0):
    predicted, simulated = misalignment(levers, tau)
    return Comparison(
        source,
        f"ln of the growth of the norm of [F, W_p] over t = 2 ({setting})",
        predicted,
        simulated,
        tolerance=1e-6,
    )


def predictor_rate_aligns() -> Iterator[Comparison]:
    """#6: alpha_p s/2 holds the eigenspaces together."""
    for rate in (0.5, 2.0, 8.0):
        yield _alignment_row(
            "#6 predictor rate: aligns",
            f"alpha_p {rate:g}, eta .01",
            Levers(rate, 0.01, variance=VARIANCE),
        )


def decay_aligns() -> Iterator[Comparison]:
    """#7: 3/2 eta does so as well."""
    for decay in (0.0, 0.05, 0.1):
        yield _alignment_row(
            "#7 decay: aligns",
            f"alpha_p 1, eta {decay:g}",
            Levers(decay=decay, variance=VARIANCE),
        )


def ema_aligns() -> Iterator[Comparison]:
    """#8: a small tau, with which EMA begins, does so as well."""
    for tau in (1.0, 0.6, 0.2):
        yield _alignment_row(
            "#8 EMA: aligns",
            f"alpha_p 1, eta .01, tau {tau:g}",
            Levers(decay=0.01, variance=VARIANCE),
            tau,
        )


def times_to_grow(ema_rate: float | None, fractions: Sequence[float]) -> list[float]:
    """When p reaches each fraction of p+, from .3 on the parabola; tau(0) = 0 with EMA.

    Args:
      ema_rate: beta, at most .01; None: SimSiam.
      fractions: above .45, where p begins, and below 1.
    """
    tau = 1.0 if ema_rate is None else 0.0
    limit = 20.0 if ema_rate is None else 6 / ema_rate
    times = np.linspace(0, limit, 2001)
    levers = Levers(ema_rate=ema_rate, variance=VARIANCE)
    p = flow.integrate(
        modes.flow(levers), (0.3, 0.3**2, tau), times, rtol=1e-9, atol=1e-12
    )[0]
    found = []
    for end in (fraction * TOP for fraction in fractions):
        after = int(np.argmax(p >= end))
        around = slice(after - 1, after + 1)
        found.append(float(np.interp(end, p[around], times[around])))
    return found


def ema_is_slow() -> Iterator[Comparison]:
    """#9: the time to grow is about 1/beta, for small beta -2 ln(1 - p/p+)/beta.

    While p follows tau, its lag is of order beta. Before that, while tau is near 0 and
    p fades, the error is larger: of 4.61 in all, .18 at beta .01.
    """
    source = "#9 slow EMA: slow training"
    (alone,) = times_to_grow(None, [0.9])
    yield Comparison(
        source,
        "time to reach .9 p+ from p = .3 (SimSiam, eta 0)",
        modes.travel_time(0.3, 0.9 * TOP, 0.0, 1.0, VARIANCE),
        alone,
        tolerance=1e-3,
    )
    between = {}
    for rate in (0.01, 0.001, 0.0005):
        half, most = times_to_grow(rate, [0.5, 0.9])
        between[rate] = most - half
    limit = modes.slow_ema_time(0.9, 1.0) - modes.slow_ema_time(0.5, 1.0)
    for rate in (0.01, 0.001):
        yield Comparison(
            source,
            "beta x the time from .5 p+ to .9 p+, from p = .3, tau = 0 "
            f"(beta {rate:g}; limit of beta -> 0)",
            limit,
            rate * between[rate],
            tolerance=2 * rate,
        )
    yield Comparison(
        source,
        "ratio of these times at beta .0005 and .001",
        2.0,
        between[0.0005] / between[0.001],
        tolerance=0.002,
    )


def ema_widens_the_basin() -> Iterator[Comparison]:
    """#10: p- grows as tau falls."""
    source = "#10 EMA: larger basin"
    levers = Levers(decay=0.05, variance=VARIANCE)
    for tau in (1.0, 0.8, 0.6):
        yield Comparison(
            source,
            f"p below which all is lost (eta .05, tau {tau:g} held)",
            float(modes.basin_boundary(0.05, tau, VARIANCE)),
            basin.simulated_boundary(levers, tau),
            tolerance=1e-6,
        )
    smaller = float(modes.basin_boundary(0.05, 1.0, VARIANCE))
    for rate in (1.0, 0.4, 0.1):
        with_ema = Levers(decay=0.05, ema_rate=rate, variance=VARIANCE)
        found = basin.simulated_boundary(with_ema, 0.0)
        yield Comparison(
            source,
            f"p below which all is lost (eta .05, beta {rate:g}, tau(0) = 0)",
            smaller,
            found,
            ">",
        )
        smaller = found


def predictor_decay_alone_is_safe() -> Iterator[Comparison]:
    """Table 5: with eta = 0 and eta_p > 0 no mode collapses (derived).

    From p > 0, p tends to tau/(1+sigma^2) and s to linear growth, ds = 2 eta_p
    p^2/alpha_p, at any eta_p. From p < 0, p fades as e^{-eta_p t} before it turns
    positive, and s shrinks meanwhile, but by a finite factor.
    """
    source = "Table 5: decay on the predictor alone"
    for decay in (0.05, 0.4):
        levers = Levers(decay=0.0, predictor_decay=decay, variance=VARIANCE)
        rule = modes.flow_at_constant_tau(levers, 1.0)
        _, s = flow.integrate(rule, (0.3, 0.1), [0, 150.0, 200.0], rtol=1e-9)
        slope = 2 * decay * TOP**2
        yield Comparison(
            source,
            f"ds/dt at t = 150 to 200 from p = .3, s = .1 (eta 0, eta_p {decay:g})",
            slope,
            float((s[2] - s[1]) / 50),
            tolerance=0.05 * slope,
        )
    p, decay = -0.1, 0.1
    levers = Levers(decay=0.0, predictor_decay=decay, variance=VARIANCE)
    rule = modes.flow_at_constant_tau(levers, 1.0)
    _, s = flow.integrate(rule, (p, 1e-6), np.linspace(0, 100, 1001), rtol=1e-9)
    yield Comparison(
        source,
        "ln of the least s over the first, from p = -.1, s = 1e-6 (eta 0, eta_p .1)",
        (2 * p - (1 + VARIANCE) * p**2) / decay,
        float(np.log(s.min() / s[0])),
        tolerance=0.01,
    )


def surviving_modes(
    symmetric: bool, levers: Levers, *, aligned: bool = False, runs: int = 5
) -> float:
    """How many of six eigenvalues of F are above .01 in the end, on average.

    SimSiam, X = I, X' = sigma^2 I, random W; t = 200.

    Args:
      symmetric: keep W_p symmetric.
      levers: `ema_rate` is not read.
      aligned: W_p starts on the eigenvectors of F, on the parabola, and not at random.
      runs: random starts.
    """
    size, counts = 6, []
    x = np.eye(size)
    rule = flow.simsiam(x, levers.variance * x, levers, symmetric=symmetric)
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        w_p = rng.uniform(-1, 1, (size, size)) / np.sqrt(size)
        w = rng.normal(size=(size, size)) / np.sqrt(size)
        if aligned:
            s, u = np.linalg.eigh(w @ w.T)
            w_p = (u * np.sqrt(levers.predictor_rate * s)) @ u.T
        elif symmetric:
            w_p = (w_p + w_p.T) / 2
        end = flow.integrate(rule, (w_p, w), [0, 200], rtol=1e-8, atol=1e-11)[1][-1]
        counts.append(np.sum(np.linalg.eigvalsh(end @ end.T) > 0.01))
    return float(np.mean(counts))


def predictor_decay_aligns() -> Iterator[Comparison]:
    """Table 5: eta_p/2 of K holds the eigenspaces together (derived)."""
    for decay in (0.0, 0.2, 0.6):
        yield _alignment_row(
            "Table 5: decay on the predictor alone aligns",
            f"alpha_p 1, eta 0, eta_p {decay:g}, tau 1",
            Levers(decay=0.0, predictor_decay=decay, variance=VARIANCE),
        )


def alignment_fails_first_without_ema() -> Iterator[Comparison]:
    """Table 3: the least s that keeps a mode aligned (Eq. 17) is largest at tau = 1.

    Delta < [alpha_p (1+sigma^2) s + eta]/2 with Delta = p [tau - (1+sigma^2) p] - eta:
    s above (2 Delta - eta)/(alpha_p (1+sigma^2)).
    """
    p, decay = 0.3, 0.01
    levers = Levers(decay=decay, variance=VARIANCE)
    for tau in (1.0, 0.8, 0.6):
        delta = float(modes.growth(p, tau, levers))

        def aligned(s: float, tau: float = tau) -> bool:
            return bool(modes.stays_aligned(p, s, tau, levers))

        yield Comparison(
            "Table 3: no EMA aligns least",
            f"s below which Eq. 17 fails at p = .3 (alpha_p 1, eta .01, tau {tau:g})",
            (2 * delta - decay) / levers.curvature,
            basin.bisect(aligned, 1e-6, 1.0),
            tolerance=1e-6,
        )


def symmetric_predictor_without_ema() -> Iterator[Comparison]:
    """Table 3: the flow keeps its modes, symmetric or free; real networks need not.

    At eta .05, below the critical .227, every mode above p- survives.
    """
    levers = Levers(decay=0.05, variance=0.1)
    for kind, symmetric in (("symmetric", True), ("free", False)):
        yield Comparison(
            f"Table 3: {kind} predictor, no EMA",
            "of 6 modes left in the flow, mean of 5 random starts (eta .05 on both)",
            0.5,
            surviving_modes(symmetric, levers),
            ">",
        )


OBSERVATIONS = (
    basin_shrinks_with_predictor_rate,
    features_grow_less_with_predictor_rate,
    decay_forgets_the_start,
    decay_widens_the_basin,
    too_much_decay_collapses,
    predictor_rate_aligns,
    decay_aligns,
    ema_aligns,
    ema_is_slow,
    ema_widens_the_basin,
    predictor_decay_alone_is_safe,
    predictor_decay_aligns,
    alignment_fails_first_without_ema,
    symmetric_predictor_without_ema,
)


def all_comparisons() -> Iterator[Comparison]:
    """Everything above, in order."""
    for rows in OBSERVATIONS:
        yield from rows()
