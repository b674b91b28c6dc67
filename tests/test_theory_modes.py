"""One eigenmode: closed forms against quadrature, algebra and simulation."""

from pathlib import Path

import numpy as np
import pytest
from imports import brought_along
from scipy.integrate import quad

from tf_dpred.theory import basin, flow, modes, theorems
from tf_dpred.theory.levers import Levers, from_training

CHECKOUT = Path(__file__).parent.parent
LEVERS = Levers(decay=0.05, variance=0.5)


def test_closed_forms__simulated():
    for row in theorems.closed_forms():
        assert row.tolerance <= 1e-6
        assert row.holds, row


def test_fixed_points__by_hand():
    p_minus, p_plus = modes.fixed_points(0.05, 1.0, 0.5)
    np.testing.assert_allclose([p_minus, p_plus], [0.054447, 0.612220], atol=5e-7)
    np.testing.assert_allclose(modes.critical_decay(1.0, 0.5), 1 / 6, rtol=1e-15)


@pytest.mark.parametrize("decay", [0.0, 1e-12, 0.01, 0.16])
@pytest.mark.parametrize("tau", [0.9, 1.0])
def test_fixed_points__nothing_moves(decay, tau):
    for p in modes.fixed_points(decay, tau, 0.2):
        moved = modes.velocity_on_parabola(p, decay, tau, 0.2)
        np.testing.assert_allclose(moved, 0, atol=1e-15)


def test_fixed_points__none_above_the_critical_decay():
    decay = modes.critical_decay(1.0, 0.5) * np.array([0.999, 1.001])
    p_minus, p_plus = modes.fixed_points(decay, 1.0, 0.5)
    assert list(np.isnan(p_minus)) == list(np.isnan(p_plus)) == [False, True]
    assert list(np.isinf(modes.basin_boundary(decay, 1.0, 0.5))) == [False, True]


@pytest.mark.parametrize("alpha", [0.5, 3.0])
def test_fixed_points__separate_decays(alpha):
    levers = Levers(alpha, 0.05, 0.12, variance=0.5)
    for p in modes.fixed_points(0.05, 1.0, 0.5):
        moved = modes.velocity(p, modes.eigenvalue_of_f(p, levers), 1.0, levers)
        np.testing.assert_allclose(moved, 0, atol=1e-16)


def test_fixed_points__stability():
    p_minus, p_plus = modes.fixed_points(0.05, 1.0, 0.5)

    def largest(p):
        s = modes.eigenvalue_of_f(p, LEVERS)
        return np.linalg.eigvals(modes.jacobian(p, s, 1.0, LEVERS)).real.max()

    assert largest(p_minus) > 0.04
    assert largest(p_plus) < -0.04
    assert largest(0.0) == pytest.approx(-0.05)


def test_jacobian__finite_differences():
    levers = Levers(1.7, 0.03, 0.08, variance=0.4)
    p, s, h = 0.3, 0.2, 1e-6
    columns = [
        np.subtract(
            modes.velocity(p + dp, s + ds, 0.8, levers)[:2],
            modes.velocity(p - dp, s - ds, 0.8, levers)[:2],
        )
        / (2 * h)
        for dp, ds in ((h, 0), (0, h))
    ]
    found = modes.jacobian(p, s, 0.8, levers)
    np.testing.assert_allclose(found, np.transpose(columns), atol=1e-9)


def test_velocity__of_the_target():
    levers = Levers(1.5, 0.04, ema_rate=0.4, variance=0.1)
    p, s, tau = 0.3, 0.2, 0.7
    _, ds, dtau = modes.velocity(p, s, tau, levers)
    assert dtau == pytest.approx(0.4 * 0.3 - 0.7 * ds / 0.4, rel=1e-14)
    assert modes.velocity(p, s, 1.0, LEVERS)[2] == 0


def test_velocity__is_finite_without_features():
    moved = modes.velocity(0.3, 0.0, 0.5, Levers(ema_rate=0.4, decay=0.1))
    assert np.all(np.isfinite(moved))


@pytest.mark.parametrize("predictor_rate", [0.5, 3.0])
@pytest.mark.parametrize("ema_rate", [None, 0.4])
def test_invariant__constant_along_modes(predictor_rate, ema_rate):
    levers = Levers(predictor_rate, 0.04, ema_rate=ema_rate, variance=0.2)
    times = np.linspace(0, 40, 9)
    p, s, _ = flow.integrate(
        modes.flow(levers), ([0.3, -0.2], [0.2, 0.5], [1.0, 1.0]), times
    )
    c = modes.invariant(p, s, levers, times[:, None])
    np.testing.assert_allclose(c, np.broadcast_to(c[0], c.shape), rtol=1e-9)


@pytest.mark.parametrize(
    ("start", "end", "decay"),
    [(0.07, 0.5, 0.05), (0.03, 0.01, 0.05), (0.8, 0.65, 0.05), (0.1, 0.5, 0.0)],
)
def test_travel_time__quadrature(start, end, decay):
    expected = quad(
        lambda p: 1 / modes.velocity_on_parabola(p, decay, 0.9, 0.3), start, end
    )[0]
    found = modes.travel_time(start, end, decay, 0.9, 0.3)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found > 0


def test_travel_time__refuses_a_fixed_point_on_the_way():
    with pytest.raises(ValueError, match=r"received 0.05, 0.5, accepted.*0.0544467"):
        modes.travel_time(0.05, 0.5, 0.05, 1.0, 0.5)
    with pytest.raises(ValueError, match=r"Invalid decay: received 0\.2, accepted"):
        modes.travel_time(0.05, 0.5, 0.2, 1.0, 0.5)


def test_stays_aligned__by_hand():
    """Delta = .3 (1 - .45) - .05 = .115; [1.5 s + .05]/2 is .1 and .4."""
    assert modes.growth(0.3, 1.0, LEVERS) == pytest.approx(0.115)
    rate = modes.alignment_rate(0.3, [0.1, 0.5], 1.0, LEVERS)
    np.testing.assert_allclose(rate, [-0.015, 0.285], rtol=1e-12)
    assert list(modes.stays_aligned(0.3, [0.1, 0.5], 1.0, LEVERS)) == [False, True]
    assert not modes.stays_aligned(0.04, 0.5, 1.0, LEVERS)  # shrinks


def test_alignment_rate__eigenvalues_of_theorem_3():
    levers = Levers(1.7, 0.03, 0.08, variance=0.4)
    p, s = np.array([0.1, 0.4, 0.6]), np.array([0.3, 0.2, 0.1])
    k = flow.alignment_matrix(np.diag(p), np.diag(s), levers, 0.8)
    found = modes.alignment_rate(p, s, 0.8, levers)
    np.testing.assert_allclose(found, np.diag(k), rtol=1e-13)


@pytest.mark.parametrize("p", [-0.5, 0.0, 0.3])
def test_separatrix__divides(p):
    curve_p, curve_s = basin.separatrix(LEVERS)
    boundary = float(np.interp(p, curve_p, curve_s))
    assert basin.collapses(p, 0.97 * boundary, LEVERS)
    assert not basin.collapses(p, 1.03 * boundary, LEVERS)


def test_separatrix__meets_the_parabola_at_p_minus():
    p, s = basin.separatrix(LEVERS)
    assert np.all(np.diff(p) > 0) and np.all(s > 0)
    p_minus = float(modes.basin_boundary(0.05, 1.0, 0.5))
    above = s > p**2
    assert np.all(above[p < p_minus - 1e-4]) and not np.any(above[p > p_minus + 1e-4])


@pytest.mark.parametrize(
    "wrong",
    [
        {"predictor_rate": 0.0},
        {"decay": -0.1},
        {"predictor_decay": float("nan")},
        {"ema_rate": -1.0},
        {"variance": -0.5},
    ],
)
def test_levers__out_of_range(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"Invalid {name}: received .*, accepted:"):
        Levers(**wrong)


def test_from_training__paper():
    """Learning rate .01 and EMA .996 are the paper's beta .4, of its own time."""
    levers, step = from_training(
        0.01, weight_decay=4e-4, tau_base=0.996, predictor_lr_multiplier=10.0
    )
    assert step == pytest.approx(0.04)
    assert levers.ema_rate == pytest.approx(0.1)  # beta h = 1 - tau, h = 4 lr
    assert levers.decay == pytest.approx(1e-4)
    assert levers.decay_of_predictor == pytest.approx(1e-3)
    one_direction, step = from_training(0.01, symmetric=False, momentum=0.9)
    assert step == pytest.approx(0.2) and one_direction.ema_rate is None


def test_from_training__out_of_range():
    with pytest.raises(ValueError, match=r"Invalid tau_base: received 1\.0, accepted:"):
        from_training(0.01, tau_base=1.0)
    with pytest.raises(ValueError, match="Invalid learning_rate: received 0, accepted"):
        from_training(0)


def test_invariant__separate_decays():
    with pytest.raises(ValueError, match="accepted: equal ones"):
        modes.invariant(0.3, 0.2, Levers(decay=0.1, predictor_decay=0.2))
    with pytest.raises(ValueError, match="accepted: equal decays, or decay above 0"):
        modes.eigenvalue_of_f(0.3, Levers(decay=0.0, predictor_decay=0.2))


def test_modes__need_numpy_alone():
    heavy = {"scipy", "matplotlib", "tensorflow", "keras"}
    assert brought_along("tf_dpred, tf_dpred.theory.modes", heavy) == "[]"
