"""Linear evaluation, against numpy."""

import devices
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.evaluation import linear
from tf_dpred.networks.normalization import BatchNormalization


def blobs(count, classes, size, spread, seed=0):
    """Features around one centre a class."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, size))
    labels = generator.integers(0, classes, count)
    noise = generator.normal(size=(count, size)) * spread
    return (centres[labels] + noise).astype(np.float32), labels


def softmax(logits):
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def adam_logistic_regression(x, labels, classes, steps):
    """Full-batch PyTorch Adam(3e-4, weight_decay=1e-3) from zero weights."""
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    parameters = [np.zeros((x.shape[1], classes)), np.zeros(classes)]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    for step in range(1, steps + 1):
        error = softmax(x @ parameters[0] + parameters[1]) - np.eye(classes)[labels]
        gradients = [x.T @ error / len(x), error.mean(axis=0)]
        for p, g, m, v in zip(parameters, gradients, first, second, strict=True):
            g = g + 1e-3 * p
            m[:] = 0.9 * m + 0.1 * g
            v[:] = 0.999 * v + 0.001 * g**2
            hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
            p -= 3e-4 * hat[0] / (np.sqrt(hat[1]) + 1e-8)
    return x @ parameters[0] + parameters[1]


def test_logistic_regression__is_adam_with_coupled_decay(monkeypatch):
    x, labels = blobs(40, 3, 5, spread=1.5)
    seen = {}
    original = linear.accuracies

    def spy(predict, dataset):
        features = next(iter(dataset))[0]
        seen["logits"] = predict(features).numpy()
        return original(predict, dataset)

    monkeypatch.setattr(linear, "accuracies", spy)
    found = linear.logistic_regression(
        (x, labels), (x, labels), 3, epochs=30, batch_size=64
    )
    expected = adam_logistic_regression(x.astype(np.float64), labels, 3, steps=30)
    np.testing.assert_allclose(seen["logits"], expected, atol=1e-5)
    assert found["top1"] == np.mean(expected.argmax(axis=1) == labels)


def test_logistic_regression__the_best_epoch_beside_the_last(monkeypatch):
    """What the DirectPred authors report: the best of all epochs, on the test set."""
    by_epoch = [0.2, 0.5, 0.4, 0.5, 0.3]
    told = iter([*by_epoch, 0.9])  # and of the training set
    monkeypatch.setattr(
        linear, "accuracies", lambda *_: np.array([[value := next(told), value]])
    )
    x, labels = blobs(40, 3, 5, spread=1.5)
    found = linear.logistic_regression((x, labels), (x, labels), 3, epochs=5)
    assert (found["top1"], found["train_top1"]) == (0.3, 0.9)
    assert (found["best_epoch"], found["top1_of_best_epoch"]) == (2, 0.5)


def test_logistic_regression__by_epoch_as_in_shorter_runs():
    train, test = blobs(200, 4, 6, 1.0), blobs(200, 4, 6, 1.0, seed=1)
    options = {"num_classes": 4, "batch_size": 64, "seed": 3}
    tops = [
        linear.logistic_regression(train, test, epochs=epochs, **options)["top1"]
        for epochs in (1, 2, 3)
    ]
    found = linear.logistic_regression(train, test, epochs=3, **options)
    assert found["top1_of_best_epoch"] == max(tops)
    assert found["best_epoch"] == 1 + tops.index(max(tops))
    assert found["top1"] == tops[-1]


def test_logistic_regression__standardises_by_the_training_set():
    train, test = blobs(400, 4, 6, 0.3), blobs(200, 4, 6, 0.3, seed=1)
    options = {"num_classes": 4, "epochs": 8, "batch_size": 8}
    plain = linear.logistic_regression(train, test, **options)
    scale = 10.0 ** np.arange(6)
    scaled = [(x * scale + 5 * scale, y) for x, y in (train, test)]
    moved = linear.logistic_regression(*scaled, **options)
    assert plain["top1"] > 0.9
    assert moved["top1"] == pytest.approx(plain["top1"], abs=0.01)


def test_accuracies__top1_and_top5_of_each_head():
    logits = np.zeros([2, 2, 7], np.float32)
    logits[:, 0] = [0, 9, 8, 7, 6, 5, 1]
    logits[:, 1] = [9, 1, 2, 3, 4, 5, 6]
    labels = [1, 0]
    dataset = tf.data.Dataset.from_tensor_slices((logits, labels)).batch(2)
    found = linear.accuracies(lambda x: x, dataset)
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.5, 0.5]])
    third = tf.data.Dataset.from_tensor_slices((logits, [5, 6])).batch(1)
    np.testing.assert_allclose(
        linear.accuracies(lambda x: x, third), [[0, 0.5], [0, 1]]
    )


def test_accuracies__equal_logits_are_not_all_right():
    dataset = tf.data.Dataset.from_tensor_slices(
        (np.zeros([10, 1, 10], np.float32), np.arange(10))
    ).batch(5)
    top1, top5 = linear.accuracies(lambda x: x, dataset)[0]
    assert (top1, top5) == (0.1, 0.5)


def nesterov(x, labels, classes, rate, steps):
    """SGD with Nesterov momentum as Keras has it, cosine rate, full batches."""
    w, b = np.zeros((x.shape[1], classes)), np.zeros(classes)
    mw, mb = np.zeros_like(w), np.zeros_like(b)
    for step in range(steps):
        lr = rate * (1 + np.cos(np.pi * step / steps)) / 2
        error = (softmax(x @ w + b) - np.eye(classes)[labels]) / len(x)
        for p, m, g in ((w, mw, x.T @ error), (b, mb, error.sum(axis=0))):
            m[:] = 0.9 * m - lr * g
            p += 0.9 * m - lr * g
    return w, b


def test_frozen_classifiers__each_head_trains_at_its_own_rate():
    x, labels = blobs(30, 3, 4, spread=1.0)
    identity = keras.Sequential([keras.Input((4,)), keras.layers.Activation("linear")])
    rates, steps = (0.4, 0.1, 0.05), 12
    model = linear.frozen_classifiers(identity, 3, rates, steps)
    model.fit(x, labels, batch_size=30, epochs=steps, shuffle=False, verbose=0)
    heads = model.get_layer("heads")
    for index, rate in enumerate(rates):
        w, b = nesterov(x.astype(np.float64), labels, 3, rate, steps)
        np.testing.assert_allclose(heads.kernel[index], w, atol=1e-5)
        np.testing.assert_allclose(heads.bias[index], b, atol=1e-5)


def trained_heads(replicas, rates, steps):
    """Kernels after full batches on one or two devices."""
    x, labels = blobs(30, 3, 4, spread=1.0)
    identity = keras.Sequential([keras.Input((4,)), keras.layers.Activation("linear")])
    batches = tf.data.Dataset.from_tensors((x, labels)).repeat()
    with devices.strategy(replicas).scope():
        model = linear.frozen_classifiers(identity, 3, rates, steps)
    model.fit(batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    return np.array(model.get_layer("heads").kernel)


def test_frozen_classifiers__two_devices_equal_one():
    found = [
        devices.on_two_devices(trained_heads, replicas, (0.4, 0.1), 6)
        for replicas in (1, 2)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.abs(found[0]).max() > 0.1


def test_frozen_classifiers__leave_the_encoder_alone():
    encoder = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), BatchNormalization()]
    )
    before = [v.numpy() for v in encoder.variables]
    x, labels = blobs(30, 3, 4, spread=1.0)
    model = linear.frozen_classifiers(encoder, 3, (0.5,), 4)
    model.fit(x, labels, epochs=2, verbose=0)
    for old, variable in zip(before, encoder.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_choose__smallest_rate_of_those_that_tie():
    assert linear.choose((0.4, 0.2, 0.1), (0.5, 0.7, 0.7)) == 2
