"""Finds numbers that are not finite, inside the training step."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_dpred.system import replicas

QUANTITIES = ("loss", "gradient norm", "F", "W")


def scalar_weight(
    layer: keras.layers.Layer, name: str, dtype: str, start: float
) -> keras.Variable:
    """Adds to a layer a scalar weight that no optimizer trains."""
    return layer.add_weight(
        name=name,
        shape=[],
        dtype=dtype,
        initializer=lambda shape, dtype: tf.constant(start, dtype),
        trainable=False,
    )


class FiniteCheck(keras.layers.Layer):
    """Remembers the first step with a quantity that is not finite, and counts them all.

    It is part of the graph, so that it names the right step at any
    `steps_per_execution` without a call to the host.
    """

    def __init__(self, **kwargs):
        super().__init__(name="finite", **kwargs)
        self.first_step = scalar_weight(self, "first_step", "int64", -1)
        self.quantity = scalar_weight(self, "quantity", "int64", -1)
        self.count = scalar_weight(self, "count", "int64", 0)
        self.built = True

    def observe(self, step: tf.Tensor, values: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """Checks one step's quantities.

        Args:
          step: int64 scalar.
          values: tensors in the order of `QUANTITIES`; None: not checked.

        Returns:
          bool scalar, equal on all replicas: everything is finite.
        """
        finite = tf.stack(
            [
                tf.constant(True)
                if value is None
                else tf.reduce_all(tf.math.is_finite(value))
                for value in values
            ]
        )
        finite = replicas.all_agree(finite)
        ok = tf.reduce_all(finite)
        first = ~ok & (tf.convert_to_tensor(self.first_step) < 0)
        self.first_step.assign(tf.where(first, step, self.first_step))
        culprit = tf.argmin(tf.cast(finite, tf.int32))
        self.quantity.assign(tf.where(first, culprit, self.quantity))
        self.count.assign_add(tf.cast(~ok, tf.int64))
        return ok

    def describe(self) -> str | None:
        """What was found first, in words; None if all was finite."""
        step = int(self.first_step.numpy())
        if step < 0:
            return None
        return f"{QUANTITIES[int(self.quantity.numpy())]} is not finite at step {step}"
