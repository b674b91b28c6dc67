"""Small networks and batches, for the tests that train."""

import keras
import numpy as np
import tensorflow as tf

from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.model import DirectPred
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.optimizers import SGD
from tf_dpred.predictors import Direct
from tf_dpred.records.state import training_state
from tf_dpred.schedules import ema_momentum

INPUTS, HIDDEN, DIM, BATCH = 6, 8, 4, 16
TIGHT = {"rtol": 1e-10, "atol": 1e-12}


def network(name="online", *, seed=0, batch_norm=True):
    """Vectors [n, 6] -> (representation [n, 8], projection [n, 4])."""
    kernel = [
        keras.initializers.GlorotUniform(seed=2 * seed + layer) for layer in range(2)
    ]
    vectors = keras.Input((INPUTS,))
    x = keras.layers.Dense(HIDDEN, kernel_initializer=kernel[0], name="dense")(vectors)
    if batch_norm:
        x = BatchNormalization(name="bn")(x)
    representation = keras.layers.ReLU(name="representation")(x)
    projection = keras.layers.Dense(
        DIM, kernel_initializer=kernel[1], name="projection", dtype=variable_dtype()
    )(representation)
    return keras.Model(vectors, [representation, projection], name=name)


def variable_dtype():
    return keras.config.dtype_policy().variable_dtype


def model(predictor=None, *, target=True, batch_norm=True, **kwargs):
    """An uncompiled DirectPred of two different toy networks; equal every time."""
    keras.utils.set_random_seed(0)
    return DirectPred(
        network("online", seed=1, batch_norm=batch_norm),
        network("target", seed=2, batch_norm=batch_norm) if target else None,
        Direct() if predictor is None else predictor,
        **kwargs,
    )


def views(steps, *, batch=BATCH, seed=0):
    """Two views, arrays [steps, batch, 6] that differ by a little noise."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(steps, batch, INPUTS))
    second = first + 0.3 * rng.normal(size=first.shape)
    return first.astype(keras.config.floatx()), second.astype(keras.config.floatx())


def dataset(pair):
    """The views as one epoch of batches."""
    flat = tuple(view.reshape(-1, view.shape[-1]) for view in pair)
    batches = tf.data.Dataset.from_tensor_slices(flat)
    return batches.batch(pair[0].shape[1], drop_remainder=True)


def fit(trained, pair, *, tau=0.9, callbacks=(), **kwargs):
    """Trains over the views, once; with a constant tau where there is a target."""
    if trained.has_separate_target:
        callbacks = [TargetEMA(ema_momentum("constant", tau, 1)), *callbacks]
    return trained.fit(
        dataset(pair), verbose=0, shuffle=False, callbacks=list(callbacks), **kwargs
    )


def arrays(variables):
    """The values of variables, copied."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def trained(predictor=None, *, steps=3, tau=0.9, compiled=None, **kwargs):
    """A toy model after some steps, run eagerly unless `compiled` says otherwise.

    Tracing takes a hundred times as long as such a step.
    """
    made = model(predictor, **kwargs)
    how = {"run_eagerly": True} if compiled is None else compiled
    made.compile(SGD(0.1, weight_decay=1e-3), **how)
    fit(made, views(steps), tau=tau)
    return made


def state_of(trained):
    """Without the metrics, whose sums depend on how the steps were cut into fits."""
    return {
        name: variable.numpy()
        for name, variable in training_state(trained).items()
        if not name.startswith("metrics/")
    }


def assert_equal_state(found, expected, **tolerance):
    found, expected = state_of(found), state_of(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, **(tolerance or TIGHT), err_msg=name
        )


def compiled(predictor=None, optimizer=None, **kwargs):
    network = model(predictor, **kwargs)
    network.compile(optimizer or SGD(0.1), run_eagerly=True)
    return network


def labelled():
    """Two far classes, which any network tells apart; in batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, INPUTS)).astype(np.float32)
    y = np.arange(12) % 2
    x[:, 0] += 100 * (2 * y - 1)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
