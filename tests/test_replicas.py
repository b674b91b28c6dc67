"""One, two and four devices train to the same numbers."""

import functools
import itertools

import numpy as np
import pytest
import toys
from devices import on_devices, strategy
from keras.optimizers.schedules import CosineDecay

from tf_dpred.losses import LOSSES
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.predictors import PREDICTORS, Direct
from tf_dpred.records.state import training_state

STEPS = 20
# Largest difference, relative to the largest value of a variable. In float32 a large
# network would not stay below it: see docs/devices.md.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


# Predictor and its settings, loss, steps: between them all predictors and all losses.
# The slow ones differ from the others in what is computed on one device alone.
KINDS = {
    "optimal": ({"freq": 2, "rho": None}, "mse"),
    "mlp": ({"predictor_hidden": 6, "predictor_bias": True}, "cosine"),
    "direct_copy": ({"centered": True}, "iso"),
    "symmetric_mlp": ({"predictor_hidden": 6, "predictor_bn": "plain"}, "mse"),
    "direct": ({"solver": "newton_schulz"}, "iso"),
    "direct_set": ({"freq": 3, "rho": 0.9}, "cosine"),
    "linear": ({"predictor_bias": True, "predictor_shrinkage": 0.1}, "cosine"),
    "symmetric": ({}, "mse"),
    "none": ({}, "iso"),
}
FAST = ("optimal", "mlp", "direct_copy")


def train_kind_on(replicas, name):
    """State on each replica after four steps of a predictor and a loss."""
    settings, loss = KINDS[name]
    devices = strategy(replicas)
    with devices.scope():
        model = toys.model(PREDICTORS[name](**settings), loss=loss)
        # An image whose representation is all 0 is projected to the biases. At 0, and
        # in front of a BatchNorm, these stay rounding errors, whose direction counts.
        for network in (model.online, model.target):
            network.get_layer("projection").bias.assign(np.full(toys.DIM, 0.1))
        model.compile(SGD(0.1, weight_decay=1e-2))
    toys.fit(model, toys.views(4))
    return {
        key: [t.numpy() for t in devices.experimental_local_results(variable.value)]
        for key, variable in training_state(model).items()
    }


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in KINDS],
)
def test_replicas__every_predictor_and_loss(name):
    one = on_devices(2, train_kind_on, 1, name, precision="float64")
    two = on_devices(2, train_kind_on, 2, name, precision="float64")
    assert one.keys() == two.keys()
    for key, (expected,) in one.items():
        first, second = two[key]
        np.testing.assert_array_equal(first, second, err_msg=key)
        scale = max(np.max(np.abs(expected)), 1e-2)
        assert np.max(np.abs(first - expected)) < 1e-9 * scale, key


def test_kinds__are_all_predictors_and_losses():
    assert {*KINDS} == {*PREDICTORS}
    assert {loss for _, loss in KINDS.values()} == {*LOSSES}


def train_on(replicas, optimizer, freq):
    """State on each replica, and logs, after a run on so many devices."""
    devices = strategy(replicas)
    with devices.scope():
        model = toys.model(Direct(freq=freq))
        settings = {}
        if optimizer == "sgd":
            rule = SGD(0.1, weight_decay=1e-2)
        else:
            rule = LARS(CosineDecay(0.5, STEPS), weight_decay=1e-2, eta=0.1)
            if freq > 1:
                settings = {"predictor_learning_rate": CosineDecay(1.0, STEPS)}
        model.compile(rule, **settings)
    history = toys.fit(model, toys.views(STEPS)).history
    state = {
        key: [t.numpy() for t in devices.experimental_local_results(variable.value)]
        for key, variable in training_state(model).items()
        if not key.startswith("metrics/")
    }
    return state, history


@functools.cache
def one_device(optimizer, freq, precision):
    return on_devices(2, train_on, 1, optimizer, freq, precision=precision)


@pytest.mark.parametrize(
    ("replicas", "optimizer", "freq", "precision"),
    [
        (2, "sgd", 1, "float64"),
        (4, "lars", 5, "float32"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product(
                (2, 4), ("lars",), (1, 5), ("float64", "float32")
            )
            if case != (4, "lars", 5, "float32")
        ),
    ],
)
def test_replicas__equal_one_device(replicas, optimizer, freq, precision):
    """Equal to the bit on all replicas, and equal to one with the whole batch."""
    one, one_history = one_device(optimizer, freq, precision)
    found, history = on_devices(
        replicas, train_on, replicas, optimizer, freq, precision=precision
    )
    assert one.keys() == found.keys()
    bound = TOLERANCE[precision]
    for key, (expected,) in one.items():
        assert len(found[key]) == replicas, key
        for value in found[key]:
            np.testing.assert_array_equal(value, found[key][0], err_msg=key)
        # Biases in front of BatchNorm are zero but for rounding.
        scale = max(np.max(np.abs(expected)), 1e-2)
        assert np.max(np.abs(found[key][0] - expected)) < bound * scale, key
    for name, values in one_history.items():
        np.testing.assert_allclose(history[name], values, rtol=bound, err_msg=name)
