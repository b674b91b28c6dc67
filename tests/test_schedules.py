"""Schedules against BYOL's code and at their corners."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import schedules


def rates(schedule, steps):
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


def test_ema_momentum__golden(golden):
    arrays = golden("schedules")
    tau = schedules.ema_momentum(
        "cosine", float(arrays["base_ema"]), int(arrays["max_steps"])
    )
    found = [float(tau(tf.constant(step, tf.float64))) for step in arrays["ema_step"]]
    worst = np.abs(found - arrays["ema"]).max()
    print(f"schedules: ema {worst:.2e}")
    assert worst < 1e-6


def test_learning_rate__golden(golden):
    arrays = golden("schedules")
    peak = schedules.peak_learning_rate(
        float(arrays["base_learning_rate"]), int(arrays["batch_size"])
    )
    schedule = schedules.learning_rate(
        "cosine", peak, int(arrays["warmup_steps"]), int(arrays["max_steps"])
    )
    found = rates(schedule, arrays["lr_step"])
    worst = np.abs(found - arrays["lr"]).max() / arrays["lr"].max()
    print(f"schedules: lr {worst:.2e}")
    assert worst < 1e-6


def test_peak_learning_rate__linear_scaling():
    assert schedules.peak_learning_rate(0.3, 4096) == pytest.approx(4.8)
    assert schedules.peak_learning_rate(0.06, 128) == pytest.approx(0.03)


def test_learning_rate__constant_is_a_number():
    assert schedules.learning_rate("constant", 0.5, 0, 10) == 0.5


@pytest.mark.parametrize(
    ("kind", "warmup", "total", "expected"),
    [
        # 2 (1 + cos(pi s / 4)) / 2, and the end held
        ("cosine", 0, 4, [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0, 0]),
        ("cosine", 1, 3, [0, 2, 1, 0, 0]),
        ("cosine", 4, 6, [0, 0.5, 1, 1.5, 2, 1, 0]),
        ("constant", 1, 3, [0, 2, 2, 2]),
        ("constant", 4, 5, [0, 0.5, 1, 1.5, 2, 2, 2]),
    ],
)
def test_learning_rate__corners(kind, warmup, total, expected):
    schedule = schedules.learning_rate(kind, 2.0, warmup, total)
    found = rates(schedule, range(len(expected)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("warmup", [-1, 10, 11])
def test_learning_rate__warmup_out_of_range(warmup):
    with pytest.raises(ValueError, match=f"received {warmup}, .*total_steps=10"):
        schedules.learning_rate("cosine", 1.0, warmup, 10)


def test_learning_rate__unknown_kind():
    with pytest.raises(ValueError, match="received 'step', accepted: cosine, constant"):
        schedules.learning_rate("step", 1.0, 0, 10)


@pytest.mark.parametrize("tau_base", [0.0, 0.996, 1.0])
def test_ema_momentum__constant(tau_base):
    tau = schedules.ema_momentum("constant", tau_base, 10)
    assert [tau(tf.constant(float(step))) for step in (0, 5, 99)] == [tau_base] * 3


def test_ema_momentum__cosine_by_hand():
    tau = schedules.ema_momentum("cosine", 0.9, 4)
    found = [float(tau(tf.constant(step, tf.float64))) for step in range(5)]
    gap = 0.1 * (1 + np.cos(np.pi * np.arange(5) / 4)) / 2
    np.testing.assert_allclose(found, 1 - gap, rtol=1e-14)
    assert found[-1] == 1.0


@pytest.mark.parametrize("tau_base", [-0.1, 1.1, math.nan])
def test_ema_momentum__tau_out_of_range(tau_base):
    with pytest.raises(ValueError, match=f"received {tau_base}, accepted: .0, 1."):
        schedules.ema_momentum("cosine", tau_base, 10)


def test_ema_momentum__unknown_kind():
    with pytest.raises(ValueError, match="received 'warm', accepted: constant, cosine"):
        schedules.ema_momentum("warm", 0.9, 10)


def test_ema_momentum__cosine_stays_at_1_after_the_end():
    tau = schedules.ema_momentum("cosine", 0.9, 4)
    assert float(tau(tf.constant(6.0))) == 1.0
