"""Weighted k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Rows of one product of queries and bank, which bound the memory.
QUERY_BLOCK, BANK_BLOCK = 512, 65_536
# What `search` chooses from.
KS = (1, 5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5)


def predict(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> np.ndarray:
    """Classes by the weighted vote of the k nearest (Wu et al., arXiv 1805.01978).

    A neighbour of cosine similarity c votes with exp(c / T). At most `QUERY_BLOCK` x
    `BANK_BLOCK` similarities exist at a time.

    Args:
      bank: [N, r] features that are searched.
      bank_labels: [N] in [0, num_classes).
      queries: [Q, r].
      k: neighbours, at least 1; N where it is larger.
      temperature: T, above 0.
      num_classes: at least 1.

    Returns:
      [Q] int64 classes; the smallest of those that tie.

    Raises:
      ValueError: bank empty or unlike its labels, or k or T out of range.
    """
    if len(bank) != len(bank_labels):
        raise ValueError(
            f"Invalid bank: received {len(bank)} features and {len(bank_labels)} "
            "labels, accepted: as many of each."
        )
    if not temperature > 0:
        raise ValueError(
            f"Invalid temperature: received {temperature}, accepted: above 0."
        )
    similarity, index = nearest(bank, queries, k)
    labels = np.asarray(bank_labels)[index]
    return _vote(similarity, labels, temperature, num_classes)


def nearest(
    bank: np.ndarray, queries: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of the bank that are most similar to each query, best first.

    Args:
      bank, queries: as in `predict`; they may be memory-mapped files.
      k: at least 1; N where it is larger.

    Returns:
      Cosine similarity float32 and row int64, [Q, min(k, N)] each.

    Raises:
      ValueError: empty bank, or k below 1.
    """
    if len(bank) == 0:
        raise ValueError("Invalid bank: received 0 features, accepted: at least 1.")
    if k < 1:
        raise ValueError(f"Invalid k: received {k}, accepted: at least 1.")
    starts = range(0, len(queries), QUERY_BLOCK)
    best: list = [None] * len(starts)
    for first in range(0, len(bank), BANK_BLOCK):
        # Here, since a bank may be on the disk, and larger than the memory.
        block = unit_rows(bank[first : first + BANK_BLOCK])
        for place, start in enumerate(starts):
            asked = unit_rows(queries[start : start + QUERY_BLOCK])
            found = _nearest_of_block(asked, block, first, k)
            best[place] = _merged(best[place], found, k)
    similarity, index = zip(*best, strict=True)
    return np.concatenate(similarity), np.concatenate(index)


def accuracy(
    bank: tuple[np.ndarray, np.ndarray],
    queries: tuple[np.ndarray, np.ndarray],
    *,
    k: int,
    temperature: float,
    num_classes: int,
) -> float:
    """Fraction of queries whose class `predict` finds.

    Args:
      bank, queries: (features, labels).
      k, temperature, num_classes: see `predict`.
    """
    found = predict(
        *bank, queries[0], k=k, temperature=temperature, num_classes=num_classes
    )
    return float(np.mean(found == queries[1]))


def search(
    train: tuple[np.ndarray, np.ndarray], num_classes: int, *, held_out: int, seed: int
) -> dict[tuple[int, float], float]:
    """Accuracy on held-out training features for every k and T of the grid.

    Args:
      train: (features [N, r], labels [N]).
      num_classes: of the labels.
      held_out: random rows that are classified by the others; 1 to N - 1.
      seed: of their choice.

    Returns:
      (k, T) -> accuracy, best first; of those that tie, the smallest k, then T.
    """
    features, labels = train
    order = np.random.default_rng(seed).permutation(len(features))
    queries, bank = order[:held_out], order[held_out:]
    similarity, index = nearest(features[bank], features[queries], max(KS))
    neighbours = labels[bank][index]
    found = {
        (k, t): float(
            np.mean(
                _vote(similarity[:, :k], neighbours[:, :k], t, num_classes)
                == labels[queries]
            )
        )
        for k in KS
        for t in TEMPERATURES
        if k <= len(bank)
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], *item[0])))


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows [n, r] divided by their lengths, float32; zeros stay zeros."""
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _vote(similarity, labels, temperature, num_classes) -> np.ndarray:
    """[Q] classes from the similarities and labels [Q, k] of neighbours, best first."""
    # exp(c/T) up to a factor that a query's neighbours share. The best one weighs 1, so
    # at least one weight is not too small for a float.
    weights = np.exp((similarity - similarity[:, :1]) / temperature)
    # On the host: no GPU has a deterministic kernel for it.
    votes = np.zeros((len(weights), num_classes), np.float32)
    np.add.at(votes, (np.arange(len(weights))[:, np.newaxis], labels), weights)
    return votes.argmax(axis=1)


def _nearest_of_block(queries, block, first, k):
    """Similarities and rows, [q, min(k, n)], of the nearest in a block of n rows.

    Args:
      first: row of the bank that the block begins with.
    """
    products = tf.linalg.matmul(queries, block, transpose_b=True)
    best, place = tf.math.top_k(products, min(k, len(block)))
    return best.numpy(), first + place.numpy().astype(np.int64)


def _merged(best, other, k):
    """The k best of two, each [q, ...], the first None at first; of equal ones it."""
    if best is None:
        return other
    similarity, rows = (
        np.concatenate(x, axis=1) for x in zip(best, other, strict=True)
    )
    found, place = tf.math.top_k(similarity, min(k, similarity.shape[1]))
    return found.numpy(), np.take_along_axis(rows, place.numpy(), axis=1)
