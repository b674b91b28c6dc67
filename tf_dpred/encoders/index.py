"""Which of many features are nearest: exactly, or by a graph, which is much faster.

The graph is HNSW (Malkov, Yashunin, arXiv 1603.09320) of faiss. It is built once and
stored beside the features.
"""

from __future__ import annotations

import functools
import logging as logging_of_python
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.encoders.embeddings import Embeddings
from tf_dpred.evaluation import knn
from tf_dpred.system.files import check_can_write, replace

Nearest: TypeAlias = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]

# Links of a node, and candidates that are looked at when one is added or searched.
LINKS, ADD_CANDIDATES, SEARCH_CANDIDATES = 32, 200, 128
ADDED_AT_ONCE = 65_536
PROBES, PROBED_NEIGHBOURS = 256, 10
"""Of the measured recall: images, and neighbours of each."""


def opened(features: Embeddings, kind: str) -> Nearest:
    """A function (queries [Q, r], k) -> cosine float32 and row int64, [Q, min(k, N)].

    The best come first, as those of `knn.nearest`. Where an approximate one finds
    less than k, the row is -1 and the cosine -1.

    Args:
      features: that are searched.
      kind: `exact`; or `hnsw`, which is read, or built and stored.

    Raises:
      Refused: faiss is missing, or the index cannot be stored.
      OSError: it could not be written.
    """
    if kind == "exact":
        return functools.partial(knn.nearest, features.representation)
    # It tells which of its builds it tries, and that they are missing.
    logging_of_python.getLogger("faiss").setLevel(logging_of_python.WARNING)
    try:
        import faiss
    except ImportError:
        refuse("index", kind, "exact, or pip install faiss-cpu first")
    graph = _stored(faiss, features) or _built(faiss, features)
    graph.hnsw.efSearch = SEARCH_CANDIDATES
    return functools.partial(_search, faiss, graph)


def path_of(features: Embeddings) -> Path:
    """Where the graph is stored: inside the folder of features, or beside the file."""
    if features.path.is_dir():
        return features.path / "index.hnsw"
    return features.path.with_name(f"{features.path.name}.hnsw")


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """The share of the true neighbours that were found.

    Args:
      found: [Q, k] cosines of what an approximate index found.
      exact: [Q, k] those of the true neighbours. One that is as near as the k-th of
        them is right, whichever of several equal ones it is.
    """
    return float(np.mean(found >= exact[:, -1:] - 1e-6))


def _stored(faiss: Any, features: Embeddings) -> Any | None:
    """The stored graph; None where there is none, or it is of other features."""
    path = path_of(features)
    if not path.is_file():
        return None
    try:
        graph = faiss.read_index(str(path))
        rows = _probes(len(features.files))
        same = (graph.ntotal, graph.d) == features.representation.shape and np.allclose(
            np.stack([graph.reconstruct(int(row)) for row in rows]),
            knn.unit_rows(features.representation[rows]),
            atol=1e-6,
        )
    except RuntimeError as error:  # faiss knows no other
        logging.warning("%s is damaged and built again (%s)", path, error)
        return None
    if not same:
        logging.info("%s is of other features and built again", path)
    return graph if same else None


def _built(faiss: Any, features: Embeddings) -> Any:
    path = path_of(features)
    try:
        check_can_write(path)
    except OSError as error:
        accepted = f"features in a directory that can be written to ({error.strerror})"
        refuse("features", str(features.path), accepted)
    start = time.monotonic()
    bank = features.representation
    graph = faiss.IndexHNSWFlat(bank.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = ADD_CANDIDATES
    graph.hnsw.efSearch = SEARCH_CANDIDATES
    for first in range(0, len(bank), ADDED_AT_ONCE):
        graph.add(knn.unit_rows(bank[first : first + ADDED_AT_ONCE]))
    seconds = time.monotonic() - start
    queries = bank[_probes(len(bank))]
    exact, _ = knn.nearest(bank, queries, PROBED_NEIGHBOURS)
    found, _ = _search(faiss, graph, queries, PROBED_NEIGHBOURS)
    logging.info(
        "indexed %d images in %.0f s; it finds %.4g%% of the %d nearest of %d of them",
        len(bank),
        seconds,
        100 * recall(found, exact),
        exact.shape[1],
        len(queries),
    )
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        faiss.write_index(graph, str(temporary))
        replace(temporary, path)
    except RuntimeError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"{path}: {error}") from error
    return graph


def _probes(count: int) -> np.ndarray:
    """Rows that are evenly spaced, at most `PROBES`."""
    return np.unique(np.linspace(0, count - 1, PROBES).astype(int))


def _search(
    faiss: Any, graph: Any, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    if k < 1:
        raise ValueError(f"Invalid k: received {k}, accepted: at least 1.")
    k = min(k, graph.ntotal)
    wide = faiss.SearchParametersHNSW(efSearch=max(SEARCH_CANDIDATES, 2 * k))
    found = []
    for first in range(0, len(queries), ADDED_AT_ONCE):
        block = knn.unit_rows(queries[first : first + ADDED_AT_ONCE])
        found.append(graph.search(block, k, params=wide))
    cosine, rows = (np.concatenate(part) for part in zip(*found, strict=True))
    return np.where(rows < 0, np.float32(-1), cosine), rows
