"""Losses against numpy; IsoLoss against its definition with an explicit root."""

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import losses
from tf_dpred.config import ObjectiveConfig

N, D = 7, 5


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def cos(a, b):
    return np.sum(unit(a) * unit(b), axis=-1)


@pytest.fixture
def pzf():
    """Prediction, projection and feature, [n, d] float64."""
    return np.random.default_rng(0).normal(size=(3, N, D))


def spd_matrix():
    a = np.random.default_rng(1).normal(size=(D, D))
    return a @ a.T / D + 0.1 * np.eye(D)


def root(w):
    s, u = np.linalg.eigh(w)
    return u @ np.diag(np.sqrt(s)) @ u.T


def test_cosine__numpy(pzf):
    p, z, f = pzf
    np.testing.assert_allclose(losses.cosine(p, z, f), -2 * cos(p, z), rtol=1e-12)


@pytest.mark.parametrize(
    ("p", "z", "expected"),
    [
        ([3.0, 0.0], [0.5, 0.0], -2.0),
        ([3.0, 0.0], [0.0, 2.0], 0.0),
        ([3.0, 0.0], [-1e-3, 0.0], 2.0),
        ([1.0, 1.0], [1.0, 0.0], -(2**0.5)),
    ],
)
def test_cosine__range(p, z, expected):
    p, z = tf.constant([p]), tf.constant([z])
    np.testing.assert_allclose(losses.cosine(p, z, p), [expected], atol=1e-6)


def test_mse__numpy(pzf):
    p, z, f = pzf
    expected = np.sum((p - z) ** 2, axis=-1)
    np.testing.assert_allclose(losses.mse(p, z, f), expected, rtol=1e-12)


def test_mse__unit_vectors_are_two_plus_cosine(pzf):
    p, z, f = unit(pzf)
    np.testing.assert_allclose(
        losses.mse(p, z, f), 2 + losses.cosine(p, z, f).numpy(), rtol=1e-12
    )


def iso_by_definition(f, z, w, frozen_at):
    """L with the matrix root taken; sg[...] evaluated at `frozen_at`."""
    p0 = frozen_at @ w.T
    p_norm, z_norm = np.linalg.norm(p0, axis=-1), np.linalg.norm(z, axis=-1)
    pull = 1 / (p_norm * z_norm)
    hold = np.sum(p0 * z, axis=-1) / (p_norm**3 * z_norm)
    q = f @ root(w).T
    return -2 * (np.sum(f * z, axis=-1) * pull - 0.5 * hold * np.sum(q**2, axis=-1))


def test_iso__definition(pzf):
    _, z, f = pzf
    w = spd_matrix()
    found = losses.iso(f @ w.T, z, f)
    np.testing.assert_allclose(found, iso_by_definition(f, z, w, f), rtol=1e-10)


def test_iso__gradient(pzf):
    _, z, f = pzf
    w = spd_matrix()
    feature = tf.constant(f)
    with tf.GradientTape() as tape:
        tape.watch(feature)
        p = tf.linalg.matmul(feature, w, transpose_b=True)
        loss = losses.iso(p, tf.constant(z), feature)
    found = tape.gradient(loss, feature).numpy()
    numerical = np.zeros_like(f)
    h = 1e-5
    for j in range(D):
        step = h * np.eye(D)[j]
        above, below = (iso_by_definition(f + s, z, w, f) for s in (step, -step))
        numerical[:, j] = (above - below) / (2 * h)
    np.testing.assert_allclose(found, numerical, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e-6])
@pytest.mark.parametrize("small", ["p", "z", "f", "pz", "pf", "pzf"])
def test_losses__small_vectors_are_finite(name, scale, small, pzf):
    p, z, f = (
        tf.constant(x * (scale if letter in small else 1), tf.float32)
        for letter, x in zip("pzf", pzf, strict=True)
    )
    with tf.GradientTape() as tape:
        tape.watch([p, z, f])
        loss = losses.LOSSES[name](p, z, f)
    gradients = tape.gradient(loss, [p, z, f])
    for tensor in [loss, *(g for g in gradients if g is not None)]:
        assert np.isfinite(tensor).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_losses__one_number_an_example(name, pzf):
    p, z, f = (tf.constant(x, tf.float32) for x in pzf)
    loss = losses.LOSSES[name](p, z, f)
    assert loss.shape == (N,)
    assert loss.dtype == tf.float32
    third = losses.LOSSES[name](p[2:3], z[2:3], f[2:3])
    np.testing.assert_allclose(third, loss[2:3], rtol=1e-6)


def test_losses__are_the_flag_choices():
    (field,) = (
        f for f in ObjectiveConfig.__dataclass_fields__.values() if f.name == "loss"
    )
    assert tuple(losses.LOSSES) == field.metadata["choices"]
