"""Correlations, their spectra, and the predictors that follow from them.

Pure functions on tensors: arguments in, tensors out, no state. `F` is a symmetric
[d, d] matrix, `s` its eigenvalues, `U` its eigenvectors (columns). Equation numbers
are those of arXiv 2102.06810.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# The authors' code keeps every eigenvalue of W at or above this, relative to the
# largest; without it a rank-deficient F would cut directions off for good.
SMALLEST_EIGENVALUE = 1e-4


def correlation(f: tf.Tensor) -> tf.Tensor:
    """E_B[f f^T], uncentred.

    Args:
      f: [n, d] rows.

    Returns:
      [d, d] symmetric, positive semi-definite.
    """
    return tf.linalg.matmul(f, f, transpose_a=True) / tf.cast(tf.shape(f)[0], f.dtype)


def cross_correlation(z: tf.Tensor, f: tf.Tensor) -> tf.Tensor:
    """E_B[z f^T] of paired rows z, f: [n, d] -> [d, d]."""
    return tf.linalg.matmul(z, f, transpose_a=True) / tf.cast(tf.shape(f)[0], f.dtype)


def eigenvalue_map(
    s: tf.Tensor, eps: float, exponent: float = 0.5, form: str = "reference"
) -> tf.Tensor:
    """Eigenvalues of W from those of F.

    | form        | p_j, with m = max_k s_k                          | source        |
    |-------------|--------------------------------------------------|---------------|
    | reference   | max((max(s_j, 0) / m)^exponent + eps, 1e-4)       | authors' code |
    | inside_root | max(max(s_j, 0) / m + eps, 1e-4)^exponent         | authors' code |
    | eq18        | max(s_j, 0)^exponent + eps m                      | Eq. 18        |

    `reference` is scale-free; `eq18` is not, since its eps multiplies max s and not
    max sqrt(s). With the cosine loss only the ratios of p matter.

    Args:
      s: [d] eigenvalues. Negative ones, which rounding makes of zeros, count as zero.
      eps: boost of the small eigenvalues; below 0 only with `inside_root` (Table 7).
      exponent: 1/2 in the paper.
      form: one of the table.

    Returns:
      [d] eigenvalues of W; those of F = 0 if no eigenvalue of F is above 0.

    Raises:
      ValueError: unknown form.
    """
    s = tf.maximum(s, tf.zeros([], s.dtype))
    largest = tf.reduce_max(s)
    if form == "eq18":
        return s**exponent + eps * largest
    relative = tf.math.divide_no_nan(s, largest)
    if form == "reference":
        return tf.maximum(relative**exponent + eps, SMALLEST_EIGENVALUE)
    if form == "inside_root":
        return tf.maximum(relative + eps, SMALLEST_EIGENVALUE) ** exponent
    raise ValueError(
        f"Invalid form: received {form!r}, accepted: reference, inside_root, eq18."
    )


def regression(r: tf.Tensor, cross: tf.Tensor, ridge: float, form: str) -> tf.Tensor:
    """W that predicts z from f: with the least E|W f - z|^2 + ridge |W|^2, or nearly.

    | form      | W, with R = E[f f^T] and C = E[z f^T]                         |
    |-----------|---------------------------------------------------------------|
    | right     | C (R + ridge I)^-1, the best                                  |
    | left      | (R + ridge I)^-1 C, which is the best only if C and R commute |
    | symmetric | the best symmetric one: W R + R W + 2 ridge W = C + C^T       |

    All are forms of the DirectPred authors' code. In the last it adds its regularizer
    once, so that it is twice the ridge here.

    Args:
      r: R, [d, d] symmetric; negative eigenvalues count as zero.
      cross: C, [d, d].
      ridge: above 0.
      form: one of the table.

    Returns:
      [d, d].

    Raises:
      ValueError: unknown form.
    """
    s, u = tf.linalg.eigh(r)
    s = tf.maximum(s, tf.zeros([], s.dtype)) + ridge
    # In the eigenbasis of R, the equation is one of numbers: W_jk (s_j + s_k) = ...
    c = tf.linalg.matmul(u, tf.linalg.matmul(cross, u), transpose_a=True)
    if form == "right":
        w = c / s
    elif form == "left":
        w = c / s[:, None]
    elif form == "symmetric":
        w = 2 * symmetrize(c) / (s + s[:, None])
    else:
        raise ValueError(
            f"Invalid form: received {form!r}, accepted: symmetric, right, left."
        )
    w = tf.linalg.matmul(u, tf.linalg.matmul(w, u, transpose_b=True))
    return symmetrize(w) if form == "symmetric" else w


def from_eigenvalues(p: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """U diag(p) U^T, made exactly symmetric.

    The sign and the order of the eigenvectors cancel, so replicas that call eigh on
    equal matrices get equal predictors.

    Args:
      p: [d].
      u: [d, d], eigenvectors in columns.
    """
    w = tf.linalg.matmul(u * p, u, transpose_b=True)
    return symmetrize(w)


def symmetrize(w: tf.Tensor) -> tf.Tensor:
    """(W + W^T) / 2."""
    return 0.5 * (w + tf.linalg.matrix_transpose(w))


def _mean_over_rows(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(x, axis=0)


def feature_std(
    f: tf.Tensor, mean_over_rows: Callable[[tf.Tensor], tf.Tensor] = _mean_over_rows
) -> tf.Tensor:
    """Spread of the directions of features, the collapse measure of SimSiam.

    Args:
      f: [n, d] rows.
      mean_over_rows: [n, d] -> [d]; another function where `f` holds the rows of one
        replica only.

    Returns:
      Scalar: mean over dimensions of the standard deviation over rows of f/|f|, times
      sqrt(d). 1: spread over the sphere; 0: collapsed to one point.
    """
    unit = tf.math.l2_normalize(f, axis=1, epsilon=1e-24)
    d = tf.cast(tf.shape(f)[1], f.dtype)
    mean = mean_over_rows(unit)
    variance = mean_over_rows(tf.math.squared_difference(unit, mean))
    return tf.reduce_mean(tf.sqrt(variance)) * tf.sqrt(d)
