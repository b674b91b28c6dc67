"""Label-free measures against NumPy, SciPy and the values that their papers give."""

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import quality


def ranks(queries, keys):
    return quality.view_ranks(tf.constant(queries), tf.constant(keys)).numpy()


def ranks_by_numpy(queries, keys):
    """One pair at a time, in float64."""

    def unit(x):
        x = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    q, k = unit(queries), unit(keys)
    return [sum(q[i] @ k[j] >= q[i] @ k[i] for j in range(len(k)) if j != i)
            for i in range(len(q))]  # fmt: skip


def pairs(n=64, d=8, noise=1.0, mean=10.0, seed=0):
    rng = np.random.default_rng(seed)
    both = rng.normal(size=(n, d)) + mean
    return tuple((both + noise * rng.normal(size=(n, d))).astype("f4") for _ in "12")


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_view_ranks__numpy(noise, mean):
    queries, keys = pairs(noise=noise, mean=mean)
    assert ranks(queries, keys).tolist() == ranks_by_numpy(queries, keys)
    assert ranks(queries, keys).dtype == np.int32


def test_view_ranks__order_is_kept():
    queries, _ = pairs()
    assert not ranks(queries, queries).any()
    # Every image's own view is now that of its neighbour.
    assert ranks(queries, np.roll(queries, 1, axis=0)).min() > 0


@pytest.mark.parametrize(
    "features",
    [
        np.ones((8, 4), "f4"),
        np.zeros((8, 4), "f4"),
        np.full((8, 4), np.nan, "f4"),
        np.full((8, 4), 0.1, "f4"),
    ],
)
def test_view_ranks__equal_features_find_nothing(features):
    assert ranks(features, features).tolist() == [7] * 8


def test_view_ranks__copies_tie_against_each_other():
    queries, keys = pairs(n=200, d=64, noise=0.0)
    twice = np.repeat(queries, 2, axis=0)
    assert ranks(twice, np.repeat(keys, 2, axis=0)).tolist() == [1] * 400


@pytest.mark.parametrize("jit", [False, True])
def test_view_ranks__in_a_graph(jit):
    queries, keys = pairs()
    function = tf.function(quality.view_ranks, jit_compile=jit)
    assert function(queries, keys).numpy().tolist() == ranks_by_numpy(queries, keys)
    half = function(tf.cast(queries, tf.bfloat16), tf.cast(queries, tf.bfloat16))
    assert not half.numpy().any()


def test_rankme__numpy():
    z, _ = pairs(n=50, d=12)
    p = np.linalg.svd(z.astype("f8"))[1]
    p = p / p.sum() + 1e-7  # the paper's epsilon
    assert quality.rankme(z) == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-4)


@pytest.mark.parametrize(
    ("z", "expected"),
    [(np.eye(7), 7), (np.ones((9, 4)), 1), (np.zeros((5, 3)), 0)],
)
def test_rankme__bounds(z, expected):
    assert quality.rankme(z) == pytest.approx(expected)


def test_lidar__numpy():
    rng = np.random.default_rng(0)
    views = rng.normal(size=(40, 1, 6)) * np.arange(1, 7) + rng.normal(size=(40, 3, 6))
    mean = views.mean(axis=(0, 1))
    s_b = sum(np.outer(v, v) for v in views.mean(axis=1) - mean) / 40
    s_w = 1e-4 * np.eye(6)
    for image in views:
        s_w += sum(np.outer(v, v) for v in image - image.mean(axis=0)) / 120
    values, vectors = np.linalg.eigh(s_w)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    p = np.linalg.eigvalsh(root @ s_b @ root)
    p = p / p.sum() + 1e-7  # the paper's epsilon
    expected = np.exp(-np.sum(p * np.log(p)))
    assert quality.lidar(views) == pytest.approx(expected, rel=1e-4)


def test_lidar__noise_that_views_do_not_share_is_no_rank():
    rng = np.random.default_rng(0)
    signal = np.zeros((300, 1, 16))
    signal[..., :2] = rng.normal(size=(300, 1, 2))
    noise = np.zeros((300, 8, 16))
    noise[..., 2:] = rng.normal(size=(300, 8, 14))
    views = signal + noise
    assert quality.lidar(views) == pytest.approx(2, abs=0.1)
    assert quality.rankme(views[:, 0]) > 13  # which RankMe counts
    assert quality.lidar(np.zeros((5, 2, 3))) == 0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req__power_law(alpha):
    rng = np.random.default_rng(0)
    n, d = 300, 120
    noise = rng.normal(size=(n, d))
    basis = np.linalg.qr(noise - noise.mean(axis=0))[0]  # columns of mean 0
    z = basis * np.arange(1, d + 1) ** (-alpha / 2) + 3
    assert quality.alpha_req(z) == pytest.approx(alpha, rel=1e-6)


def test_alpha_req__weighted_least_squares():
    z, _ = pairs(n=80, d=30)
    s = np.linalg.eigvalsh(np.cov(z.astype("f8").T))[::-1]
    j = np.arange(3, 31)
    x = np.stack([-np.log(j), np.ones(28)], axis=1)
    w = np.diag(1 / j)
    expected = np.linalg.solve(x.T @ w @ x, x.T @ w @ np.log(s[2:]))[0]
    assert quality.alpha_req(z) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("z", [np.zeros((9, 8)), np.eye(9)[:, :4]])
def test_alpha_req__too_few_eigenvalues(z):
    assert quality.alpha_req(z) is None


def test_alignment__by_hand():
    f1 = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    f2 = np.array([[5.0, 0.0], [0.0, -1.0], [0.0, 3.0]])
    assert quality.alignment(f1, f2) == pytest.approx((0 + 4 + 2) / 3)


def test_uniformity__numpy():
    f, _ = pairs(n=20, d=5)
    u = f.astype("f8") / np.linalg.norm(f.astype("f8"), axis=1, keepdims=True)
    each = [
        np.exp(-2 * np.sum((u[i] - u[j]) ** 2)) for i in range(20) for j in range(i)
    ]
    assert quality.uniformity(f) == pytest.approx(np.log(np.mean(each)))


def test_uniformity__of_the_circle_and_of_a_point():
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # E exp(-4 + 4 cos) = exp(-4) I_0(4), the uniform distribution's value.
    assert quality.uniformity(circle) == pytest.approx(-4 + np.log(np.i0(4)), abs=0.01)
    assert quality.uniformity(np.ones((10, 3))) == pytest.approx(0)


def test_measure__all_of_them():
    f1, f2 = pairs(n=64, d=8)
    found = quality.measure(f1, f2)
    ranks = np.array(ranks_by_numpy(f1, f2))
    assert tuple(found) == quality.MEASURES
    assert found["view_top1"] == np.mean(ranks == 0)
    assert found["view_top5"] == np.mean(ranks <= 4)
    assert found["lidar"] == quality.lidar(np.stack([f1, f2], axis=1))
    assert found["view_alignment"] == quality.alignment(f1, f2)


def test_measure__collapsed_features():
    found = quality.measure(np.ones((9, 4)), np.ones((9, 4)))
    assert found == {
        "view_top1": 0.0,
        "view_top5": 0.0,
        "rankme": pytest.approx(1),
        "lidar": 0.0,
        "view_alignment": 0.0,
        "uniformity": pytest.approx(0),
    }
    with pytest.raises(ValueError, match=r"^Invalid features: received NaN or inf"):
        quality.measure(np.full((3, 2), np.nan), np.ones((3, 2)))
