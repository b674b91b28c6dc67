"""Finds numbers that are not finite, inside the training step, at the step itself."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_dpred import replicas

QUANTITIES = ("loss", "gradient norm", "F", "W")


class FiniteGuard(keras.layers.Layer):
    """Remembers the first step with a quantity that is not finite, and counts them.

    Lives in the graph, so that it names the right step at any `steps_per_execution`,
    and needs no call to the host.
    """

    def __init__(self, **kwargs):
        super().__init__(name="guard", **kwargs)
        self.first_step = self._counter("first_step", -1)
        self.quantity = self._counter("quantity", -1)
        self.count = self._counter("count", 0)
        self.built = True

    def _counter(self, name: str, start: int) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=[],
            dtype="int64",
            initializer=lambda shape, dtype: tf.constant(start, dtype),
            trainable=False,
        )

    def observe(self, step: tf.Tensor, values: Sequence[tf.Tensor | None]) -> tf.Tensor:
        """Looks at one step's quantities.

        Args:
          step: int64 scalar.
          values: tensors in the order of `QUANTITIES`; None: not looked at.

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
        if replicas.count() > 1:
            finite = replicas.mean(tf.cast(~finite, tf.float32)) == 0
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
