"""kNN against two plain loops; the features that it is given."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.evaluation import knn
from tf_dpred.evaluation.features import FeatureExtractor

CLASSES = 4


def data(seed=0, bank=60, queries=25, dim=5):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(bank, dim)),
        rng.integers(0, CLASSES, bank),
        rng.normal(size=(queries, dim)),
    )


def by_loops(bank, labels, queries, k, temperature):
    classes = []
    for query in queries:
        neighbours = []
        for row, label in zip(bank, labels, strict=True):
            cosine = row @ query / (np.linalg.norm(row) * np.linalg.norm(query))
            neighbours.append((cosine, label))
        votes = [0.0] * CLASSES
        for cosine, label in sorted(neighbours, reverse=True)[:k]:
            votes[label] += np.exp(cosine / temperature)
        classes.append(votes.index(max(votes)))
    return classes


@pytest.mark.parametrize("k", [1, 7, 60])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 10.0])
def test_predict__double_loop(k, temperature):
    bank, labels, queries = data()
    found = knn.predict(
        bank, labels, queries, k=k, temperature=temperature, num_classes=CLASSES
    )
    assert found.dtype == np.int64
    np.testing.assert_array_equal(
        found, by_loops(bank, labels, queries, k, temperature)
    )


@pytest.mark.parametrize(
    ("query_block", "bank_block"), [(1, 60), (7, 13), (25, 1), (100, 100)]
)
def test_predict__blocks_change_nothing(query_block, bank_block, monkeypatch):
    arrays = data(seed=1)
    settings = {"k": 9, "temperature": 0.1, "num_classes": CLASSES}
    expected = knn.predict(*arrays, **settings)
    monkeypatch.setattr(knn, "QUERY_BLOCK", query_block)
    monkeypatch.setattr(knn, "BANK_BLOCK", bank_block)
    found = knn.predict(*arrays, **settings)
    np.testing.assert_array_equal(found, expected)


def test_predict__k_above_the_bank_takes_all_of_it():
    arrays = data()
    settings = {"temperature": 0.1, "num_classes": CLASSES}
    np.testing.assert_array_equal(
        knn.predict(*arrays, k=1000, **settings), knn.predict(*arrays, k=60, **settings)
    )


def test_predict__weight_beats_number():
    """One near neighbour against two far ones: T decides."""
    bank = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    query = np.array([[3.0, 1.0]])
    labels = np.array([0, 1, 1])
    votes = {
        t: int(knn.predict(bank, labels, query, k=3, temperature=t, num_classes=2)[0])
        for t in (0.1, 10.0)
    }
    assert votes == {0.1: 0, 10.0: 1}


def test_predict__ties_go_to_the_smallest_class():
    bank, labels = np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([2, 1])
    query = np.array([[1.0, 0.5]])
    found = knn.predict(bank, labels, query, k=2, temperature=0.1, num_classes=3)
    assert found.tolist() == [1]


def test_predict__a_small_temperature_leaves_the_nearest():
    """exp(c/T) of far neighbours is 0 in float32; the vote must not become empty."""
    bank, labels = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([1, 0])
    query = np.array([[1.0, 0.1]])
    found = knn.predict(bank, labels, query, k=2, temperature=1e-3, num_classes=2)
    assert found.tolist() == [1]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_predict__label_types(dtype):
    bank, labels, queries = data()
    settings = {"k": 5, "temperature": 0.1, "num_classes": CLASSES}
    np.testing.assert_array_equal(
        knn.predict(bank, labels.astype(dtype), queries, **settings),
        knn.predict(bank, labels, queries, **settings),
    )


def test_nearest__best_first(monkeypatch):
    bank, _, queries = data()
    monkeypatch.setattr(knn, "BANK_BLOCK", 11)
    similarity, index = knn.nearest(bank, queries, 60)
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert (np.sort(index, axis=1) == np.arange(60)).all()
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank, queries)]
    expected = np.take_along_axis(unit[1] @ unit[0].T, index, axis=1)
    np.testing.assert_allclose(similarity, expected, atol=1e-6)


def test_accuracy__fraction():
    bank = np.eye(4)
    labels = np.array([0, 1, 2, 3])
    truth = np.array([0, 1, 2, 0])
    found = knn.accuracy(
        (bank, labels), (bank, truth), k=1, temperature=0.1, num_classes=4
    )
    assert found == 0.75


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "Invalid k: received 0, accepted: at least 1"),
        ({"temperature": 0.0}, "Invalid temperature: received 0.0, accepted: above 0"),
        ({"temperature": -1.0}, "Invalid temperature: received -1.0"),
        ({"temperature": float("nan")}, "Invalid temperature: received nan"),
    ],
)
def test_predict__bad_argument(settings, message):
    settings = {"k": 1, "temperature": 0.1, "num_classes": CLASSES, **settings}
    with pytest.raises(ValueError, match=message):
        knn.predict(*data(), **settings)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [(0, 0, "received 0 features"), (3, 2, "received 3 features and 2 labels")],
)
def test_predict__bad_bank(rows, labels, message):
    with pytest.raises(ValueError, match=message):
        knn.predict(
            np.ones([rows, 2]),
            np.zeros(labels, int),
            np.ones([1, 2]),
            k=1,
            temperature=0.1,
            num_classes=2,
        )


def batches():
    x = np.arange(7 * 3, dtype=np.float32).reshape(7, 3)
    return x, tf.data.Dataset.from_tensor_slices((x, np.arange(7))).batch(3)


@pytest.mark.parametrize("outputs", [1, 2])
def test_feature_extractor__first_output_in_order(outputs):
    vectors = keras.Input((3,))
    doubled = keras.layers.Rescaling(2.0)(vectors)
    network = keras.Model(vectors, [doubled, vectors] if outputs == 2 else doubled)
    x, dataset = batches()
    features, labels = FeatureExtractor(network)(dataset)
    np.testing.assert_array_equal(features, 2 * x)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(labels, np.arange(7))


def test_feature_extractor__inference_mode():
    """Running statistics are used, not the batch's, and stay as they are."""
    vectors = keras.Input((3,))
    norm = keras.layers.BatchNormalization(center=False, scale=False, epsilon=0.0)
    network = keras.Model(vectors, norm(vectors))
    norm.moving_mean.assign([1.0, 2.0, 3.0])
    norm.moving_variance.assign([4.0, 4.0, 4.0])
    x, dataset = batches()
    features, _ = FeatureExtractor(network)(dataset)
    np.testing.assert_allclose(features, (x - [1.0, 2.0, 3.0]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), [1.0, 2.0, 3.0])


def test_feature_extractor__sees_new_weights():
    """It traces once and is called all through training."""
    vectors = keras.Input((3,))
    dense = keras.layers.Dense(2, use_bias=False)
    extract = FeatureExtractor(keras.Model(vectors, dense(vectors)))
    x, dataset = batches()
    extract(dataset)
    dense.kernel.assign(np.ones([3, 2]))
    np.testing.assert_allclose(extract(dataset)[0][:, 0], x.sum(axis=1), rtol=1e-6)


def test_search__best_first_and_by_held_out_rows_only():
    features, labels, _ = data(bank=80)
    found = knn.search((features, labels), CLASSES, held_out=20, seed=0)
    order = np.random.default_rng(0).permutation(80)
    queries, bank = order[:20], order[20:]
    for (k, temperature), accuracy in found.items():
        assert k <= 60
        classes = by_loops(
            features[bank], labels[bank], features[queries], k, temperature
        )
        assert accuracy == pytest.approx(np.mean(classes == labels[queries]))
    values = list(found.values())
    assert values == sorted(values, reverse=True)


def test_accuracy__votes_without_an_operation_that_gpus_cannot_repeat(monkeypatch):
    def no_kernel(*args, **kwargs):
        raise tf.errors.UnimplementedError(None, None, "no deterministic GPU kernel")

    for name in ("bincount", "unsorted_segment_sum", "segment_sum"):
        monkeypatch.setattr(tf.math, name, no_kernel)
    features = np.eye(3, dtype=np.float32)
    labels = np.array([2, 0, 1])
    both = (features, labels)
    assert knn.accuracy(both, both, k=1, temperature=0.1, num_classes=3) == 1.0
