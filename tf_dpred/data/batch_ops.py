"""Operations on batches in which each image goes its own way.

Images are float32 [B, H, W, 3] in [0, 1].
"""

import itertools
from collections.abc import Callable

import tensorflow as tf

from tf_dpred.data import image_ops

# Row i: the i-th order in which the four jitter operations can be applied.
ORDERS = tuple(itertools.permutations(range(4)))


def apply_where(
    mask: tf.Tensor,
    operation: Callable[..., tf.Tensor],
    images: tf.Tensor,
    *parameters: tf.Tensor,
) -> tf.Tensor:
    """Applies `operation` to the images whose `mask` is set, and to no other.

    tf.where would compute it for all of them; the blur of BYOL's second view, for one,
    is wanted for every tenth.

    Args:
      mask: bool [B].
      operation: takes n images and n of each parameter, returns n images.
      images: float32 [B, H, W, 3].
      *parameters: [B] each, one number per image.
    """
    places = tf.where(mask)
    chosen = [tf.gather_nd(values, places) for values in (images, *parameters)]
    return tf.tensor_scatter_nd_update(images, places, operation(*chosen))


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
    images: tf.Tensor,
    mask: tf.Tensor,
    order: tf.Tensor,
    amounts: tuple[tf.Tensor, ...],
    style: str,
) -> tf.Tensor:
    """Brightness, contrast, saturation and hue, clipped to [0, 1] after each.

    Args:
      images: float32 [B, H, W, 3].
      mask: bool [B], which images to change.
      order: int [B], rows of `ORDERS`.
      amounts: of the four operations, float32 [B] each, 0 for no change.
      style: key of `JITTER_STYLES`.
    """
    turns = tf.gather(ORDERS, order)

    def next_turn(turn: tf.Tensor, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for index, operation in enumerate(JITTER_STYLES[style]):
            mine = mask & (turns[:, turn] == index)
            images = apply_where(mine, operation, images, amounts[index])
        return turn + 1, tf.clip_by_value(images, 0.0, 1.0)

    # A loop in the graph: unrolled, it takes a second more to trace.
    _, images = tf.while_loop(
        lambda turn, images: turn < len(amounts), next_turn, (0, images)
    )
    return images
