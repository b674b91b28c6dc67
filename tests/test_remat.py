"""A step that keeps few activations has the numbers of one that keeps all."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys
from keras import layers

from tf_dpred import SGD, DirectPred, TargetEMA
from tf_dpred.networks import resnet
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.step import remat

VIEWS = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 12, 3), dtype=np.uint8)


def residual():
    """Residual blocks, a nested model, frozen layers and a Dropout."""
    x = images = keras.Input((12, 12, 3))
    for number in range(4):
        branch = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        branch = layers.ReLU()(BatchNormalization()(branch))
        branch = layers.Dropout(0.3, seed=number)(branch)
        x = layers.Conv2D(4, 1, trainable=number != 1)(x) + branch
    inner = keras.Sequential([keras.Input((12, 12, 4)), layers.Conv2D(6, 3, 2)])
    return keras.Model(images, layers.GlobalAveragePooling2D()(inner(x)))


def plain():
    return keras.Sequential([keras.Input((12, 12, 3)), layers.Flatten()])


def made(make, **settings):
    keras.utils.set_random_seed(1)
    return DirectPred.from_backbone(
        make(), projector=(8, 5), normalize=((0.5,) * 3, (0.5,) * 3), **settings
    )


def trained(model, steps=3, **how):
    model.compile(SGD(0.3), **how)
    data = tf.data.Dataset.from_tensors(tuple(VIEWS)).repeat(steps)
    target = [TargetEMA(0.9)] if model.has_separate_target else []
    model.fit(data, verbose=0, callbacks=target)
    return toys.arrays(model.variables + model.optimizer.variables)


def assert_equal(found, expected, tolerance):
    for value, other in zip(found, expected, strict=True):
        scale = max(np.abs(other).max(initial=0), 1e-2)
        assert np.abs(value - other).max(initial=0) <= tolerance * scale


@pytest.mark.parametrize(
    ("make", "settings", "how"),
    [
        (residual, {}, {}),
        (residual, {"accumulation_steps": 2, "ema": False}, {"run_eagerly": True}),
        (residual, {"symmetric": False}, {"jit_compile": True}),
        (plain, {"symmetric": False}, {}),
    ],
)
def test_train_step__numbers_of_all_activations(make, settings, how):
    model = made(make, **settings)
    again = keras.models.clone_model(model)
    again.remat = True
    for variable, same in zip(again.variables, model.variables, strict=True):
        variable.assign(same)
    assert_equal(trained(again, **how), trained(model, **how), 2e-4)


def test_remat__parts_are_blocks():
    network = made(lambda: resnet.resnet("resnet18", 12, width=0.0625, stem="small"))
    parts = remat.Remat(network.online)._parts
    assert 6 <= len(parts) <= 12
    seen = [id(v) for part in parts for v in part._weights + part._state]
    assert sorted(seen) == sorted(id(v) for v in network.online.variables)
    out = keras.Model(network.online.input, network.online.outputs[1])
    x = tf.cast(VIEWS[0], tf.float32)
    before = toys.arrays(network.online.variables)
    found = remat.Remat(network.online)(x)
    for variable, value in zip(network.online.variables, before, strict=True):
        variable.assign(value)
    np.testing.assert_allclose(found, out(x, training=True), rtol=1e-5, atol=1e-6)


def test_remat__is_saved():
    model = made(residual, remat=True)
    assert keras.models.clone_model(model).remat
