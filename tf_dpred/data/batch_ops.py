"""Operations on batches in which each image goes its own way.

Images are float32 [B, H, W, 3] in [0, 1].
"""

import itertools
from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_dpred.data import image_ops

# Row i: the i-th order in which the four jitter operations can be applied.
ORDERS = tuple(itertools.permutations(range(4)))


def apply_chosen(
    choice: tf.Tensor, calls: Sequence[Sequence], images: tf.Tensor
) -> tf.Tensor:
    """Applies to each image the operation that it has chosen, and no other.

    tf.where would compute all of them for every image.

    Args:
      choice: int32 [B], index into `calls`; their number stands for no operation.
      calls: (operation, parameters...). The operation takes n images and n of each
        parameter, which are [B] here, and returns n images.
      images: float32 [B, H, W, 3].
    """
    places = tf.range(tf.shape(images)[0])
    *groups, untouched = tf.dynamic_partition(places, choice, len(calls) + 1)
    results = [
        operation(*(tf.gather(values, group) for values in (images, *parameters)))
        for (operation, *parameters), group in zip(calls, groups, strict=True)
    ]
    whole = tf.dynamic_stitch(
        [*groups, untouched], [*results, tf.gather(images, untouched)]
    )
    return tf.ensure_shape(whole, images.shape)


def sometimes(
    probability: float,
    draw: tf.Tensor,
    operation: Callable[..., tf.Tensor],
    images: tf.Tensor,
    *parameters: tf.Tensor,
) -> tf.Tensor:
    """Applies `operation` to the images whose `draw` is below `probability`.

    Args:
      probability: 0 and 1 cost no choice.
      draw: [B], uniform in [0, 1).
      operation, images, *parameters: as in `apply_chosen`.
    """
    if probability <= 0.0:
        return images
    if probability >= 1.0:
        return operation(images, *parameters)
    choice = tf.where(draw < probability, 0, 1)
    return apply_chosen(choice, [(operation, *parameters)], images)


def mirror(images: tf.Tensor) -> tf.Tensor:
    """Swaps left and right."""
    return images[:, :, ::-1]


def _scale_contrast(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return image_ops.contrast(images, _factor(amount))


def _scale_saturation(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return image_ops.saturation(images, _factor(amount))


def _blend_brightness(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return image_ops.blend(images, 0.0, _factor(amount))


def _blend_contrast(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    anchor = tf.reduce_mean(image_ops.luma(images), axis=(-3, -2), keepdims=True)
    return image_ops.blend(images, anchor, _factor(amount))


def _blend_saturation(images: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    return image_ops.blend(images, image_ops.luma(images), _factor(amount))


def _factor(amount: tf.Tensor) -> tf.Tensor:
    """A strength above 1 would turn the image into its negative."""
    return tf.maximum(1.0 + amount, 0.0)


# Brightness, contrast, saturation, hue; an amount of 0 changes nothing.
JITTER_STYLES: dict[str, tuple[Callable[..., tf.Tensor], ...]] = {
    "hsv": (
        image_ops.brightness,
        _scale_contrast,
        _scale_saturation,
        image_ops.hue,
    ),
    "blend": (
        _blend_brightness,
        _blend_contrast,
        _blend_saturation,
        image_ops.hue,
    ),
}


def jitter(
    images: tf.Tensor, order: tf.Tensor, *amounts: tf.Tensor, style: str
) -> tf.Tensor:
    """Brightness, contrast, saturation and hue, clipped to [0, 1] after each.

    Args:
      images: float32 [B, H, W, 3].
      order: int32 [B], rows of `ORDERS`.
      *amounts: of the four operations, float32 [B] each, 0 for no change.
      style: key of `JITTER_STYLES`.
    """
    calls = tuple(zip(JITTER_STYLES[style], amounts, strict=True))
    turns = tf.gather(ORDERS, order)

    def next_turn(turn: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = apply_chosen(turns[:, turn], calls, images)
        return turn + 1, tf.clip_by_value(images, 0.0, 1.0)

    # A loop in the graph: unrolled, it takes a second more to trace.
    _, images = tf.while_loop(
        lambda turn, images: turn < len(calls), next_turn, (0, images)
    )
    return images
