"""Really trained linear networks follow the flow, ever closer with smaller steps."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tf_dpred.theory.levers import from_training

TOOL = Path(__file__).parent.parent / "tools/linear_networks.py"
spec = importlib.util.spec_from_file_location("linear_networks", TOOL)
tool = importlib.util.module_from_spec(spec)
CASES = (
    "EMA target",
    "EMA target, one direction",
    "EMA target, symmetric predictor",
    "SimSiam",
    "no stop-gradient",
    "no predictor",
)


@pytest.fixture(autouse=True)
def float64(policy):
    """The tool sets the precision; this sets it back."""


def setup_module():
    import sys

    sys.modules["linear_networks"] = tool
    spec.loader.exec_module(tool)


@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("EMA target", "SimSiam")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in CASES
    ],
)
def test_training__error_is_linear_in_the_step(name):
    case = tool.cases()[name]
    start, x, x_aug = tool.random_start(case)
    coarse, fine = (tool.error(case, start, x, x_aug, 1.0, n) for n in (100, 200))
    print(f"{name}: {coarse:.2e} {fine:.2e} ratio {coarse / fine:.3f}")
    assert fine < 0.02
    assert coarse / fine == pytest.approx(2, abs=0.15)


def test_training__modes():
    coarse, fine = (tool.mode_errors(2.0, n) for n in (50, 100))
    for name, value in fine.items():
        print(f"{name}_j: {coarse[name]:.2e} {value:.2e}")
        assert value < 2e-3
        assert coarse[name] / value == pytest.approx(2, abs=0.05)


def test_training__another_flow_is_told_apart():
    """The error stays where the flow is not that of the training."""
    cases = tool.cases()
    case, other = cases["SimSiam"], cases["no stop-gradient"]
    start, x, x_aug = tool.random_start(case)
    trained = tool.train(case, start, x, x_aug, 0.01, 100)
    times = np.linspace(0, 1, 101)
    wrong = tool.flow.integrate(other.flow(x, x_aug), other.matrices(start), times)
    assert tool.deviation(trained, wrong) > 0.1


def test_views__exact_moments():
    case = tool.cases()["SimSiam"]
    _, x, x_aug = tool.random_start(case)
    view1, view2 = tool.views(x, x_aug)
    for view in (view1, view2):
        np.testing.assert_allclose(view.T @ view / len(view), x + x_aug, atol=1e-14)
    np.testing.assert_allclose(view1.T @ view2 / len(view1), x, atol=1e-14)


@pytest.mark.parametrize("name", ["EMA target", "EMA target, one direction"])
def test_settings__invert_from_training(name):
    case = tool.cases()[name]
    levers, step = from_training(**case.settings(0.02))
    assert step == pytest.approx(0.02)
    expected = case.levers
    assert levers.ema_rate == pytest.approx(expected.ema_rate)
    assert levers.decay == pytest.approx(expected.decay)
    assert levers.decay_of_predictor == pytest.approx(expected.predictor_decay)
    assert levers.predictor_rate == expected.predictor_rate
