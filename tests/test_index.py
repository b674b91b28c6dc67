"""The approximate index: what it finds, and when it is built again."""

import sys

import numpy as np
import pytest

from tf_dpred.encoders import index
from tf_dpred.encoders.embeddings import Embeddings
from tf_dpred.errors import Refused
from tf_dpred.evaluation import knn

WIDTH = 32


def clustered(count, seed=0):
    """Features as encoders make them: positive, in clusters, with a common mean."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, WIDTH))
    rows = centres[rng.integers(0, 40, count)] + 0.5 * rng.normal(size=(count, WIDTH))
    return np.maximum(rows + 1, 0).astype(np.float32)


def features(path, rows):
    return Embeddings(path / "f.npz", [str(i) for i in range(len(rows))], rows, "")


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss")


def test_hnsw__finds_what_is_nearest(faiss, tmp_path, caplog, monkeypatch):
    """Beside the exact neighbours: rows, cosines, and the recall that is logged."""
    monkeypatch.setattr(index, "ADDED_AT_ONCE", 1500)
    caplog.set_level("INFO", logger="absl")
    rows = clustered(4000)
    queries = clustered(200, seed=1)
    exact, exact_rows = knn.nearest(rows, queries, 10)
    cosine, found = index.opened(features(tmp_path, rows), "hnsw")(queries, 10)
    assert found.shape == (200, 10) and found.dtype == np.int64
    shared = [len({*a} & {*b}) / 10 for a, b in zip(found, exact_rows, strict=True)]
    assert np.mean(shared) > 0.98
    assert index.recall(cosine, exact) == pytest.approx(np.mean(shared), abs=0.01)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, rows)]
    expected = np.einsum("qd,qkd->qk", unit[0], unit[1][found])
    np.testing.assert_allclose(cosine, expected, atol=1e-5)
    assert (np.diff(cosine, axis=1) <= 0).all()
    assert "indexed 4000 images" in caplog.text
    assert "of the 10 nearest of 256 of them" in caplog.text


def test_recall__counts_what_is_as_near():
    exact = np.array([[0.9, 0.8], [0.9, 0.8]])
    assert index.recall(np.array([[0.9, 0.8], [0.9, 0.7]]), exact) == 0.75
    assert index.recall(np.array([[-1.0, -1.0], [0.8, 0.8]]), exact) == 0.5


def test_hnsw__more_neighbours_than_images(faiss, tmp_path):
    rows = clustered(7)
    cosine, found = index.opened(features(tmp_path, rows), "hnsw")(rows, 50)
    assert (np.sort(found, axis=1) == np.arange(7)).all()
    np.testing.assert_allclose(cosine, knn.nearest(rows, rows, 50)[0], atol=1e-5)


def test_hnsw__is_stored_until_the_features_change(faiss, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")

    def lines():
        found = [m for m in caplog.messages if "indexed" in m or "built again" in m]
        caplog.clear()
        return found

    rows = clustered(300)
    index.opened(features(tmp_path, rows), "hnsw")
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz.hnsw"] and len(lines()) == 1
    index.opened(features(tmp_path, rows), "hnsw")
    assert lines() == []
    for other in (clustered(300, seed=1), clustered(200), clustered(300)[:, :20]):
        made = index.opened(features(tmp_path, np.ascontiguousarray(other)), "hnsw")
        assert (made(other[:50], 1)[1][:, 0] == np.arange(50)).all()
        assert ["of other features" in line for line in lines()] == [True, False]
    (tmp_path / "f.npz.hnsw").write_bytes(b"no index")
    index.opened(features(tmp_path, rows), "hnsw")
    assert ["is damaged and built again" in line for line in lines()] == [True, False]


def test_path_of__inside_of_a_folder(tmp_path):
    found = Embeddings(tmp_path, ["a"], np.ones((1, 2), np.float32), "")
    assert index.path_of(found) == tmp_path / "index.hnsw"


def test_opened__without_faiss(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    line = "^--index: received 'hnsw', accepted: exact, or pip install faiss-cpu first"
    with pytest.raises(Refused, match=line):
        index.opened(features(tmp_path, clustered(5)), "hnsw")
