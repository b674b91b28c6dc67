"""LARS against BYOL's code, SGD against PyTorch's equations, both by hand."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

from tf_dpred.optimizers import LARS, SGD

LARS_VARIABLES = (
    "batchnorm/offset",
    "batchnorm/scale",
    "conv/w",
    "dense/b",
    "dense/w",
    "zero/w",
)


class Table(LearningRateSchedule):
    """The rates of a table, one a step."""

    def __init__(self, rates):
        self.rates = np.asarray(rates)

    def __call__(self, step):
        return tf.gather(tf.constant(self.rates, keras.config.floatx()), step)

    def get_config(self):
        return {"rates": self.rates.tolist()}


def variable(value, name="v"):
    return keras.Variable(np.asarray(value, keras.config.floatx()), name=name)


def pair():
    """A kernel and a bias, and gradients for them."""
    rng = np.random.default_rng(0)
    kernel, bias, kernel_grad, bias_grad = (
        rng.normal(size=shape) for shape in [(3, 2), (2,)] * 2
    )
    return [variable(kernel, "kernel"), variable(bias, "bias")], [
        tf.constant(g, keras.config.floatx()) for g in (kernel_grad, bias_grad)
    ]


def stepped(optimizer, steps=1, groups=()):
    """The pair after some steps with the same gradients -> before, after, grads."""
    variables, grads = pair()
    before = [v.numpy() for v in variables]
    for index, settings in groups:
        optimizer.set_group([variables[index]], **settings)
    optimizer.build(variables)
    for _ in range(steps):
        optimizer.apply(grads, variables)
    return before, [v.numpy() for v in variables], [g.numpy() for g in grads]


# Reference numbers.


@pytest.mark.parametrize("fed", ["schedule", "assigned"])
def test_lars__golden(fed, golden):
    arrays = golden("lars")
    eta, momentum, decay = (float(x) for x in arrays["meta"])
    rates = arrays["lrs"]
    optimizer = LARS(
        Table(rates) if fed == "schedule" else 0.0, momentum, decay, eta=eta
    )
    variables = [variable(arrays[f"init/{name}"]) for name in LARS_VARIABLES]
    optimizer.build(variables)
    named = zip(LARS_VARIABLES, variables, strict=True)
    excluded = {name for name, v in named if optimizer.is_excluded(v)}
    assert excluded == {"dense/b", "batchnorm/offset", "batchnorm/scale"}
    found = {}
    for step, rate in enumerate(rates):
        if fed == "assigned":
            optimizer.learning_rate = float(rate)
        grads = [tf.constant(arrays[f"grad{step}/{name}"]) for name in LARS_VARIABLES]
        optimizer.apply(grads, variables)
        for v, name in zip(variables, LARS_VARIABLES, strict=True):
            expected = arrays[f"param{step}/{name}"]
            error = np.abs(v.numpy() - expected).max() / np.abs(expected).max()
            found[f"{step}/{name}"] = error
    assert len(found) == 12 * len(LARS_VARIABLES)
    worst = max(found, key=found.get)
    print(f"lars: {found[worst]:.2e} ({worst})")
    assert found[worst] < 1e-5, worst


def test_sgd__torch_equations_over_five_steps(policy):
    policy("float64")
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (3,), (2, 2, 3, 5)]
    values = [rng.normal(size=shape) for shape in shapes]
    variables = [variable(value) for value in values]
    optimizer = SGD(0.1, momentum=0.9, weight_decay=0.05)
    optimizer.build(variables)
    buffers = [None] * len(values)
    for _ in range(5):
        grads = [rng.normal(size=shape) for shape in shapes]
        optimizer.apply([tf.constant(g) for g in grads], variables)
        # torch.optim.SGD: the first step sets the buffer.
        for i, (value, grad) in enumerate(zip(values, grads, strict=True)):
            d = grad + 0.05 * value
            buffers[i] = d if buffers[i] is None else 0.9 * buffers[i] + d
            values[i] = value - 0.1 * buffers[i]
    for v, value in zip(variables, values, strict=True):
        np.testing.assert_allclose(v.numpy(), value, rtol=1e-13)


# One step by hand.


def test_sgd__one_step():
    optimizer = SGD(0.5, momentum=0.9, weight_decay=0.1)
    weights = variable([1.0, -2.0])
    optimizer.build([weights])
    optimizer.apply([tf.constant([0.3, 0.4])], [weights])
    # d = g + 0.1 w = (0.4, 0.2); w - 0.5 d
    np.testing.assert_allclose(weights.numpy(), [0.8, -2.1], rtol=1e-6)


def test_lars__one_step():
    optimizer = LARS(2.0, momentum=0.9, weight_decay=0.5, eta=0.1)
    kernel, bias = variable([[3.0, 4.0]]), variable([3.0, 4.0])
    optimizer.build([kernel, bias])
    grad = [4.5, -2.0]
    optimizer.apply([tf.constant([grad]), tf.constant(grad)], [kernel, bias])
    # d = g + 0.5 w = (6, 0), |d| = 6, |w| = 5; w - 2 * (0.1 * 5/6) d
    np.testing.assert_allclose(kernel.numpy(), [[2.0, 4.0]], rtol=1e-6)
    # excluded: w - 2 g
    np.testing.assert_allclose(bias.numpy(), [-6.0, 8.0], rtol=1e-6)


def test_lars__learning_rate_outside_the_momentum():
    """A rate of 0 in the second step stops at once: the buffer holds no rate."""
    first = stepped(LARS(Table([1.0, 0.0]), weight_decay=0.0), steps=1)
    second = stepped(LARS(Table([1.0, 0.0]), weight_decay=0.0), steps=2)
    np.testing.assert_array_equal(first[1][0], second[1][0])
    assert (first[1][0] != first[0][0]).all()


@pytest.mark.parametrize("zero", ["weight", "gradient"])
def test_lars__ratio_is_one_where_a_norm_is_zero(zero):
    kernel = variable(np.zeros([2, 2]) if zero == "weight" else np.ones([2, 2]))
    grad = np.full([2, 2], 0.0 if zero == "gradient" else 0.25)
    optimizer = LARS(2.0, weight_decay=0.0)
    optimizer.build([kernel])
    before = kernel.numpy()
    optimizer.apply([tf.constant(grad, tf.float32)], [kernel])
    np.testing.assert_allclose(kernel.numpy(), before - 2.0 * grad)


@pytest.mark.parametrize("cls", [SGD, LARS])
def test_optimizer__zero_gradient_and_weight_stay_zero(cls):
    kernel = variable(np.zeros([2, 2]))
    optimizer = cls(1.0, weight_decay=0.1)
    optimizer.build([kernel])
    for _ in range(3):
        optimizer.apply([tf.zeros([2, 2])], [kernel])
    np.testing.assert_array_equal(kernel.numpy(), np.zeros([2, 2]))


# Exclusions.


def test_lars__excluded_by_rank():
    optimizer = LARS()
    by_rank = [optimizer.is_excluded(variable(np.ones([2] * r))) for r in range(5)]
    assert by_rank == [True, True, False, False, False]


def test_lars__regex_only_adds():
    optimizer = LARS(exclude=["head", "^nothing$"])
    head = variable(np.ones([2, 2]), "head_kernel")
    body = variable(np.ones([2, 2]), "body_kernel")
    bias = variable(np.ones([2]), "body_bias")
    excluded = [optimizer.is_excluded(v) for v in (head, body, bias)]
    assert excluded == [True, False, True]
    optimizer.build([head, body, bias])
    optimizer.apply([tf.ones([2, 2]), tf.ones([2, 2]), tf.ones([2])])
    np.testing.assert_allclose(head.numpy(), np.ones([2, 2]) - optimizer.learning_rate)
    assert np.abs(body.numpy() - 1).max() < 0.01


@pytest.mark.parametrize("cls", [SGD, LARS])
@pytest.mark.parametrize("how", ["var_list", "var_names"])
def test_optimizer__keras_exclude_from_weight_decay(cls, how):
    kernels = [variable(np.ones([2, 2]), name) for name in ("first", "second")]
    optimizer = cls(1.0, weight_decay=0.5)
    excluded = {"var_list": [kernels[0]]} if how == "var_list" else {how: ["first"]}
    optimizer.exclude_from_weight_decay(**excluded)
    optimizer.build(kernels)
    optimizer.apply([tf.zeros([2, 2])] * 2, kernels)
    np.testing.assert_array_equal(kernels[0].numpy(), np.ones([2, 2]))
    assert (kernels[1].numpy() < 1).all()


# Groups.


def test_set_group__weight_decay():
    before, after, grads = stepped(
        SGD(0.1, weight_decay=0.5), groups=[(0, {"weight_decay": 0.25})]
    )
    expected = [
        b - 0.1 * (g + decay * b)
        for b, g, decay in zip(before, grads, [0.25, 0.5], strict=True)
    ]
    for found, value in zip(after, expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-6)


def test_set_group__no_weight_decay():
    before, after, grads = stepped(
        SGD(0.1, weight_decay=0.5), groups=[(0, {"weight_decay": 0.0})]
    )
    np.testing.assert_allclose(after[0], before[0] - 0.1 * grads[0], rtol=1e-6)


def test_set_group__learning_rate_number():
    before, after, grads = stepped(SGD(0.1), groups=[(0, {"learning_rate": 0.5})])
    np.testing.assert_allclose(after[0], before[0] - 0.5 * grads[0], rtol=1e-6)
    np.testing.assert_allclose(after[1], before[1] - 0.1 * grads[1], rtol=1e-6)


@pytest.mark.parametrize("base", ["number", "schedule"])
def test_set_group__learning_rate_schedule(base):
    rate = 0.1 if base == "number" else Table([0.1, 0.1, 0.1])
    before, after, grads = stepped(
        SGD(rate, momentum=0.0),
        steps=3,
        groups=[(0, {"learning_rate": Table([1.0, 0.25, 0.0])})],
    )
    np.testing.assert_allclose(after[0], before[0] - 1.25 * grads[0], rtol=1e-5)
    np.testing.assert_allclose(after[1], before[1] - 0.3 * grads[1], rtol=1e-5)


def test_set_group__decay_does_not_undo_an_exclusion():
    before, after, grads = stepped(
        LARS(0.1, weight_decay=0.5), groups=[(1, {"weight_decay": 0.25})]
    )
    np.testing.assert_allclose(after[1], before[1] - 0.1 * grads[1], rtol=1e-6)


def test_set_group__after_build():
    variables, _ = pair()
    optimizer = SGD()
    optimizer.build(variables)
    with pytest.raises(ValueError, match="received a built optimizer"):
        optimizer.set_group(variables, weight_decay=0.0)


# What Keras asks of an optimizer.


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.2, momentum=0.8, weight_decay=0.01, clipnorm=2.0),
        LARS(0.2, momentum=0.8, weight_decay=0.01, eta=0.01, exclude=["head", "x$"]),
        SGD(CosineDecay(0.2, 10, warmup_target=1.0, warmup_steps=3)),
        LARS(CosineDecay(0.2, 10), global_clipnorm=1.0, name="layerwise"),
    ],
    ids=lambda optimizer: f"{type(optimizer).__name__}_{optimizer.name}",
)
def test_config__round_trip(optimizer):
    kept = keras.saving.serialize_keras_object(optimizer)
    # Keras puts objects into the dictionary that it reads.
    again = keras.saving.deserialize_keras_object(copy.deepcopy(kept))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    assert keras.saving.serialize_keras_object(again) == kept
    for found, expected in zip(stepped(again, 2), stepped(optimizer, 2), strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_config__through_keras_optimizers():
    kept = keras.optimizers.serialize(LARS(0.2, eta=0.5))
    assert keras.optimizers.deserialize(kept).eta == 0.5


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_optimizer__clips_gradients(clip):
    before, after, grads = stepped(SGD(1.0, **{clip: 0.1}))
    norms = [np.linalg.norm(g) for g in grads]
    for i, grad in enumerate(grads):
        clipped = {
            "clipnorm": grad * 0.1 / norms[i],
            "global_clipnorm": grad * 0.1 / np.linalg.norm(norms),
            "clipvalue": np.clip(grad, -0.1, 0.1),
        }[clip]
        np.testing.assert_allclose(after[i], before[i] - clipped, rtol=1e-5)


@pytest.mark.parametrize("cls", [SGD, LARS])
def test_optimizer__variables(cls):
    variables, _ = pair()
    optimizer = cls(0.1)
    optimizer.build(variables)
    shapes = [tuple(v.shape) for v in optimizer.variables]
    # step, rate and one momentum each
    assert shapes == [(), (), (3, 2), (2,)]
    assert not any(v.trainable for v in optimizer.variables)


@pytest.mark.parametrize("cls", [SGD, LARS])
@pytest.mark.parametrize("jit", [False, True])
def test_optimizer__in_a_function_as_eagerly(cls, jit):
    rate = Table([0.1, 0.2, 0.3])
    _, expected, _ = stepped(cls(rate, weight_decay=0.1), steps=3)
    variables, grads = pair()
    optimizer = cls(rate, weight_decay=0.1)
    optimizer.build(variables)
    apply = tf.function(lambda: optimizer.apply(grads, variables), jit_compile=jit)
    for _ in range(3):
        apply()
    for v, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(v.numpy(), value, rtol=1e-6)


def test_optimizer__float64_keeps_the_learning_rate(policy):
    policy("float64")
    optimizer = SGD(0.1)
    assert optimizer.learning_rate.dtype == "float64"
    before, after, grads = stepped(optimizer)
    # 0.1 in float32 is off by 1.5e-9.
    np.testing.assert_allclose(after[0], before[0] - 0.1 * grads[0], rtol=1e-14)


def test_optimizer__updates_in_the_variable_dtype(policy):
    policy("mixed_bfloat16")
    variables, grads = pair()
    optimizer = LARS(0.1)
    optimizer.build(variables)
    optimizer.apply([tf.cast(g, tf.bfloat16) for g in grads], variables)
    assert {v.dtype for v in optimizer.variables[1:]} == {"float32"}
    assert {v.dtype for v in variables} == {"float32"}


@pytest.mark.parametrize(
    ("cls", "argument", "value"),
    [
        (SGD, "momentum", 1.0),
        (SGD, "momentum", -0.1),
        (SGD, "momentum", float("nan")),
        (SGD, "weight_decay", -1e-4),
        (SGD, "weight_decay", float("nan")),
        (LARS, "momentum", 1.5),
        (LARS, "weight_decay", -1e-4),
        (LARS, "eta", 0.0),
        (LARS, "eta", -1.0),
        (LARS, "eta", float("nan")),
    ],
)
def test_optimizer__bad_argument(cls, argument, value):
    message = rf"^Invalid {argument}: received {value}, accepted: [^\n]+\.$"
    with pytest.raises(ValueError, match=message):
        cls(0.1, **{argument: value})
