"""The training step in float32, bfloat16 and float16, with its loss scale."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys
from devices import on_two_devices, strategy

from tf_dpred.callbacks.health import ReportLossScale
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.predictors import Direct, Linear
from tf_dpred.records.state import training_state
from tf_dpred.step import loss_scale


def moved(precision, policy, steps=1):
    """How far the learned variables go, in one vector."""
    policy(precision)
    model = toys.model(Linear())
    before = toys.arrays(model.learned_variables)
    model.compile(SGD(0.1), run_eagerly=True)
    toys.fit(model, toys.views(steps))
    after = toys.arrays(model.learned_variables)
    return np.concatenate([np.ravel(a - b) for a, b in zip(after, before, strict=True)])


def test_mixed_float16__is_near_float32(policy):
    expected, found = (moved(name, policy) for name in ("float32", "mixed_float16"))
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_mixed_bfloat16__is_near_float32(policy):
    results = []
    for precision in ("float32", "mixed_bfloat16"):
        policy(precision)
        model = toys.model()
        model.compile(SGD(0.1), run_eagerly=True)
        loss = toys.fit(model, toys.views(2)).history["loss"][0]
        results.append((loss, np.array(model.predictor.correlation)))
    assert results[1][0] == pytest.approx(results[0][0], abs=0.02)
    largest = np.abs(results[0][1]).max()
    np.testing.assert_allclose(results[1][1], results[0][1], atol=0.03 * largest)


def tiny_gradients(precision, policy, factor):
    """Of a loss so small that float16 alone would lose them."""
    policy(precision)
    model = toys.model(Linear(), loss="mse")
    distance = model.distance
    model.distance = lambda *given: factor * distance(*given)
    model.compile(SGD(1.0 / factor, momentum=0.0), run_eagerly=True)
    before = toys.arrays(model.learned_variables)
    toys.fit(model, toys.views(1))
    after = toys.arrays(model.learned_variables)
    return np.concatenate([np.ravel(a - b) for a, b in zip(after, before, strict=True)])


def test_mixed_float16__keeps_small_gradients(policy):
    """Through the ReLU and below they are float16, whose smallest number is 6e-8."""
    expected, found = (
        tiny_gradients(name, policy, 1e-6) for name in ("float32", "mixed_float16")
    )
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_mixed_float16__an_overflow_is_dropped_but_counts(policy):
    policy("mixed_float16")
    model = toys.model(Direct())
    model.compile(SGD(0.1), run_eagerly=True)
    model.loss_scale.scale.assign(2.0**40)  # more than float16 holds
    learned = toys.arrays(model.learned_variables)
    momenta = toys.arrays(model.optimizer.variables[2:])
    toys.fit(model, toys.views(1))
    for now, before in zip(
        toys.arrays(model.learned_variables + model.optimizer.variables[2:]),
        learned + momenta,
        strict=True,
    ):
        np.testing.assert_array_equal(now, before)
    assert model.steps_done == 1
    assert float(model.loss_scale.scale.numpy()) == 2.0**39
    assert int(model.loss_scale.dropped.numpy()) == 1
    assert model.finite.describe() is None
    # The rest of the step does not depend on the gradients.
    assert np.any(model.predictor.correlation)


def test_mixed_float16__finds_its_scale(policy):
    """From far too large: halved until it fits, and the run goes on."""
    policy("mixed_float16")
    model = toys.model(Direct())
    model.compile(SGD(0.1))
    model.loss_scale.scale.assign(2.0**40)
    before = toys.arrays(model.learned_variables)
    toys.fit(model, toys.views(40))
    scale = float(model.loss_scale.scale.numpy())
    dropped = int(model.loss_scale.dropped.numpy())
    assert 1 < scale == 2.0 ** (40 - dropped)
    assert dropped < 30
    after = toys.arrays(model.learned_variables)
    assert all(np.any(a != b) for a, b in zip(after, before, strict=True))
    assert all(np.isfinite(a).all() for a in after)


def test_mixed_float16__a_gradient_that_never_fits_is_reported(policy):
    policy("mixed_float16")
    model = toys.model(Direct())
    model.compile(SGD(0.1), run_eagerly=True)
    model.loss_scale.scale.assign(4.0)
    distance = model.distance
    model.distance = lambda p, z, f: distance(p, z, f) + tf.sqrt(0.0 * p[:, 0])
    toys.fit(model, toys.views(4))
    # At 4 and 2: dropped. At 1 it is no matter of the scale.
    assert model.finite.describe() == "gradient norm is not finite at step 2"
    assert float(model.loss_scale.scale.numpy()) == 1


def test_loss_scale__grows_after_enough_good_steps(monkeypatch):
    monkeypatch.setattr(loss_scale, "GROWTH_STEPS", 3)
    layer, good = loss_scale.LossScale(), [tf.ones([2])]
    scales = []
    for _ in range(7):
        assert layer.observe(good)
        scales.append(float(layer.scale.numpy()) / loss_scale.FIRST)
    assert scales == [1, 1, 2, 2, 2, 4, 4]
    assert not layer.observe([tf.constant([1.0, np.inf])])
    assert float(layer.scale.numpy()) == 2 * loss_scale.FIRST
    assert int(layer.good_steps.numpy()) == 0


def test_loss_scale__has_a_largest_value():
    layer = loss_scale.LossScale()
    layer.scale.assign(loss_scale.LARGEST)
    layer.good_steps.assign(loss_scale.GROWTH_STEPS - 1)
    assert layer.observe([tf.ones([2])])
    assert float(layer.scale.numpy()) == loss_scale.LARGEST


def test_report_loss_scale__in_the_logs(policy):
    policy("mixed_float16")
    model = toys.model()
    model.compile(SGD(0.1), run_eagerly=True)
    model.loss_scale.scale.assign(2.0**40)
    history = toys.fit(model, toys.views(2), callbacks=[ReportLossScale()]).history
    assert history["loss_scale"] == [2.0**38]
    assert history["dropped_steps"] == [2]


@pytest.mark.parametrize(
    ("settings", "compiled"),
    [
        ({"accumulation_steps": 4}, {"run_eagerly": True}),
        ({"skip_nonfinite": True}, {"run_eagerly": True}),
        pytest.param({}, {"jit_compile": True}, marks=pytest.mark.slow),
    ],
    ids=["accumulation", "skip_nonfinite", "jit"],
)
def test_mixed_float16__the_same_in_other_ways(settings, compiled, policy):
    """The first step overflows for sure; it is dropped, and the others are equal."""
    policy("mixed_float16")
    found = []
    for own, how in (({}, {"run_eagerly": True}), (settings, compiled)):
        model = toys.model(Direct(), batch_norm=False, **own)
        model.compile(SGD(0.1), **how)
        model.distance = _infinite_in_the_first_step(model.distance, model.optimizer)
        loss = toys.fit(model, toys.views(5)).history["loss"][0]
        scale = float(model.loss_scale.scale.numpy())
        found.append((loss, scale, int(model.loss_scale.dropped.numpy())))
    assert found[0][1:] == found[1][1:] == (loss_scale.FIRST / 2, 1)
    assert found[1][0] == pytest.approx(found[0][0], abs=0.01)


def _infinite_in_the_first_step(distance, optimizer):
    return lambda p, z, f: distance(
        _infinite_gradient(p, tf.convert_to_tensor(optimizer.iterations) == 0), z, f
    )


def _infinite_gradient(x, where):
    factor = tf.where(where, np.inf, 1.0)
    return tf.custom_gradient(lambda x: (x, lambda dy: dy * tf.cast(factor, dy.dtype)))(
        x
    )


def test_loss_scale__multiply_and_divide():
    layer = loss_scale.LossScale()
    assert float(layer.multiply(tf.constant(3.0))) == 3 * 2.0**15
    (found,) = layer.divide([tf.constant([2.0**15], tf.float16)])
    np.testing.assert_array_equal(found, [1.0])
    assert found.dtype == tf.float32


def train_with_one_overflow(replicas):
    """The second replica's images alone make the gradients overflow in step 1."""
    devices = strategy(replicas)
    with devices.scope():
        model = toys.model(Direct(), batch_norm=False)
        model.compile(LARS(0.1, eta=0.1))
    half = slice(toys.BATCH // 2, None)
    scale_before = float(model.loss_scale.scale.numpy())
    pair = toys.views(4)
    model.distance = _overflow_where_marked(model.distance)
    for view in pair:
        view[1, half, 0] = 300.0  # the mark
    toys.fit(model, pair)
    state = {
        key: [t.numpy() for t in devices.experimental_local_results(variable.value)]
        for key, variable in training_state(model).items()
    }
    return state, scale_before


def _overflow_where_marked(distance):
    return lambda p, z, f: distance(
        _infinite_gradient(p, tf.reduce_max(tf.abs(f)) > 20), z, f
    )


def test_mixed_float16__an_overflow_on_one_of_two_replicas():
    """Dropped on both: Keras' own would ask the first one, and apply infinity."""
    state, scale = on_two_devices(train_with_one_overflow, 2, precision="mixed_float16")
    for key, (first, second) in state.items():
        np.testing.assert_array_equal(first, second, err_msg=key)
        assert np.isfinite(first).all(), key
    numbers = {key.rpartition("/")[2]: value[0] for key, value in state.items()}
    assert numbers["dropped"] == 1
    assert numbers["scale"] == scale / 2
    assert state["optimizer/0000"][0] == 4


def test_compile__refuses_a_loss_scale_optimizer():
    with pytest.raises(ValueError, match="received a LossScaleOptimizer, accepted"):
        toys.model().compile(keras.optimizers.LossScaleOptimizer(SGD(0.1)))
