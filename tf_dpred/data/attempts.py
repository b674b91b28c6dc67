"""Operations that may fail, inside a graph.

A graph has no `try`, but a data set inside of it can leave out elements that fail. An
attempt costs a quarter of a millisecond, most of it to set up the function inside: the
function should be small, or one attempt should serve many elements.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def single_element_or(dataset: tf.data.Dataset, otherwise: Any) -> Any:
    """The first element that can be computed, or `otherwise` if there is none."""
    last = tf.data.Dataset.from_tensors(otherwise)
    return dataset.ignore_errors().concatenate(last).take(1).get_single_element()


def map_or(
    function: Callable[..., tuple[tf.Tensor, ...]],
    otherwise: Callable[..., tuple[tf.Tensor, ...]],
    *elements: Any,
) -> tuple[tf.Tensor, ...]:
    """`function` of each element; if it raises for any of them, `otherwise` of each.

    After an error all elements are computed again, by `otherwise`.

    Args:
      function, otherwise: of one element's parts, to tensors of the same static shapes.
      *elements: their parts, nested tensors [n, ...], n static.

    Returns:
      Their results stacked, [n, ...] each.
    """
    count = tf.nest.flatten(elements)[0].shape[0]
    each = tf.data.Dataset.from_tensor_slices(elements).map(function)
    all_of_them = each.batch(count, drop_remainder=True)
    specs = all_of_them.element_spec
    nothing = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in specs)
    results = single_element_or(all_of_them, nothing)

    def one_by_one() -> tuple[tf.Tensor, ...]:
        one = tuple(tf.TensorSpec(spec.shape[1:], spec.dtype) for spec in specs)
        # One at a time, since an image may need much memory.
        return tf.map_fn(
            lambda parts: otherwise(*parts),
            elements,
            parallel_iterations=1,
            fn_output_signature=one,
        )

    done = tf.shape(results[0])[0] == count
    results = tf.cond(done, lambda: results, one_by_one)
    return tuple(
        tf.ensure_shape(result, spec.shape)
        for result, spec in zip(results, specs, strict=True)
    )
