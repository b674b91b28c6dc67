"""The tensors of a batch, as `fit`, `train_on_batch` and `evaluate` hand them over."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def tensors(data: Any) -> tuple[tf.Tensor, ...]:
    """The tensors of a batch, of which Keras leaves some None."""
    parts = data if isinstance(data, tuple | list) else (data,)
    given = [part for part in parts if part is not None]
    if len(given) == 1 and isinstance(given[0], tuple | list):
        return tuple(given[0])
    return tuple(given)


def two_views(data: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """The two views that a batch is.

    Raises:
      ValueError: it is anything else.
    """
    given = tensors(data)
    if len(given) != 2 or not all(tf.is_tensor(part) for part in given):
        found = tf.nest.map_structure(lambda x: tuple(x.shape), data)
        raise ValueError(
            f"A batch: received {found}, accepted: two views (view1, view2), without "
            "labels or weights."
        )
    view1, view2 = given
    return view1, view2
