"""The measurements of a training step: means that are equal on all replicas."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from tf_dpred import spectrum
from tf_dpred.system import replicas


def feature_std(f: tf.Tensor) -> tf.Tensor:
    """`spectrum.feature_std` of the rows of all replicas; the same on each."""
    return spectrum.feature_std(f, lambda x: replicas.mean(tf.reduce_mean(x, axis=0)))


class ViewMoments:
    """Mean inner products of one batch's projections, the same on all replicas.

    The theory's tau and sigma^2 of the latest step follow from them. Every step sets
    them anew and nothing else depends on them, so they are in no checkpoint.
    """

    def __init__(self):
        self._values = keras.Variable(
            np.zeros(3),
            trainable=False,
            name="view_moments",
            dtype="float32",
            aggregation="only_first_replica",
        )

    @staticmethod
    def of(
        f1: tf.Tensor, f2: tf.Tensor | None, z1: tf.Tensor | None, z2: tf.Tensor
    ) -> tf.Tensor:
        """The three, [3], from this replica's projections [n, d]; f online, z target.

        Without f2 and z1, which a loss of one direction does not need, only the first
        is known; the others are NaN.
        """

        def inner(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.reduce_sum(a * b, axis=1))

        if f2 is None or z1 is None:
            unknown = tf.constant(math.nan, f1.dtype)
            return tf.stack([inner(f1, f1), unknown, unknown])
        own = (inner(f1, f1) + inner(f2, f2)) / 2
        target = (inner(z1, f1) + inner(z2, f2)) / 2
        return tf.stack([own, inner(f1, f2), target])

    def assign(self, values: tf.Tensor) -> None:
        """Stores the three means, [3], over all replicas."""
        self._values.assign(tf.cast(values, self._values.dtype))

    def read(self) -> tuple[float, float, float]:
        """E f.f of one view, E f1.f2 of two, and E z.f of one; zeros before a step."""
        own, across, target = self._values.numpy().tolist()
        return own, across, target


class EqualMean(keras.metrics.Metric):
    """Mean of values that are equal on all replicas.

    `keras.metrics.Mean` keeps a part on each replica and adds the parts up. Restored
    parts round differently, so a resumed epoch would not log the same.
    """

    def __init__(self, name: str, **kwargs):
        super().__init__(name=name, **kwargs)
        self.total, self.count = (
            self.add_variable(
                [],
                keras.initializers.Zeros(),
                name=part,
                aggregation="only_first_replica",
            )
            for part in ("total", "count")
        )

    def update_state(self, value: tf.Tensor, weight: tf.Tensor | float = 1.0) -> None:
        """Takes in a scalar, which counts `weight` times."""
        weight = tf.cast(weight, self.total.dtype)
        self.total.assign_add(weight * tf.cast(value, self.total.dtype))
        self.count.assign_add(weight)

    def result(self) -> tf.Tensor:
        """The mean; 0 without values."""
        return tf.math.divide_no_nan(
            tf.convert_to_tensor(self.total), tf.convert_to_tensor(self.count)
        )
