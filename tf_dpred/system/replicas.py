"""What several replicas share: means over all of them, and metrics equal on each."""

from __future__ import annotations

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


def gather(x: tf.Tensor) -> tf.Tensor:
    """The rows of all replicas, in their order; the same on each of them."""
    if count() == 1:
        return x
    return tf.distribute.get_replica_context().all_gather(tf.identity(x), axis=0)


def all_agree(holds: tf.Tensor) -> tf.Tensor:
    """bool tensor: where `holds` is true on every replica; the same on each."""
    # Not mean(holds) == 1: a device may add up n times 1/n, which is rounded.
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
