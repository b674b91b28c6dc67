"""BatchNormalization: fused, plain, numpy and two devices must all agree."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import on_two_devices, strategy

from tf_dpred.networks.normalization import BatchNormalization

CHANNELS, COUNT = 3, 6 * 4 * 5
# Rank 4 takes the fused op, rank 2 the plain equations, over the same numbers.
SHAPES = {4: (6, 4, 5, CHANNELS), 2: (COUNT, CHANNELS)}


def layer(rank, **kwargs):
    """Built, with weights that are not the initial ones."""
    bn = BatchNormalization(**kwargs)
    bn.build(SHAPES[rank])
    for index, weight in enumerate(bn.weights):
        weight.assign(np.linspace(0.5, 1.5, CHANNELS) + 0.1 * index)
    return bn


def images(rank, seed=0):
    return np.random.default_rng(seed).normal(2, 3, SHAPES[rank])


def by_numpy(x, bn, mean, variance):
    normal = (x - mean) / np.sqrt(variance + 1e-5)
    return bn.gamma.numpy() * normal + bn.beta.numpy()


def moments(x):
    flat = x.reshape(-1, CHANNELS)
    return flat.mean(axis=0), flat.var(axis=0)


@pytest.mark.parametrize("rank", [4, 2])
def test_training__numpy(rank):
    bn, x = layer(rank), images(rank)
    mean, variance = moments(x)
    running = [w.numpy() for w in (bn.moving_mean, bn.moving_variance)]
    y = bn(tf.constant(x, tf.float32), training=True)
    expected = by_numpy(x, bn, mean, variance)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    unbiased = variance * COUNT / (COUNT - 1)
    for weight, old, new in zip(
        (bn.moving_mean, bn.moving_variance), running, (mean, unbiased), strict=True
    ):
        np.testing.assert_allclose(weight.numpy(), 0.9 * old + 0.1 * new, rtol=1e-5)


@pytest.mark.parametrize("rank", [4, 2])
def test_training__numpy_float64(rank, policy):
    policy("float64")
    bn, x = layer(rank, momentum=0.5), images(rank)
    mean, variance = moments(x)
    old = bn.moving_variance.numpy()
    y = bn(tf.constant(x), training=True)
    expected = by_numpy(x, bn, mean, variance)
    assert y.dtype == tf.float64
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    unbiased = variance * COUNT / (COUNT - 1)
    np.testing.assert_allclose(
        bn.moving_variance.numpy(), 0.5 * old + 0.5 * unbiased, rtol=1e-12
    )


@pytest.mark.parametrize("rank", [4, 2])
@pytest.mark.parametrize("frozen", [False, True])
def test_inference__running_statistics(rank, frozen):
    """`trainable = False` means inference, also in training, as in Keras."""
    bn, x = layer(rank), images(rank)
    bn.trainable = not frozen
    before = [w.numpy() for w in bn.weights]
    y = bn(tf.constant(x, tf.float32), training=frozen)
    expected = by_numpy(x, bn, bn.moving_mean.numpy(), bn.moving_variance.numpy())
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    for weight, value in zip(bn.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def gradients(bn, x, upstream):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        weighted = tf.reduce_sum(bn(x, training=True) * tf.cast(upstream, tf.float32))
    return tape.gradient(weighted, [x, bn.gamma.value, bn.beta.value])


def test_training__fused_and_plain_gradients_agree():
    fused, plain = (
        gradients(layer(rank), images(rank), images(rank, seed=1)) for rank in (4, 2)
    )
    np.testing.assert_allclose(tf.reshape(fused[0], SHAPES[2]), plain[0], atol=1e-5)
    for found, expected in zip(fused[1:], plain[1:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("rank", [4, 2])
def test_training__no_gamma_and_beta(rank):
    bn, x = layer(rank, center=False, scale=False), images(rank)
    assert bn.trainable_variables == []
    mean, variance = moments(x)
    y = bn(tf.constant(x, tf.float32), training=True)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("rank", [4, 2])
@pytest.mark.parametrize("training", [True, False])
def test_bfloat16__statistics_in_float32(rank, training, policy):
    policy("mixed_bfloat16")
    bn = layer(rank)
    x = tf.cast(images(rank) + 30, tf.bfloat16)
    exact = tf.cast(x, tf.float64).numpy()
    old = bn.moving_mean.numpy()
    y = bn(x, training=training)
    assert y.dtype == tf.bfloat16
    assert {w.dtype for w in bn.weights} == {"float32"}
    if training:
        mean, variance = moments(exact)
        # bfloat16 would be off by up to 4e-3.
        np.testing.assert_allclose(
            bn.moving_mean.numpy(), 0.9 * old + 0.1 * mean, rtol=1e-5
        )
    else:
        mean, variance = bn.moving_mean.numpy(), bn.moving_variance.numpy()
    expected = by_numpy(exact, bn, mean, variance)
    np.testing.assert_allclose(tf.cast(y, tf.float32), expected, rtol=1e-2, atol=1e-2)


def test_training__large_mean_small_variance():
    """E[x^2] - E[x]^2 would lose all digits of this variance."""
    bn = layer(2, momentum=0.0)
    x = np.random.default_rng(0).normal(1e4, 1, SHAPES[2]).astype(np.float32)
    bn(tf.constant(x), training=True)
    expected = x.astype(np.float64).var(axis=0, ddof=1)
    np.testing.assert_allclose(bn.moving_variance.numpy(), expected, rtol=1e-4)


def test_training__in_a_function_as_eagerly():
    eager, graph = layer(4), layer(4)
    x = tf.constant(images(4), tf.float32)
    expected = eager(x, training=True)
    found = tf.function(lambda x: graph(x, training=True))(x)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for a, b in zip(graph.weights, eager.weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_config__round_trip():
    bn = BatchNormalization(momentum=0.8, epsilon=1e-3, scale=False)
    copy = BatchNormalization.from_config(bn.get_config())
    assert copy.get_config() == bn.get_config()
    assert (copy.momentum, copy.epsilon, copy.scale) == (0.8, 1e-3, False)


def test_defaults__of_the_field():
    bn = BatchNormalization()
    assert (bn.momentum, bn.epsilon) == (0.9, 1e-5)


def train_on(replicas, rank):
    """Outputs, gradients and running statistics of one call on a split batch."""
    devices = strategy(replicas)
    with devices.scope():
        bn = layer(rank)

    def split(array):
        share = len(array) // replicas
        return devices.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                array[context.replica_id_in_sync_group * share :][:share],
                keras.config.floatx(),
            )
        )

    def run(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = bn(x, training=True)
            weighted = tf.reduce_sum(y * upstream)
        return y, *tape.gradient(weighted, [x, bn.gamma.value, bn.beta.value])

    def local(value):
        return [t.numpy() for t in devices.experimental_local_results(value)]

    results = tf.function(lambda *views: devices.run(run, views))(
        split(images(rank)), split(images(rank, seed=1))
    )
    y, dx, dgamma, dbeta = (local(result) for result in results)
    return {
        "y": np.concatenate(y),
        "dx": np.concatenate(dx),
        "dgamma": sum(dgamma),
        "dbeta": sum(dbeta),
        "mean": np.array(local(bn.moving_mean.value)),
        "variance": np.array(local(bn.moving_variance.value)),
    }


@pytest.mark.parametrize("rank", [4, 2])
def test_replicas__two_equal_one_with_the_whole_batch(rank):
    one = on_two_devices(train_on, 1, rank, precision="float64")
    two = on_two_devices(train_on, 2, rank, precision="float64")
    assert two["mean"].shape == (2, CHANNELS)
    for name, expected in one.items():
        # The statistics' one row is compared with the row of each replica.
        np.testing.assert_allclose(two[name] - expected, 0, atol=1e-12)


def test_replicas__two_equal_the_fused_op_of_one():
    one = on_two_devices(train_on, 1, 4)
    two = on_two_devices(train_on, 2, 4)
    for name, expected in one.items():
        np.testing.assert_allclose(two[name] - expected, 0, atol=1e-4)
