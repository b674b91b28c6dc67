"""Intervals against SciPy, a paper's table and the bootstrap; what is said of them."""

import numpy as np
import pytest
import scipy.stats

from tf_dpred.evaluation import verdict
from tf_dpred.evaluation.verdict import Comparison, Rate


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (4, 512), (3, 7), (511, 512), (9, 9)])
def test_interval__scipy(hits, n):
    interval = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    found = Rate(hits / n, n).interval
    np.testing.assert_allclose(found, (interval.low, interval.high), atol=1e-8)


# Newcombe, Statistics in Medicine 17 (1998), Table II, method 10.
@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_difference__newcombe(first, second, low, high):
    rates = (Rate(hits / n, n) for hits, n in (first, second))
    found = Comparison(*rates).difference
    np.testing.assert_allclose(found[1:], (low, high), atol=5e-5)


def percentiles(values):
    return np.percentile(values, [2.5, 97.5])


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_interval__bootstrap(rate):
    rng = np.random.default_rng(0)
    n = 512
    hits = rng.random(n) < rate
    found = Rate(hits.mean(), n).interval
    again = hits[rng.integers(0, n, (10_000, n))].mean(axis=1)
    np.testing.assert_allclose(found, percentiles(again), atol=0.006)


@pytest.mark.parametrize(("ours", "other"), [(0.22, 0.045), (0.35, 0.31), (0.98, 0.95)])
def test_difference__bootstrap(ours, other):
    rng = np.random.default_rng(0)
    n = 512
    hits = [rng.random(n) < rate for rate in (ours, other)]
    found = Comparison(*(Rate(h.mean(), n) for h in hits)).difference
    again = [h[rng.integers(0, n, (10_000, n))].mean(axis=1) for h in hits]
    np.testing.assert_allclose(found[1:], percentiles(again[0] - again[1]), atol=0.008)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5])
def test_word__equal_encoders_are_seldom_told_apart(rate):
    """The interval covers: at most 5 % of comparisons of equals find a difference."""
    rng = np.random.default_rng(1)
    n = 512
    pairs = rng.binomial(n, rate, (2000, 2)) / n
    told = [Comparison(Rate(a, n), Rate(b, n)).word for a, b in pairs]
    assert np.mean([word != "not distinguishable" for word in told]) < 0.06


def test_images_needed__are_enough_and_not_too_many():
    few = Comparison(Rate(0.31, 100), Rate(0.3, 100))
    assert few.word == "not distinguishable"
    needed = few.images_needed
    for factor, word in ((1.05, "better"), (0.95, "not distinguishable")):
        n = int(needed * factor)
        assert Comparison(Rate(0.31, n), Rate(0.3, n)).word == word
    assert Comparison(Rate(0.3, 9), Rate(0.3, 9)).images_needed is None


@pytest.mark.parametrize(
    ("ours", "other", "n", "expected"),
    [
        (
            0.219,
            0.045,
            512,
            "better than X: M 0.219 (0.185 to 0.257) against 0.045 (0.030 to 0.067), "
            "512 images",
        ),
        (
            0.008,
            0.045,
            512,
            "worse than X: M 0.008 (0.003 to 0.020) against 0.045 (0.030 to 0.067), "
            "512 images",
        ),
        (
            0.95,
            0.949,
            360,
            "not distinguishable from X: M 0.950 (0.922 to 0.968) against 0.949 (0.921 "
            "to 0.967), 360 images; about 370,000 would tell",
        ),
        (
            0.5,
            0.5,
            4,
            "not distinguishable from X: M 0.500 (0.150 to 0.850) against 0.500 (0.150 "
            "to 0.850), 4 images, and no number of images would tell",
        ),
    ],
)
def test_sentence(ours, other, n, expected):
    assert Comparison(Rate(ours, n), Rate(other, n)).sentence("X", "M") == expected


# Published runs: top-1 of 512 images, untrained and trained.
@pytest.mark.parametrize(
    ("untrained", "trained", "word"),
    [
        (0.045, 0.219, "better"),  # digits, DirectPred
        (0.039, 0.080, "better"),  # CIFAR-10 JPEG, SGD
        (0.045, 0.008, "worse"),  # digits, collapsed
        (0.008, 0.006, "not distinguishable"),  # digits in random colours
    ],
)
def test_of_views__word(untrained, trained, word):
    measured = [
        {"view_top1": rate, "view_images": 512, "view_held_out": True}
        for rate in (untrained, trained)
    ]
    found = verdict.of_views(*measured)
    assert found.word == word and not found.too_easy
    assert found.sentence.startswith(word) and "512 held-out images" in found.sentence
    assert (verdict.NOTHING in found.sentence) == (word != "better")


def test_of_views__views_that_are_too_easy():
    measured = [
        {"view_top1": rate, "view_images": 512, "view_held_out": False}
        for rate in (0.97, 0.98)
    ]
    found = verdict.of_views(*measured)
    assert "512 training images" in found.sentence
    assert found.too_easy and verdict.TOO_EASY in found.sentence
    assert verdict.NOTHING not in found.sentence
