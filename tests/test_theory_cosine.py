"""The cosine loss's modes: against matrices, against samples, and their equilibria."""

import numpy as np
import pytest

from tf_dpred.theory import cosine, flow
from tf_dpred.theory.levers import Levers

P, S = np.array([0.6, 0.3, 0.9]), np.array([0.5, 0.2, 0.4])
LEVERS = Levers(1.5, 0.05, 0.08, variance=0.25)


def test_velocity__is_that_of_aligned_matrices():
    """Along the whole way, not only at its start."""
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    v = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 3)))[0]
    w_p, w, _ = flow.from_modes(P, S, u=u, v=v)
    times = [0, 1.0, 4.0]
    p, s = flow.integrate(cosine.modes_flow(LEVERS), (P, S), times)
    for symmetric in (False, True):
        rule = cosine.simsiam(LEVERS, symmetric=symmetric)
        found_p, found_w = flow.integrate(rule, (w_p, w), times)
        for index in range(3):
            found = np.diag(u.T @ found_p[index] @ u)
            np.testing.assert_allclose(found, p[index], atol=1e-9)
            f = u.T @ found_w[index] @ found_w[index].T @ u
            np.testing.assert_allclose(f, np.diag(s[index]), atol=1e-9)


def test_simsiam__is_the_gradient_of_the_cosine_of_samples():
    """In 80 dimensions the lengths vary by a few %, and so does the approximation."""
    rng = np.random.default_rng(0)
    n2, n1, count, variance = 60, 80, 10_000, 0.25
    w_p = np.eye(n2) + 0.3 * rng.normal(size=(n2, n2)) / np.sqrt(n2)
    w = rng.normal(size=(n2, n1)) / np.sqrt(n1)
    clean = rng.normal(size=(count, n1))
    x1, x2 = (clean + variance**0.5 * rng.normal(size=clean.shape) for _ in range(2))
    f, z = x1 @ w.T, x2 @ w.T
    p = f @ w_p.T
    length = np.linalg.norm(p, axis=1, keepdims=True)
    p_unit, z_unit = p / length, z / np.linalg.norm(z, axis=1, keepdims=True)
    cos = np.sum(p_unit * z_unit, axis=1, keepdims=True)
    to_p = (z_unit - cos * p_unit) / length  # minus the gradient of -cos
    expected = to_p.T @ f / count, (to_p @ w_p).T @ x1 / count
    found = cosine.simsiam(Levers(variance=variance))((w_p, w))
    for mine, sampled in zip(found, expected, strict=True):
        inner = np.sum(mine * sampled) / np.sum(mine**2)
        assert inner == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("decay", [0.0, 0.05, 2.0])
def test_velocity__norms_fade_by_decay_alone(decay):
    times = np.linspace(0, 1, 5)
    levers = Levers(1.5, decay, variance=0.25)
    p, s = flow.integrate(cosine.modes_flow(levers), (P, S), times)
    fade = np.exp(-2 * decay * times)
    np.testing.assert_allclose(np.sum(s, axis=1), fade * S.sum(), rtol=1e-9)
    np.testing.assert_allclose(np.sum(p**2, axis=1), fade * (P**2).sum(), rtol=1e-9)


def test_velocity_on_parabola__is_that_of_a_mode_among_others():
    p = np.array([0.6, 0.3, 0.9])
    n_p, n_a, t = cosine.norms(p, p**2)
    dp, ds = cosine.velocity(p, p**2, Levers(decay=0.07, variance=0.25))
    for index in range(3):
        found = cosine.velocity_on_parabola(
            p[index], n_p, n_a, t - p[index] ** 3, 0.07, 0.25
        )
        assert found == pytest.approx(dp[index], rel=1e-12)
    # It stays on the parabola.
    np.testing.assert_allclose(ds, 2 * p * dp, rtol=1e-12)


@pytest.mark.parametrize("others", [0.0, 0.2])
def test_equilibria__lower_unstable_upper_stable(others):
    lower, upper = cosine.equilibria(0.8, 1.1, others, 0.1, 0.25)
    for p, slope in ((lower, 1), (upper, -1)):
        around = cosine.velocity_on_parabola(
            [p - 1e-4, p, p + 1e-4], 0.8, 1.1, others, 0.1, 0.25
        )
        assert around[1] == pytest.approx(0, abs=1e-12)
        assert np.sign(around[2] - around[0]) == slope
    assert lower > 0


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.1])
def test_critical_decay__equilibria_emerge_as_norms_fade(scale):
    critical = cosine.critical_decay(0.8 * scale, 1.1 * scale, 0.25)
    settings = (0.8 * scale, 1.1 * scale, 0.0)
    assert len(cosine.equilibria(*settings, 0.999 * critical, 0.25)) == 2
    assert len(cosine.equilibria(*settings, 1.001 * critical, 0.25)) == 0
    # N_p^(1/2) N_a: by the power 3/2 of the scale.
    first = cosine.critical_decay(0.8, 1.1, 0.25)
    assert critical == pytest.approx(first * scale**-1.5, rel=1e-12)
