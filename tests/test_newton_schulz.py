"""W by matrix products alone, against eigh and against numpy in float64."""

import numpy as np
import pytest
import tensorflow as tf
from devices import on_two_devices, strategy

from tf_dpred import newton_schulz, spectrum
from tf_dpred.predictors import Direct

FORMS = ("reference", "inside_root", "eq18")
TOLERANCE = {"float32": 1e-3, "float64": 1e-7}


def rows_with_spectrum(s, seed=0):
    """Rows [d, d] whose correlation has these eigenvalues."""
    d = len(s)
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    return np.sqrt(d * np.asarray(s))[:, None] * q


def gaussian(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


ROWS = {
    "d=1": gaussian(5, 1),
    "d=2, rank 1": gaussian(1, 2),
    "full rank": gaussian(300, 64),
    "rank 1": gaussian(1, 64),
    "rank 8": gaussian(8, 64),
    "rank 32": gaussian(32, 64),
    "spectrum down to 1e-8": rows_with_spectrum(np.logspace(0, -8, 64)),
    "spectrum down to 1e-16": rows_with_spectrum(np.logspace(0, -16, 64)),
    "all eigenvalues equal": rows_with_spectrum(np.ones(64)),
    "two largest eigenvalues close": rows_with_spectrum([1.0, 1 - 1e-5] + [0.5] * 62),
    "large mean": gaussian(256, 64) + 30 * gaussian(1, 64),
    "small": 1e-12 * gaussian(8, 64),
    "large": 1e12 * gaussian(8, 64),
    "zero": np.zeros([3, 64]),
}


def w_of_numpy(f, eps, form):
    """The table of `spectrum.eigenvalue_map`, in float64."""
    s, u = np.linalg.eigh(np.asarray(f, np.float64))
    s = np.maximum(s, 0)
    relative = s / s.max() if s.max() > 0 else s
    p = {
        "reference": np.maximum(np.sqrt(relative) + eps, 1e-4),
        "inside_root": np.sqrt(np.maximum(relative + eps, 1e-4)),
        "eq18": np.sqrt(s) + eps * s.max(),
    }[form]
    return (u * p) @ u.T


def distance(found, expected):
    """Spectral, relative to the largest eigenvalue; both may be zero."""
    scale = np.linalg.norm(expected, 2)
    return np.linalg.norm(found - expected, 2) / (scale if scale else 1.0)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", ROWS)
def test_predictor__eigh_and_numpy(case, dtype):
    f = spectrum.correlation(tf.constant(ROWS[case], dtype))
    s, u = tf.linalg.eigh(f)
    for form in FORMS:
        for eps in (1e-4, 0.1):
            found = newton_schulz.predictor(f, eps, form).numpy()
            p = spectrum.eigenvalue_map(s, eps, 0.5, form)
            by_eigh = spectrum.from_eigenvalues(p, u).numpy()
            assert distance(found, by_eigh) < TOLERANCE[dtype], (form, eps)
            by_numpy = w_of_numpy(f, eps, form)
            assert distance(found, by_numpy) < TOLERANCE[dtype], (form, eps)
            np.testing.assert_array_equal(found, found.T)


def test_predictor__negative_eigenvalues_show():
    """A W that is not finite stops a run with its name; a huge one would not."""
    f = tf.linalg.diag([1.0, 0.5, -1e-5])
    assert np.isnan(newton_schulz.predictor(f, 0.1, "reference")).all()


@pytest.mark.parametrize("case", range(8))
def test_predictor__golden(case, golden):
    arrays = golden("eigenvalue_maps")
    eps, exponent, inside = arrays[f"{case}/hyper"]
    if exponent != 0.5 or eps < 1e-4:
        pytest.skip("eigh only")
    form = "inside_root" if inside else "reference"
    found = newton_schulz.predictor(tf.constant(arrays[f"{case}/F"]), eps, form)
    assert distance(found.numpy(), arrays[f"{case}/W"]) < TOLERANCE["float64"]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_predictor__compiled(dtype):
    f = spectrum.correlation(tf.constant(ROWS["rank 8"], dtype))
    for compiled in (False, True):
        graph = tf.function(newton_schulz.predictor, jit_compile=compiled)
        found = graph(f, 0.1, "reference").numpy()
        assert distance(found, w_of_numpy(f, 0.1, "reference")) < TOLERANCE[dtype]


def test_predictor__no_decomposition_and_no_loop():
    graph = tf.function(newton_schulz.predictor).get_concrete_function(
        tf.TensorSpec([8, 8]), 0.1, "reference"
    )
    kinds = {operation.type for operation in graph.graph.get_operations()}
    assert "MatMul" in kinds
    assert not kinds & {"SelfAdjointEigV2", "Svd", "While", "StatelessWhile"}


@pytest.mark.parametrize(
    ("eps", "form", "message"),
    [
        (0.1, "cubic", "Invalid form: received 'cubic', accepted: reference, "),
        (0.0, "reference", "Invalid eps: received 0.0, accepted: at least 0.0001"),
        (9e-5, "inside_root", "Invalid eps: received 9e-05, accepted: at least 0.0001"),
        (-0.1, "eq18", "Invalid eps: received -0.1, accepted: at least 0.0 with eq18"),
    ],
)
def test_predictor__refuses(eps, form, message):
    with pytest.raises(ValueError, match=message):
        newton_schulz.predictor(tf.eye(3), eps, form)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 6e-5), ("float64", 4e-9)])
@pytest.mark.parametrize("gap", [0.5, 1e-2, 1e-4, 1e-6, 0.0])
def test_largest_eigenvalue__gaps(gap, dtype, tolerance):
    s = np.full(64, 1 - gap)
    s[0] = 1.0
    f = spectrum.correlation(tf.constant(7 * rows_with_spectrum(s), dtype))
    found = newton_schulz.largest_eigenvalue(f)
    expected = np.linalg.eigvalsh(f.numpy().astype(np.float64))[-1]
    np.testing.assert_allclose(found, expected, rtol=tolerance)


@pytest.mark.parametrize("f", [[[0.0]], [[-1e-9]], np.zeros([4, 4])])
def test_largest_eigenvalue__nothing_above_zero(f):
    found = newton_schulz.largest_eigenvalue(tf.constant(f, tf.float64))
    np.testing.assert_array_equal(found, 0.0)


def test_largest_eigenvalue__orthogonal_to_equal_numbers():
    """Power iteration from a vector of ones would miss it."""
    f = tf.constant([[2.0, -2.0], [-2.0, 2.0]])
    np.testing.assert_allclose(newton_schulz.largest_eigenvalue(f), 4.0, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-18, 1e-10, 3e17, 1.2e18])
def test_largest_eigenvalue__any_size_of_f(size):
    """For equal numbers F is d times as large as its entries, and the sums d^3."""
    f = spectrum.correlation(tf.fill([3, 128], tf.constant(size, tf.float32)))
    found = newton_schulz.largest_eigenvalue(f)
    np.testing.assert_allclose(found, 128 * size**2, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1e-15, 1e15, 1e18])
@pytest.mark.parametrize("case", ["rank 1", "rank 8", "full rank"])
def test_predictor__any_size_of_f(case, size, form):
    """Products of F's entries overflow or vanish long before F does."""
    rows = ROWS[case] / np.abs(ROWS[case]).max()
    f = spectrum.correlation(tf.constant(size * rows, tf.float32))
    found = newton_schulz.predictor(f, 0.1, form).numpy().astype(np.float64)
    assert distance(found, w_of_numpy(f, 0.1, form)) < TOLERANCE["float32"]


@pytest.mark.parametrize("size", [1e-17, 1e-18, 3e-19, 1e-19, 1e-20])
@pytest.mark.parametrize("case", ["rank 1", "rank 8", "full rank"])
def test_predictor__f_that_underflowed(case, size):
    """F has lost digits and can have negative eigenvalues: W is near, and finite."""
    f = spectrum.correlation(tf.constant(size * ROWS[case], tf.float32))
    found = newton_schulz.predictor(f, 0.1, "reference").numpy()
    w = w_of_numpy(f, 0.1, "reference")
    assert np.isfinite(found).all()
    if size >= 1e-18:
        assert distance(found, w) < 0.15


@pytest.mark.parametrize("precision", [2.0**-23, 2.0**-52])
@pytest.mark.parametrize("lowest", [1e-9, 1e-3, 0.3, 1.0])
def test_scales__reach_one(lowest, precision):
    x = np.geomspace(lowest, 1, 1000)
    for r in newton_schulz.scales(lowest, precision):
        x = r * x * (3 - r**2 * x**2) / 2
    np.testing.assert_allclose(x, 1, atol=2 * precision)


def test_scales__steps():
    counts = [
        len(newton_schulz.scales((newton_schulz.SHIFT * eps) ** 0.5, eps))
        for eps in (2.0**-23, 2.0**-52)
    ]
    assert counts == [11, 24]


# In the predictor.


def w_after_a_batch(solver, replicas=1):
    """The W that each replica has after one batch, of which each sees a part."""
    with strategy(replicas).scope():
        predictor = Direct(solver=solver)
        predictor.build((None, 16))
    parts = tf.constant(gaussian(12, 16).reshape(replicas, -1, 16), tf.float32)

    def step():
        index = tf.distribute.get_replica_context().replica_id_in_sync_group
        f = parts[index]
        predictor.observe(f, f)
        predictor.update_weights(tf.constant(0, tf.int64))

    tf.function(strategy(replicas).run)(step)
    values = strategy(replicas).experimental_local_results(predictor.matrix.value)
    return [value.numpy() for value in values]


def test_direct__devices_and_solvers_agree():
    (by_eigh,) = on_two_devices(w_after_a_batch, "eigh")
    first, second = on_two_devices(w_after_a_batch, "newton_schulz", 2)
    np.testing.assert_array_equal(first, second)
    assert distance(first, by_eigh) < TOLERANCE["float32"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solver": "qr"}, "received 'qr', accepted: eigh, newton_schulz"),
        ({"exponent": 1.0}, "'newton_schulz' with exponent 1.0 and centered False"),
        ({"centered": True}, "'newton_schulz' with exponent 0.5 and centered True"),
    ],
)
def test_direct__refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        Direct(**{"solver": "newton_schulz", **settings})
