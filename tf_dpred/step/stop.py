"""How the workers of a run agree to stop after the same step."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_dpred.system.replicas import mean


class StopRequest:
    """Lets several workers stop after the same step, whoever was asked to."""

    def __init__(self):
        self._mine, self._all = (
            keras.Variable(0.0, trainable=False, name=name, dtype="float32")
            for name in ("stop_mine", "stop_all")
        )

    def ask(self) -> None:
        """Asks on this worker; the others learn of it in the next step."""
        self._mine.assign(1.0)

    def exchange(self) -> None:
        """Tells the other workers; called inside the training step."""
        self._all.assign(mean(tf.convert_to_tensor(self._mine)))

    @property
    def agreed(self) -> bool:
        """Whether a worker had asked before the latest step; the same on all."""
        return float(self._all.numpy()) > 0
