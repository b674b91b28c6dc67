"""Correlations and eigenvalue maps against the authors' code, numpy and algebra."""

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import spectrum

# The golden case of fewer rows than columns. What should be zeros are rounding errors
# of eigh, about 1e-17 in float64 and 1e-8 in float32, and W holds their roots.
RANK_DEFICIENT = 3


def deviation(actual, expected):
    """Largest difference relative to the largest entry of the expected array."""
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def predictor_of(f, hyper):
    eps, exponent, inside = hyper
    s, u = tf.linalg.eigh(tf.constant(f))
    form = "inside_root" if inside else "reference"
    return spectrum.from_eigenvalues(
        spectrum.eigenvalue_map(s, eps, exponent, form), u
    ).numpy()


@pytest.mark.parametrize("case", range(8))
def test_correlation__golden(case, golden):
    arrays = golden("eigenvalue_maps")
    found = spectrum.correlation(tf.constant(arrays[f"{case}/f"]))
    worst = deviation(found, arrays[f"{case}/F"])
    print(f"eigenvalue_maps {case}: F {worst:.2e}")
    assert worst < 1e-12


@pytest.mark.parametrize("case", range(8))
def test_eigenvalue_map__golden(case, golden):
    arrays = golden("eigenvalue_maps")
    found = predictor_of(arrays[f"{case}/F"], arrays[f"{case}/hyper"])
    worst = deviation(found, arrays[f"{case}/W"])
    print(f"eigenvalue_maps {case}: W {worst:.2e}")
    assert worst < (1e-8 if case == RANK_DEFICIENT else 1e-9)


@pytest.mark.parametrize("case", range(8))
def test_eigenvalue_map__golden_float32(case, golden):
    arrays = golden("eigenvalue_maps")
    f = arrays[f"{case}/F"].astype(np.float32)
    worst = deviation(predictor_of(f, arrays[f"{case}/hyper"]), arrays[f"{case}/W"])
    print(f"eigenvalue_maps {case}: W in float32 {worst:.2e}")
    assert worst < (1e-3 if case == RANK_DEFICIENT else 1e-5)


@pytest.mark.parametrize(
    ("form", "eps", "exponent", "expected"),
    [
        ("reference", 0.1, 0.5, [0.1, 0.35, 0.6, 1.1]),
        ("reference", 0.0, 0.5, [1e-4, 0.25, 0.5, 1.0]),
        ("reference", 0.1, 1.0, [0.1, 0.1625, 0.35, 1.1]),
        ("inside_root", 0.0, 0.5, [1e-2, 0.25, 0.5, 1.0]),
        ("inside_root", -0.05, 0.5, [1e-2, 0.0125**0.5, 0.2**0.5, 0.95**0.5]),
        ("inside_root", 0.1, 2.0, [0.01, 0.1625**2, 0.35**2, 1.1**2]),
        ("eq18", 0.1, 0.5, [0.4, 0.9, 1.4, 2.4]),
        ("eq18", 0.0, 0.5, [0.0, 0.5, 1.0, 2.0]),
        ("eq18", 0.1, 1.0, [0.4, 0.65, 1.4, 4.4]),
    ],
)
def test_eigenvalue_map__by_hand(form, eps, exponent, expected):
    s = tf.constant([0.0, 0.25, 1.0, 4.0], tf.float64)
    found = spectrum.eigenvalue_map(s, eps, exponent, form)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_eigenvalue_map__eq18_of_a_matrix():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 6)) * np.arange(1, 7)
    f = rows.T @ rows / 50
    s, u = np.linalg.eigh(f)
    expected = u @ np.diag(np.sqrt(s) + 0.1 * s.max()) @ u.T
    found_s, found_u = tf.linalg.eigh(tf.constant(f))
    found = spectrum.from_eigenvalues(
        spectrum.eigenvalue_map(found_s, 0.1, form="eq18"), found_u
    )
    assert deviation(found, expected) < 1e-12


@pytest.mark.parametrize("form", ["reference", "inside_root"])
def test_eigenvalue_map__scale_free(form):
    s = tf.constant([0.1, 1.0, 3.0], tf.float64)
    expected = spectrum.eigenvalue_map(s, 0.1, 0.5, form)
    found = spectrum.eigenvalue_map(1e6 * s, 0.1, 0.5, form)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("form", "expected"), [("reference", 0.1), ("inside_root", 0.1**0.5), ("eq18", 0.0)]
)
def test_eigenvalue_map__zero_matrix(form, expected):
    s, u = tf.linalg.eigh(tf.zeros([4, 4], tf.float64))
    found = spectrum.from_eigenvalues(spectrum.eigenvalue_map(s, 0.1, form=form), u)
    np.testing.assert_allclose(found, expected * np.eye(4), atol=1e-15)


@pytest.mark.parametrize("form", ["reference", "inside_root", "eq18"])
def test_eigenvalue_map__tiny_negative_eigenvalues_count_as_zero(form):
    found = spectrum.eigenvalue_map(tf.constant([-1e-7, -1e-9, 1.0]), 0.0, 0.5, form)
    expected = spectrum.eigenvalue_map(tf.constant([0.0, 0.0, 1.0]), 0.0, 0.5, form)
    np.testing.assert_array_equal(found, expected)


def test_eigenvalue_map__rank_deficient_float32():
    rows = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    f = spectrum.correlation(tf.constant(rows))
    s, u = tf.linalg.eigh(f)
    assert (s.numpy() < 0).any(), "the case this test is about"
    w = spectrum.from_eigenvalues(spectrum.eigenvalue_map(s, 0.1), u).numpy()
    # W is about eps on the null space: a random direction orthogonal to all rows.
    null = np.linalg.svd(rows)[2][4:].T
    np.testing.assert_allclose(null.T @ w @ null, 0.1 * np.eye(60), atol=1e-3)


def test_eigenvalue_map__unknown_form():
    message = (
        r"^Invalid form: received 'cubic', accepted: reference, inside_root, eq18\.$"
    )
    with pytest.raises(ValueError, match=message):
        spectrum.eigenvalue_map(tf.ones([3]), 0.1, 0.5, "cubic")


def test_from_eigenvalues__sign_and_order_cancel():
    d = 12
    rng = np.random.default_rng(1)
    p, u = rng.uniform(0.1, 1, d), rotation(d)
    expected = spectrum.from_eigenvalues(tf.constant(p), tf.constant(u)).numpy()
    order = rng.permutation(d)
    flipped = u[:, order] * rng.choice([-1.0, 1.0], d)
    found = spectrum.from_eigenvalues(tf.constant(p[order]), tf.constant(flipped))
    np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_allclose(expected, u @ np.diag(p) @ u.T, atol=1e-14)


def test_from_eigenvalues__exactly_symmetric():
    p = np.linspace(0.1, 1, 33, dtype=np.float32)
    w = spectrum.from_eigenvalues(
        tf.constant(p), tf.constant(rotation(33), tf.float32)
    ).numpy()
    np.testing.assert_array_equal(w, w.T)


def test_symmetrize__numpy():
    w = np.random.default_rng(0).normal(size=(5, 5))
    np.testing.assert_array_equal(spectrum.symmetrize(tf.constant(w)), (w + w.T) / 2)


def test_cross_correlation__numpy():
    rng = np.random.default_rng(0)
    z, f = rng.normal(size=(2, 30, 5))
    expected = sum(np.outer(a, b) for a, b in zip(z, f, strict=True)) / 30
    found = spectrum.cross_correlation(tf.constant(z), tf.constant(f))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_correlation__uncentred():
    f = tf.constant(np.full([10, 3], 2.0))
    np.testing.assert_array_equal(spectrum.correlation(f), np.full([3, 3], 4.0))


def test_feature_std__gaussian_is_one():
    f = np.random.default_rng(0).normal(size=(4096, 32)) * 5
    found = float(spectrum.feature_std(tf.constant(f)))
    assert found == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1.0, 2.0, 3.0, 4.0]] * 6, 0.0),
        ([[1.0, 2.0, 0.0, 0.0], [3.0, 6.0, 0.0, 0.0]], 0.0),
        # +-e1: standard deviations 1, 0, 0, 0; mean 1/4, times sqrt(4)
        ([[1.0, 0.0, 0.0, 0.0], [-5.0, 0.0, 0.0, 0.0]], 0.5),
        ([[1.0, 1.0, 1.0, 1.0], [-2.0, -2.0, -2.0, -2.0]], 1.0),
        ([[0.0, 0.0, 0.0, 0.0]] * 3, 0.0),
    ],
)
def test_feature_std__analytic(rows, expected):
    found = spectrum.feature_std(tf.constant(rows, tf.float64))
    np.testing.assert_allclose(found, expected, atol=1e-12)
