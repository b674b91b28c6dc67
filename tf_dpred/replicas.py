"""What several replicas share: means over all of them, and metrics equal on each."""

from __future__ import annotations

import keras
import tensorflow as tf


def count() -> int:
    """Replicas that run this code in step; 1 outside of a replica context."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def mean(x: tf.Tensor) -> tf.Tensor:
    """Mean over replicas, the same on each of them."""
    if count() == 1:
        return x
    context = tf.distribute.get_replica_context()
    # The identity lies on this replica's device; what was read from a variable may lie
    # on none, which the all-reduce of several workers refuses.
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(x))


def all_agree(holds: tf.Tensor) -> tf.Tensor:
    """bool tensor: where `holds` is true on every replica; the same on each."""
    # Not a mean of 1: a device may sum up shares of 1/n.
    return mean(tf.cast(~holds, tf.float32)) == 0


def are_on_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes train the same model in step with this one."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def meet(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker calls this."""
    if are_on_several_workers(strategy):
        strategy.run(tf.function(lambda: mean(tf.constant(0.0))))


def agree(strategy: tf.distribute.Strategy, numbers: list[int]) -> bool:
    """Whether every worker calls this with the same numbers, each below 2^40."""
    if not are_on_several_workers(strategy):
        return True

    def spread() -> tf.Tensor:
        mine = tf.constant(numbers, tf.float64)
        return mean(tf.reduce_max(tf.abs(mine - mean(mine))))

    found = strategy.run(tf.function(spread))
    return float(strategy.experimental_local_results(found)[0]) == 0


class StopRequest:
    """Lets several workers stop after the same step, whoever was asked to."""

    def __init__(self):
        self._mine, self._all = (
            keras.Variable(0.0, trainable=False, name=name, dtype="float32")
            for name in ("stop_mine", "stop_all")
        )

    def ask(self) -> None:
        """From this worker; the others learn of it in the next step."""
        self._mine.assign(1.0)

    def exchange(self) -> None:
        """Part of the training step."""
        self._all.assign(mean(tf.convert_to_tensor(self._mine)))

    @property
    def agreed(self) -> bool:
        """Whether a worker had asked before the latest step; the same on all."""
        return float(self._all.numpy()) > 0


class EqualMean(keras.metrics.Metric):
    """Mean of values that every replica is given alike.

    `keras.metrics.Mean` keeps a share on each replica and adds the shares up. Saved and
    restored they round differently, so a resumed epoch would not log the same.
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

    def update_state(self, value: tf.Tensor) -> None:
        """Takes in a scalar."""
        self.total.assign_add(tf.cast(value, self.total.dtype))
        self.count.assign_add(1.0)

    def result(self) -> tf.Tensor:
        """The mean; 0 of no values."""
        return tf.math.divide_no_nan(
            tf.convert_to_tensor(self.total), tf.convert_to_tensor(self.count)
        )
