"""The tensors of a batch, as `fit`, `train_on_batch` and `evaluate` hand them over."""

from __future__ import annotations

from typing import Any, NoReturn

import tensorflow as tf


def tensors(data: Any) -> tuple[tf.Tensor, ...]:
    """The tensors of a batch, of which Keras leaves some None.

    Raises:
      ValueError: it holds something else, such as labels beside a pair of views.
    """
    parts = data if isinstance(data, tuple | list) else (data,)
    given = [part for part in parts if part is not None]
    if len(given) == 1 and isinstance(given[0], tuple | list):
        given = list(given[0])
    if not all(tf.is_tensor(part) or hasattr(part, "shape") for part in given):
        refuse(data)
    return tuple(tf.convert_to_tensor(part) for part in given)


def two_views(data: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The two views that a batch is.

    Raises:
      ValueError: it is anything else.
    """
    given = tensors(data)
    if len(given) != 2:
        refuse(data)
    return given[0], given[1]


def divisible(given: tuple[tf.Tensor, ...], parts: int) -> tuple[tf.Tensor, ...]:
    """The tensors, of which micro-batches can be made.

    Raises:
      ValueError: their number of examples does not divide, and is known when the step
        is traced; else the step raises tf.errors.InvalidArgumentError.
    """
    if parts == 1:
        return given
    accepted = f"a multiple of accumulation_steps={parts}."
    known = given[0].shape[0]
    if known is not None and known % parts:
        raise ValueError(f"A batch: received {known} examples, accepted: {accepted}")
    number = tf.shape(given[0])[0]
    message = ["A batch: examples received", number, f", accepted: {accepted}"]
    check = tf.debugging.Assert(number % parts == 0, message)
    with tf.control_dependencies([check]):
        return tuple(tf.identity(tensor) for tensor in given)


def refuse(data: Any) -> NoReturn:
    """Raises ValueError with the shapes of a batch that holds something else."""
    shapes = tf.nest.map_structure(
        lambda part: tuple(getattr(part, "shape", ())), data, expand_composites=False
    )
    raise ValueError(
        f"A batch: received {shapes}, accepted: two views (view1, view2), without "
        "labels or weights."
    )
