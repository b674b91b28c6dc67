"""The callback that moves the target: exact wherever the step runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys

from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.optimizers import SGD
from tf_dpred.schedules import ema_momentum


def train_with_ema_by_hand(model, pair, schedule):
    """One step at a time, and after each the target moved in numpy."""
    for step in range(len(pair[0])):
        before = toys.arrays(model.target.trainable_variables)
        toys.fit(model, tuple(view[step : step + 1] for view in pair), tau=0.5)
        tau = float(schedule(tf.constant(step, tf.float64)))
        for target, value, online in zip(
            model.target.trainable_variables,
            before,
            toys.arrays(model.online.trainable_variables),
            strict=True,
        ):
            target.assign(tau * value + (1 - tau) * online)


def test_target_ema__exact_at_any_steps_per_execution(policy):
    policy("float64")
    schedule = ema_momentum("cosine", 0.5, 4)
    pair = toys.views(4)
    by_hand = toys.model()
    by_hand.compile(SGD(0.1), run_eagerly=True)
    train_with_ema_by_hand(by_hand, pair, schedule)
    for settings in ({"run_eagerly": True}, {"steps_per_execution": 4}):
        model = toys.model()
        model.compile(SGD(0.1), **settings)
        callbacks = [TargetEMA(schedule)]
        model.fit(toys.dataset(pair), verbose=0, shuffle=False, callbacks=callbacks)
        toys.assert_equal_state(model, by_hand)


@pytest.mark.parametrize("steps_per_execution", [1, 4])
def test_target_ema__logs_the_tau_of_the_last_step(steps_per_execution):
    model = toys.model()
    model.compile(SGD(0.1), steps_per_execution=steps_per_execution, run_eagerly=True)
    callback = TargetEMA(ema_momentum("cosine", 0.9, 8))
    seen = []
    recorder = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["tau"])
    )
    history = model.fit(
        toys.dataset(toys.views(8)),
        verbose=0,
        shuffle=False,
        callbacks=[callback, recorder],
    ).history
    tau = 1 - 0.1 * (1 + np.cos(np.pi * np.arange(8) / 8)) / 2
    ends = slice(steps_per_execution - 1, None, steps_per_execution)
    np.testing.assert_allclose(seen, tau[ends], rtol=1e-6)
    np.testing.assert_allclose(history["tau"], tau[-1:], rtol=1e-6)


def test_target_ema__a_second_fit_uses_the_new_one():
    """Also where the step was traced with the first one."""
    model = toys.trained(steps=1, tau=1.0, compiled={})
    toys.fit(model, toys.views(1), tau=0.0)
    for v, online in zip(
        model.target.trainable_variables, model.online.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(v.numpy(), online.numpy())


def test_target_ema__constant_tau_is_not_rounded(policy):
    """0.996 in float32 is off by 1e-8."""
    policy("float64")
    model = toys.model()
    target = toys.arrays(model.target.trainable_variables)
    model.compile(SGD(0.1), run_eagerly=True)
    toys.fit(model, toys.views(1), tau=0.996)
    online = toys.arrays(model.online.trainable_variables)
    found = toys.arrays(model.target.trainable_variables)
    for f, t, o in zip(found, target, online, strict=True):
        np.testing.assert_allclose(f, 0.996 * t + (1 - 0.996) * o, rtol=1e-14)


def test_target_ema__on_a_shared_network():
    model = toys.model(target=False)
    model.compile(SGD(0.1), run_eagerly=True)
    with pytest.raises(ValueError, match="target is its online network, accepted: a"):
        model.fit(
            toys.dataset(toys.views(1)),
            verbose=0,
            shuffle=False,
            callbacks=[TargetEMA(ema_momentum("constant", 0.9, 1))],
        )


def test_target_ema__traced_once_for_several_fits():
    model = toys.model()
    model.compile(SGD(0.1))

    def step_after_fit(callback):
        model.fit(toys.dataset(toys.views(1)), verbose=0, callbacks=[callback])
        return model.train_function

    callback = TargetEMA(ema_momentum("constant", 0.5, 4))
    first = step_after_fit(callback)
    assert step_after_fit(callback) is first
    # Another one moves the target in another way.
    assert step_after_fit(TargetEMA(ema_momentum("constant", 0.9, 4))) is not first
