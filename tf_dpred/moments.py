"""Three numbers of the latest step, which the theory's tau and sigma^2 follow from."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tf_dpred import replicas


class ViewMoments:
    """Mean inner products of one batch's projections, the same on all replicas.

    Every step sets them anew and nothing else depends on them, so they are in no
    checkpoint.
    """

    def __init__(self):
        self._values = keras.Variable(
            np.zeros(3),
            trainable=False,
            name="view_moments",
            dtype="float32",
            aggregation="only_first_replica",
        )

    def observe(self, f1: tf.Tensor, f2: tf.Tensor, z1: tf.Tensor, z2: tf.Tensor):
        """Takes the projections of a step, [n, d] each; f online, z target."""

        def inner(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.reduce_sum(a * b, axis=1))

        own = (inner(f1, f1) + inner(f2, f2)) / 2
        target = (inner(z1, f1) + inner(z2, f2)) / 2
        values = replicas.mean(tf.stack([own, inner(f1, f2), target]))
        self._values.assign(tf.cast(values, self._values.dtype))

    def read(self) -> tuple[float, float, float]:
        """E f.f of one view, E f1.f2 of two, and E z.f of one; zeros before a step."""
        own, across, target = self._values.numpy().tolist()
        return own, across, target
