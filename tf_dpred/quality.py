"""Measures of features that need no labels. Pure functions.

`view_ranks` runs in a TensorFlow graph; the others are NumPy on the host. Features are
rows: [n, d] of n images, or of one view of each of them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_dpred.theory.measures import effective_rank

# Cosines this close count as equal: the rounding of a float32 product.
TIE = 1e-6
# What `measure` finds, by the names that it has in logs.
MEASURES = (
    "view_top1",
    "view_top5",
    "rankme",
    "lidar",
    "alpha_req",
    "view_alignment",
    "uniformity",
)


def measure(f1: np.ndarray, f2: np.ndarray) -> dict[str, float]:
    """All `MEASURES` of the features of two views of the same images.

    `view_top1` and `view_top5` are the fractions of images whose own second view is
    the nearest, or among the five nearest, see `view_ranks`. RankMe, alpha-ReQ and
    uniformity are those of the first view.

    Args:
      f1, f2: [n, d], n at least 2, in the same order.

    Returns:
      Name -> number; without `alpha_req` where too few eigenvalues are above zero.

    Raises:
      ValueError: a feature is not finite.
    """
    if not (np.isfinite(f1).all() and np.isfinite(f2).all()):
        raise ValueError("Invalid features: received NaN or inf, accepted: finite.")
    ranks = view_ranks(f1, f2).numpy()
    found = {
        "view_top1": float(np.mean(ranks < 1)),
        "view_top5": float(np.mean(ranks < 5)),
        "rankme": rankme(f1),
        "lidar": lidar(np.stack([f1, f2], axis=1)),
        "alpha_req": alpha_req(f1),
        "view_alignment": alignment(f1, f2),
        "uniformity": uniformity(f1),
    }
    return {name: value for name, value in found.items() if value is not None}


def view_ranks(queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """The rank of an image's own second view among the second views of all images.

    By cosine similarity, after the mean of each set is subtracted: features share a
    large mean, beside which all cosines are near 1. Ties count against the own view,
    and so does a number that is not finite: features that are all equal find nothing.

    Args:
      queries: [n, d] features of one view of each image.
      keys: [n, d] features of the other view, in the same order.

    Returns:
      [n] int32; 0: the own view is the nearest; n - 1: all others are as near.
    """
    similarity = tf.linalg.matmul(
        _centred_unit(queries), _centred_unit(keys), transpose_b=True
    )
    own = tf.linalg.diag_part(similarity)[:, None]
    # Not `similarity >= own`, which a NaN would make false.
    as_near = tf.logical_not(similarity < own - TIE)
    return tf.reduce_sum(tf.cast(as_near, tf.int32), axis=1) - 1


def _centred_unit(x: tf.Tensor) -> tf.Tensor:
    x = tf.cast(x, tf.float32)
    return tf.math.l2_normalize(x - tf.reduce_mean(x, axis=0), axis=1, epsilon=1e-24)


def rankme(z: np.ndarray) -> float:
    """RankMe, the effective rank of features as they are (arXiv 2210.02885, Eq. 1).

    exp of the entropy of the singular values over their sum.

    Args:
      z: [n, d].

    Returns:
      1 to min(n, d); 0 where all are zero.
    """
    return effective_rank(np.linalg.svd(np.asarray(z, np.float64), compute_uv=False))


def lidar(views: np.ndarray, delta: float = 1e-4) -> float:
    """LiDAR, the effective rank of what tells images apart (arXiv 2312.04000).

    exp of the entropy of the eigenvalues of S_w^(-1/2) S_b S_w^(-1/2): the scatter
    between images in units of the scatter between views of one image.

    Args:
      views: [n, q, d], q at least 2 views of n images.
      delta: added to the diagonal of S_w, as in the paper.

    Returns:
      1 to min(n - 1, d); 0 where images do not differ.
    """
    views = np.asarray(views, np.float64)
    d = views.shape[2]
    centres = views.mean(axis=1)
    within = (views - centres[:, None]).reshape(-1, d)
    between = centres - centres.mean(axis=0)
    s_w = within.T @ within / len(within) + delta * np.eye(d)
    # With S_w = L L^T, the eigenvalues of L^-1 S_b L^-T are those of the formula.
    whitened = np.linalg.solve(np.linalg.cholesky(s_w), between.T)
    singular = np.linalg.svd(whitened, compute_uv=False)
    return effective_rank(singular**2)


def alpha_req(z: np.ndarray, first: int = 3, last: int = 100) -> float | None:
    """alpha-ReQ: how fast the eigenvalues of the covariance fall, s_j ~ j^-alpha.

    Agrawal et al., NeurIPS 2022: about 1 is best; far above, few directions are used,
    far below, noise fills all of them. Least squares of the logarithms, weighted by
    1/j (Stringer et al., 2019).

    Args:
      z: [n, d].
      first, last: j of the fit; the last is lowered to the eigenvalues there are.

    Returns:
      alpha; None with fewer than three eigenvalues above zero from the first on.
    """
    z = np.asarray(z, np.float64)
    s = np.linalg.svd(z - z.mean(axis=0), compute_uv=False) ** 2
    used = s[: min(last, int(np.sum(s > 1e-12 * s[:1])))][first - 1 :]
    if len(used) < 3:
        return None
    j = first + np.arange(len(used))
    return float(-np.polyfit(np.log(j), np.log(used), 1, w=j**-0.5)[0])


def alignment(f1: np.ndarray, f2: np.ndarray) -> float:
    """E |f1 - f2|^2 of unit features of two views (arXiv 2005.10242, alpha = 2).

    Args:
      f1, f2: [n, d] of the same images.

    Returns:
      0 (the views agree) to 4.
    """
    return float(np.mean(np.sum((_unit(f1) - _unit(f2)) ** 2, axis=1)))


def uniformity(f: np.ndarray) -> float:
    """log E exp(-2 |f_i - f_j|^2) over pairs i < j of unit features (same paper).

    Args:
      f: [n, d], n at least 2.

    Returns:
      0 (one point) down to about -4 (spread evenly over a sphere of many dimensions).
    """
    f = _unit(f)
    cosine = (f @ f.T)[np.triu_indices(len(f), 1)]
    return float(np.log(np.mean(np.exp(-4 * (1 - cosine)))))


def _unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
