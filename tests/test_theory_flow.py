"""Matrix flows: Theorems 1 to 3, and each flow against another derivation."""

import numpy as np
import pytest

from tf_dpred.theory import flow, modes, theorems
from tf_dpred.theory.levers import Levers


def moments(seed=0, n1=theorems.N1):
    return theorems.random_moments(np.random.default_rng(seed), n1)


def weights(seed=1):
    return theorems.random_weights(np.random.default_rng(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorem1__conserved(seed):
    for row in theorems.theorem1(seed):
        assert row.tolerance == 1e-9
        assert row.holds, row


def test_theorem1__not_without_its_conditions():
    """What is conserved is no tautology: other flows do not keep it."""
    x, x_aug = moments()
    levers = Levers(2.5, 0.05)
    for rule in (
        flow.no_stop_gradient(x, x_aug, levers),
        flow.simsiam(x, x_aug, Levers(2.5, 0.05, 0.1)),
        flow.simsiam(x, x_aug, levers, symmetric=True),
    ):
        w_p, w = flow.integrate(rule, weights(), [0, 5])
        c = flow.conserved(w_p, w, 2.5)
        assert np.abs(c[1] - np.exp(-0.5) * c[0]).max() > 1e-2


@pytest.mark.parametrize("seed", [0, 1])
def test_theorem2__collapse(seed):
    below, exact = theorems.theorem2(seed)
    assert below.holds and exact.holds, (below, exact)


def test_theorem2__flow_is_h():
    """d vec W = -H vec W, vec stacking columns."""
    x, x_aug = moments()
    w_p, w = weights()
    levers = Levers(1.5, 0.05)
    moved = flow.no_stop_gradient(x, x_aug, levers)((w_p, w))[1]
    h = flow.collapse_matrix(w_p, x, x_aug, 0.05)
    np.testing.assert_allclose(moved.ravel("F"), -h @ w.ravel("F"), atol=1e-13)
    bound = 0.05 + np.linalg.eigvalsh(x_aug)[0]
    assert np.linalg.eigvalsh(h)[0] >= bound - 1e-12


def test_theorem2__stop_gradient_is_what_saves():
    x, x_aug = np.eye(6), 0.1 * np.eye(6)
    levers = Levers(decay=0.01, variance=0.1)
    w_p, w = weights()
    w_p = w_p @ w_p.T
    ends = [
        np.linalg.norm(flow.integrate(rule(x, x_aug, levers), (w_p, w), [0, 100])[1][1])
        for rule in (flow.simsiam, flow.no_stop_gradient)
    ]
    assert ends[0] > 1 and ends[1] < 1e-4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorem3__commutator(seed):
    for row in theorems.theorem3(seed):
        assert row.holds, row


@pytest.mark.parametrize("predictor_decay", [None, 0.3])
def test_theorem3__rate_of_the_commutator(predictor_decay):
    """dL = -L K - K L, to rounding."""
    levers = Levers(2.5, 0.05, predictor_decay, variance=0.5)
    w_p, f = theorems.symmetric_pair(np.random.default_rng(0))
    d_w_p, d_f = flow.isotropic(levers, 0.7)((w_p, f))
    moved = flow.commutator(d_f, w_p) + flow.commutator(f, d_w_p)
    c, k = flow.commutator(f, w_p), flow.alignment_matrix(w_p, f, levers, 0.7)
    np.testing.assert_allclose(moved, -c @ k - k @ c, atol=1e-13)


def test_lemma1__is_minus_the_gradient():
    """Of J = E|W_p W x1 - W_a x2|^2/2 over noise drawn for it, by differences."""
    (x, x_aug), (w_p, w) = moments(), weights()
    w_a = np.random.default_rng(2).normal(size=w.shape)

    def loss(w_p, w):
        m = w_p @ w
        cross = np.trace(m @ x @ w_a.T)
        return (np.trace(m @ (x + x_aug) @ m.T) - 2 * cross) / 2

    def gradient(function, a, h=1e-6):
        found = np.zeros_like(a)
        for index in np.ndindex(*a.shape):
            up, down = a.copy(), a.copy()
            up[index] += h
            down[index] -= h
            found[index] = (function(up) - function(down)) / (2 * h)
        return found

    levers = Levers(2.5, 0.05, 0.02, 0.4)
    moved = flow.with_target(x, x_aug, levers)((w_p, w, w_a))
    expected = (
        -2.5 * gradient(lambda a: loss(a, w), w_p) - 0.02 * w_p,
        -gradient(lambda a: loss(w_p, a), w) - 0.05 * w,
        0.4 * (w - w_a),
    )
    for a, b in zip(moved, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_isotropic__is_symmetric_simsiam():
    levers = Levers(1.5, 0.05, 0.1, variance=0.3)
    w_p, w = weights()
    w_p = (w_p + w_p.T) / 2
    x = np.eye(6)
    times = [0, 1, 10]
    free = flow.integrate(
        flow.simsiam(x, 0.3 * x, levers, symmetric=True), (w_p, w), times
    )
    pair = flow.integrate(flow.isotropic(levers), (w_p, w @ w.T), times)
    np.testing.assert_allclose(pair[0], free[0], atol=1e-10)
    np.testing.assert_allclose(
        pair[1], free[1] @ np.swapaxes(free[1], 1, 2), atol=1e-10
    )


@pytest.mark.parametrize("ema_rate", [None, 0.4])
def test_aligned_matrices__follow_the_modes(ema_rate):
    levers = Levers(1.5, 0.04, 0.06, ema_rate, 0.25)
    rng = np.random.default_rng(0)
    u = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    v = np.linalg.qr(rng.normal(size=(5, 3)))[0]
    tau = 1.0 if ema_rate is None else 0.0
    p, s = np.array([0.3, 0.5, 0.04]), np.array([0.2, 0.1, 0.002])
    times = [0, 3, 30]
    solved = flow.integrate(modes.flow(levers), (p, s, np.full(3, tau)), times)
    start = flow.from_modes(p, s, tau, u, v)
    x = np.eye(5)
    if ema_rate is None:
        rule = flow.simsiam(x, 0.25 * x, levers)
        w_p, w = flow.integrate(rule, start[:2], times)
    else:
        rule = flow.with_target(x, 0.25 * x, levers)
        w_p, w, w_a = flow.integrate(rule, start, times)
        expected = (u * (solved[2][-1] * np.sqrt(solved[1][-1]))) @ v.T
        np.testing.assert_allclose(w_a[-1], expected, atol=1e-10)
    np.testing.assert_allclose(w_p[-1], (u * solved[0][-1]) @ u.T, atol=1e-10)
    np.testing.assert_allclose(w[-1], (u * np.sqrt(solved[1][-1])) @ v.T, atol=1e-10)


def test_integrate__backwards_and_back():
    rule = modes.flow_at_constant_tau(Levers(decay=0.05), 1.0)
    there = flow.integrate(rule, (0.3, 0.2), [0, 2])
    back = flow.integrate(rule, tuple(a[-1] for a in there), [2, 0])
    np.testing.assert_allclose([a[-1] for a in back], [0.3, 0.2], atol=1e-10)


@pytest.mark.parametrize("times", [[0], [0, 1, 1], [0, 2, 1], 3.0])
def test_integrate__times_out_of_order(times):
    with pytest.raises(ValueError, match="Invalid times: received shape"):
        flow.integrate(lambda state: state, (1.0,), times)


def test_integrate__infinite():
    with pytest.raises(FloatingPointError, match="before time 2"):
        flow.integrate(lambda state: (state[0] ** 2,), (1.0,), [0, 2])


def test_with_target__needs_a_rate():
    with pytest.raises(ValueError, match="received levers without ema_rate"):
        flow.with_target(*moments(), Levers())
