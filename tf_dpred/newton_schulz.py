"""W = F^(1/2), DirectPred's predictor, by matrix products instead of eigh.

The coupled Newton-Schulz iteration (Higham, Functions of Matrices, 2008, section 6.7)
takes Y = A, Z = I to A^(1/2) and A^(-1/2):

    T = r (3 I - r^2 Z Y) / 2,   Y <- Y T,   Z <- T Z

A scale r > 1 (Chen and Chow, A stable scaling of Newton-Schulz, 2014) lets small
eigenvalues grow up to 2.4 times a step instead of 1.5. All counts are known when the
graph is built: 11 steps in float32, 24 in float64.

F has eigenvalues of zero. Rounding can make them negative, where the iteration
diverges. So it runs on A + delta I, and the root that is returned is

    Y - delta Z = A (A + delta I)^(-1/2)

which is 0 at 0 and everywhere within 0.3 delta^(1/2) of A^(1/2), where A = F/m, m the
largest eigenvalue: 4e-4 in float32, 2e-8 in float64. `devices.prepare` turns off
coarser products (TF32 on GPUs, bfloat16 on TPUs), with which the iteration diverges.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tf_dpred import spectrum

# delta over the machine's precision: ten times the errors that rounding made of zeros.
SHIFT = 16

# Upper limit of r^2. At 3, the largest eigenvalue would be mapped to 0, and to a
# negative number if it was estimated a little too low.
LARGEST_SQUARED_SCALE = 2.5


def predictor(f: tf.Tensor, eps: float, form: str) -> tf.Tensor:
    """W of DirectPred with exponent 1/2; the forms are `spectrum.eigenvalue_map`'s.

    Its distance from the W of eigh, relative to the largest eigenvalue of W, is below
    1e-3 in float32 and 1e-7 in float64.

    Args:
      f: F, [d, d], positive semi-definite up to rounding.
      eps: at least 0 with `eq18`; with the others at least
        `spectrum.SMALLEST_EIGENVALUE`, so that no eigenvalue reaches this floor,
        which matrix products cannot compute.
      form: `reference`, `inside_root` or `eq18`.

    Returns:
      [d, d], symmetric.

    Raises:
      ValueError: unknown form, or eps below what it needs.
    """
    if form not in ("reference", "inside_root", "eq18"):
        raise ValueError(
            f"Invalid form: received {form!r}, accepted: reference, inside_root, eq18."
        )
    least = 0.0 if form == "eq18" else spectrum.SMALLEST_EIGENVALUE
    if not eps >= least:
        raise ValueError(
            f"Invalid eps: received {eps}, accepted: at least {least} with {form}."
        )
    unit, scale = _unit(f)
    largest = largest_eigenvalue(unit)
    relative = tf.math.divide_no_nan(unit, largest)
    identity = tf.eye(tf.shape(f)[0], dtype=f.dtype)
    # What F lost where its entries underflowed can have made eigenvalues negative. It
    # rounds to nothing beside any F that is not nearly 0.
    lost = tf.math.divide_no_nan(tf.constant(4 * _limits(f.dtype).tiny, f.dtype), scale)
    relative = (relative + lost * identity) / (1 + lost)
    if form == "eq18":
        largest = scale * largest
        return tf.sqrt(largest) * square_root(relative) + eps * largest * identity
    if form == "reference":
        return square_root(relative) + eps * identity
    lifted = (relative + eps * identity) / (1 + eps)
    return math.sqrt(1 + eps) * square_root(lifted, lowest=eps / (1 + eps))


def largest_eigenvalue(f: tf.Tensor) -> tf.Tensor:
    """The largest eigenvalue of a positive semi-definite F, [d, d] -> scalar >= 0.

    Power iteration by squaring: n squarings are 2^n steps from all unit vectors at
    once, not all of which can miss the eigenvector. The result is the Rayleigh quotient
    of the longest column. However close the next eigenvalues are, the relative error
    is about ln(d) 2^-(n + 2) at most: 6e-5 in float32, 4e-9 in float64, at d = 2048.
    """
    unit, scale = _unit(f)
    power = unit
    for _ in range(_squarings(f.dtype)):
        power = tf.linalg.matmul(power, power)
        power = tf.math.divide_no_nan(power, tf.reduce_max(tf.abs(power)))
    v = tf.gather(power, tf.argmax(tf.linalg.diag_part(power)))
    quotient = tf.math.divide_no_nan(
        tf.tensordot(v, tf.linalg.matvec(unit, v), 1), tf.tensordot(v, v, 1)
    )
    return scale * tf.maximum(quotient, tf.zeros([], f.dtype))


def _unit(f: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """F over its largest entry, and that entry.

    Sums of products of the entries of F, and its largest eigenvalue, can overflow or
    vanish where F itself does neither.
    """
    scale = tf.reduce_max(tf.abs(f))
    return tf.math.divide_no_nan(f, scale), scale


def square_root(a: tf.Tensor, lowest: float = 0.0) -> tf.Tensor:
    """max(A, 0)^(1/2) of a symmetric A, as the head of this file says.

    Args:
      a: [d, d], eigenvalues from `lowest`, up to rounding, to 1.
      lowest: if it is at least delta, nothing is added to A.

    Returns:
      [d, d], symmetric; all NaN if an eigenvalue far below 0 made it diverge.
    """
    precision = _precision(a.dtype)
    delta = SHIFT * precision if lowest < SHIFT * precision else 0.0
    identity = tf.eye(tf.shape(a)[0], dtype=a.dtype)
    y, z = a + delta * identity, identity
    for scale in scales(math.sqrt(max(lowest, delta)), precision):
        t = 0.5 * scale * (3.0 * identity - scale**2 * tf.linalg.matmul(z, y))
        y, z = tf.linalg.matmul(y, t), tf.linalg.matmul(t, z)
    found = spectrum.symmetrize(y - delta * z)
    # No entry of a root of eigenvalues up to 1 is above 1.
    converged = tf.reduce_max(tf.abs(found)) < 1.1
    return tf.where(converged, found, tf.constant(math.nan, a.dtype))


def scales(lowest: float, precision: float) -> list[float]:
    """r of each step that takes the singular values in [lowest, 1] to 1.

    A step maps x to r x (3 - r^2 x^2) / 2, whose largest value is 1. With its r, both
    ends of the interval are mapped to one value, or as close as the limit allows.

    Args:
      lowest: above 0.
      precision: the distance from 1 that the last step may leave. Each step squares
        the distance.
    """
    found = []
    while 1 - lowest > math.sqrt(precision):
        squared = min(LARGEST_SQUARED_SCALE, 3 / (1 + lowest + lowest**2))
        found.append(math.sqrt(squared))
        lowest = min(found[-1] * x * (3 - squared * x**2) / 2 for x in (lowest, 1.0))
    return [*found, 1.0]


def _limits(dtype: tf.DType) -> np.finfo:
    return np.finfo(dtype.as_numpy_dtype)


def _precision(dtype: tf.DType) -> float:
    return float(_limits(dtype).eps)


def _squarings(dtype: tf.DType) -> int:
    return round(-0.5 * math.log2(_precision(dtype))) + 3
