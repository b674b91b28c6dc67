"""kNN accuracy, as the program measures it."""

from __future__ import annotations

import numpy as np

QUERY_BLOCK = 512


def accuracy(
    bank, labels, queries, truth, *, k: int, temperature: float, num_classes: int
) -> float:
    """The weighted vote of the k nearest by cosine (Wu et al., arXiv 1805.01978)."""

    def unit(x):
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    bank, queries, right = unit(bank), unit(queries), 0
    for start in range(0, len(queries), QUERY_BLOCK):
        similarity = queries[start : start + QUERY_BLOCK] @ bank.T
        index = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        nearest = np.take_along_axis(similarity, index, axis=1)
        weights = np.exp((nearest - nearest[:, :1]) / temperature)
        rows = np.arange(len(weights))[:, np.newaxis]
        votes = np.zeros((len(weights), num_classes), np.float32)
        np.add.at(votes, (rows, labels[index]), weights)
        right += np.sum(votes.argmax(axis=1) == truth[start : start + QUERY_BLOCK])
    return float(right / len(queries))
