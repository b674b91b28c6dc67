"""Operations on batches in which each image goes its own way.

There are two ways to the same result. `branch` takes a batch of one image and runs the
operation that was chosen for it, which is best on a CPU. `select` runs every operation
on all images and keeps the chosen results, which is best on an accelerator, where
operations are cheap and branches are not.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

Operation = Callable[[tf.Tensor], tf.Tensor]
# (choice, operations, images): choice, int32 [B], is the index of each image's
# operation; an operation takes and returns images [B, C, H, W].
Choose = Callable[[tf.Tensor, Sequence[Operation], tf.Tensor], tf.Tensor]


def branch(
    choice: tf.Tensor, operations: Sequence[Operation], images: tf.Tensor
) -> tf.Tensor:
    """Runs the chosen operation alone; for one image, B = 1."""
    tf.debugging.assert_equal(images.shape[0], 1)
    calls = [lambda operation=operation: operation(images) for operation in operations]
    return tf.ensure_shape(tf.switch_case(choice[0], calls), images.shape)


def select(
    choice: tf.Tensor, operations: Sequence[Operation], images: tf.Tensor
) -> tf.Tensor:
    """Runs all operations and keeps the chosen one of each image."""
    result = images
    for index, operation in enumerate(operations):
        chosen = (choice == index)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        result = tf.where(chosen, operation(images), result)
    return result


def sometimes(
    probability: float,
    draw: tf.Tensor,
    operation: Operation,
    images: tf.Tensor,
    choose: Choose,
) -> tf.Tensor:
    """Applies `operation` to the images whose `draw` is below `probability`.

    Args:
      probability: with 0 or 1 there is no choice to compute.
      draw: [B], uniform in [0, 1).
      operation, images, choose: see `Choose`.
    """
    if probability <= 0.0:
        return images
    if probability >= 1.0:
        return operation(images)
    choice = tf.where(draw < probability, 0, 1)
    return choose(choice, [operation, tf.identity], images)
