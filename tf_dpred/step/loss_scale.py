"""Dynamic loss scaling for float16, on any number of replicas."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_dpred.step.finite import scalar_weight
from tf_dpred.step.undo import Undo
from tf_dpred.system import replicas

FIRST = 2.0**15
LARGEST = 2.0**24
GROWTH_STEPS = 2000


class LossScale(keras.layers.Layer):
    """Keeps the gradients of float16 in its range (arXiv 1710.03740, 3.2).

    The loss is multiplied by `scale`, the gradients are divided by it. A step whose
    gradients overflow on any replica must be dropped, and halves the scale; after
    `GROWTH_STEPS` steps in a row without overflow, the scale doubles. It starts at
    `FIRST` and stays between 1 and `LARGEST`.

    `keras.optimizers.LossScaleOptimizer` looks at the first replica alone, and does not
    count dropped steps, while the schedules, F and the target need that count.
    """

    def __init__(self, **kwargs):
        super().__init__(name="loss_scale", dtype="float32", **kwargs)
        self.scale = scalar_weight(self, "scale", "float32", FIRST)
        self.good_steps = scalar_weight(self, "good_steps", "int64", 0)
        self.dropped = scalar_weight(self, "dropped", "int64", 0)
        self.built = True

    def multiply(self, loss: tf.Tensor) -> tf.Tensor:
        """The loss to take gradients of."""
        return loss * tf.cast(self.scale, loss.dtype)

    def divide(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The gradients of the loss itself, in float32."""
        return [tf.cast(g, tf.float32) / self.scale for g in gradients]

    def apply(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[keras.Variable],
    ) -> tf.Tensor:
        """Takes the optimizer's step, or only counts it if a gradient overflowed.

        Args:
          optimizer: that owns the variables.
          gradients: after `divide`.
          variables: one for each gradient.

        Returns:
          bool scalar: the scale was at its lowest, so an overflow is an error.
        """
        at_lowest = tf.convert_to_tensor(self.scale) <= 1
        fits = self.observe(gradients)
        undo = Undo([*variables, *optimizer.variables], kept=[optimizer.iterations])
        optimizer.apply(gradients, variables)
        undo.unless(fits)
        return at_lowest

    def observe(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Adapts the scale to one step's gradients.

        Returns:
          bool scalar, equal on all replicas: none overflowed. If one did, the step
          must be dropped.
        """
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
        finite = replicas.all_agree(finite)
        scale, good = tf.convert_to_tensor(self.scale), self.good_steps + 1
        grown = tf.where(good >= GROWTH_STEPS, tf.minimum(2 * scale, LARGEST), scale)
        self.scale.assign(tf.where(finite, grown, tf.maximum(scale / 2, 1)))
        self.good_steps.assign(tf.where(finite & (good < GROWTH_STEPS), good, 0))
        self.dropped.assign_add(tf.cast(~finite, tf.int64))
        return finite
