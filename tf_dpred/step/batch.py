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


def refuse(data: Any) -> NoReturn:
    """Raises ValueError with the shapes of a batch that holds something else."""
    shapes = tf.nest.map_structure(
        lambda part: tuple(getattr(part, "shape", ())), data, expand_composites=False
    )
    raise ValueError(
        f"A batch: received {shapes}, accepted: two views (view1, view2), without "
        "labels or weights."
    )
