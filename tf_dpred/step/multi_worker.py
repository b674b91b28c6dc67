"""Steps with several workers, which Keras' own `fit` cannot do (keras#20585)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from tf_dpred.errors import WorkerLost
from tf_dpred.system.devices import Place

# What TensorFlow raises in a worker whose partner is gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def function(model: keras.Model, step: Callable) -> Callable[..., dict[str, tf.Tensor]]:
    """What `Model.make_train_function` makes: an iterator -> the logs of its steps.

    Args:
      model: compiled.
      step: its `train_step` or `test_step`.

    Keras reduces the logs of all replicas itself and fails on the values of other
    workers. The logs of this package are equal on all replicas, so the first one of
    this worker is taken.
    """
    strategy = model.distribute_strategy

    @tf.autograph.experimental.do_not_convert
    def one_step(data) -> dict[str, tf.Tensor]:
        logs = strategy.run(step, args=(data,))
        return {
            name: strategy.experimental_local_results(value)[0]
            for name, value in logs.items()
        }

    if not model.run_eagerly:
        one_step = tf.function(one_step, jit_compile=model.jit_compile)

    def steps(iterator) -> dict[str, tf.Tensor]:
        for _ in range(model.steps_per_execution):
            logs = one_step(next(iterator))
        return logs

    return steps


@contextlib.contextmanager
def lost_workers_named(place: Place) -> Iterator[None]:
    """Makes one line of what TensorFlow raises when another worker is gone.

    Args:
      place: of this process.

    Raises:
      WorkerLost: another worker ended.
    """
    try:
        yield
    except _LOST as error:
        lines = [line.strip() for line in error.message.splitlines() if line.strip()]
        reason = next((x for x in lines if "Error reported from" in x), lines[0])
        ours = isinstance(error, tf.errors.InternalError) and not (
            "ollective" in error.message or "Error reported from" in error.message
        )
        if place.workers == 1 or ours:
            raise
        raise WorkerLost(
            f"worker {place.index} of {place.workers} lost another one ({reason}). "
            "Start all of them again: they continue from the last checkpoint."
        ) from error
