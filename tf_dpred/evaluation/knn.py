"""Weighted k-nearest-neighbour classification of frozen features."""

from __future__ import annotations

import numpy as np
import tensorflow as tf


def predict(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    *,
    k: int,
    temperature: float,
    num_classes: int,
    query_block: int = 512,
    bank_block: int = 65_536,
) -> np.ndarray:
    """Classes by the weighted vote of the k nearest (Wu et al., arXiv 1805.01978).

    Cosine similarity c; a neighbour votes with exp(c / T). Memory is bounded by the
    blocks: at most query_block x bank_block similarities exist at a time.

    Args:
      bank: [N, r] features that are searched.
      bank_labels: [N] in [0, num_classes).
      queries: [Q, r].
      k: neighbours, at least 1; N where it is larger.
      temperature: T, above 0.
      num_classes: at least 1.
      query_block, bank_block: rows of one product.

    Returns:
      [Q] int64 classes; the smallest of those that tie.

    Raises:
      ValueError: empty bank, or k or T out of range.
    """
    if len(bank) == 0 or len(bank) != len(bank_labels):
        raise ValueError(
            f"Invalid bank: received {len(bank)} features and {len(bank_labels)} "
            "labels, accepted: as many of each, at least 1."
        )
    if k < 1 or not temperature > 0:
        raise ValueError(
            f"Invalid k or temperature: received k={k}, temperature={temperature}, "
            "accepted: k at least 1, temperature above 0."
        )
    bank, queries = _unit_rows(bank), _unit_rows(queries)
    classes = []
    for start in range(0, len(queries), query_block):
        similarity, label = _nearest(
            queries[start : start + query_block], bank, bank_labels, k, bank_block
        )
        # exp((c - 1)/T) is exp(c/T) up to a factor that all share, and cannot overflow.
        votes = tf.math.bincount(
            tf.cast(label, tf.int32),
            weights=tf.exp((similarity - 1) / temperature),
            minlength=num_classes,
            axis=-1,
        )
        classes.append(tf.argmax(votes, axis=1).numpy())
    return np.concatenate(classes)


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


def _unit_rows(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _nearest(queries, bank, bank_labels, k, bank_block):
    """Similarities and labels, [q, min(k, N)], of the nearest over all blocks."""
    best_similarity = np.zeros([len(queries), 0], np.float32)
    best_label = np.zeros([len(queries), 0], np.int64)
    for start in range(0, len(bank), bank_block):
        block = slice(start, start + bank_block)
        products = tf.linalg.matmul(queries, bank[block], transpose_b=True)
        labels = np.broadcast_to(bank_labels[block], products.shape)
        similarity = tf.concat([best_similarity, products], axis=1)
        label = tf.concat([best_label, labels], axis=1)
        best_similarity, index = tf.math.top_k(
            similarity, min(k, similarity.shape[1]), sorted=False
        )
        best_label = tf.gather(label, index, batch_dims=1)
    return best_similarity, best_label
