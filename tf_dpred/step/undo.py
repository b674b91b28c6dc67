"""Takes back what a training step did to variables, inside the step itself."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf


class Undo:
    """Copies of variables, to give them their values back later in the same step.

    Args:
      variables: that the step may change.
      kept: those of them that keep what the step makes of them, such as counters.
    """

    def __init__(
        self, variables: Iterable[keras.Variable], kept: Iterable[keras.Variable] = ()
    ):
        left_out = {id(variable) for variable in kept}
        self._before = [
            (variable, tf.identity(variable.value))
            for variable in variables
            if id(variable) not in left_out
        ]

    def unless(self, good: tf.Tensor) -> None:
        """Gives the variables their values back where the bool scalar is False."""
        for variable, value in self._before:
            variable.assign(tf.where(good, variable, value))
