"""The interface of every kind of data set, and the kinds addressed by an index."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tf_dpred.config import PixelConfig
from tf_dpred.data import image_files
from tf_dpred.data.image_files import USUAL, Pixels

Seed: TypeAlias = tf.Tensor | int | None
Example = dict[str, tf.Tensor]
Load: TypeAlias = Callable[[Example], tuple[tf.Tensor, tf.Tensor]]
# The seed of an epoch -> indices of its examples, int64.
Order: TypeAlias = Callable[[tf.Tensor], tf.Tensor]
SUBSET_SEED = 0


@dataclass(frozen=True)
class Stored:
    """Image uint8 [H, W, C] and label of an example that holds its image.

    Attributes:
      pixels: how values become pixels.
    """

    pixels: Pixels = USUAL

    def __call__(self, example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        image = image_files.decode_stored(example["image"], self.pixels)
        return image, example["label"]


load_stored = Stored()


@dataclass(frozen=True)
class Source:
    """One split of a data set.

    Attributes:
      name, split: what it is called, for messages.
      num_examples: of one epoch.
      num_classes: None if there are no labels.
      fingerprint: of the images and their order, as far as they are known without
        reading them.
      examples: `examples(shuffle_seed, skip=0)` is one epoch from its `skip`-th example
        on. Elements are {"label": int64 scalar, -1 without labels} and what `load`
        needs: "image", a string scalar (encoded) or uint8 [H, W, 3], or "file", a path.
        A seed of None keeps the stored order; otherwise the order is a function of the
        seed. Both may be int64 tensors, as inside `Dataset.flat_map`. Skipped examples
        are not decoded.
      load: example -> (uint8 [H, W, 3], label). An image that cannot be used is
        replaced by another one with its label where the source can do that.
      attempt: equal to `load` to the bit and faster, but it raises an error where
        `load` replaces an image. Training tries it first. None if `load` never
        replaces.
      guard: a batch of examples -> the same for `attempt`, without those whose reading
        might never end; or None.
      image_size: (H, W) of every image, where they are known to have one size.
      classes, folders: [N] names of each example's class and folder, "" without one,
        in stored order; None where there are none.
      at: indices, int64 [n] -> these examples; None where they can only be streamed.
      order: of an epoch by its seed; None: all examples, shuffled.
      channels: C of every image.
    """

    name: str
    split: str
    num_examples: int
    num_classes: int | None
    fingerprint: str
    examples: Callable[..., tf.data.Dataset]
    load: Load = load_stored
    attempt: Load | None = None
    guard: Callable[[Example], Example] | None = None
    image_size: tuple[int, int] | None = None
    classes: Sequence[str] | None = None
    folders: Sequence[str] | None = None
    at: Callable[[tf.Tensor], tf.data.Dataset] | None = None
    order: Order | None = None
    channels: int = 3


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray | None = None,
    name: str = "arrays",
    *,
    split: str = "train",
    channels: int | None = None,
) -> Source:
    """A source over images in memory.

    Args:
      images: uint8 [N, H, W, C], or [N, H, W] for gray.
      labels: integer [N], 0 for the first class; or None.
      name, split: what to call it in messages.
      channels: 1 or 3 for gray images; None: 3 for these, else C.

    Raises:
      ValueError: another type or shape.
    """
    images = np.asarray(images)
    shape = images.shape if images.ndim == 4 else (*images.shape, 1)
    if images.dtype != np.uint8 or len(shape) != 4 or not shape[-1]:
        raise ValueError(
            f"Invalid images: received {images.dtype} of shape {images.shape}, "
            "accepted: uint8 [N, H, W, channels] or [N, H, W]."
        )
    usual = 3 if shape[-1] == 1 else shape[-1]
    if channels not in (None, usual, shape[-1]):
        raise ValueError(
            f"Invalid channels: received {channels}, accepted: {shape[-1]} of images "
            f"of shape {images.shape}."
        )
    channels = channels or usual
    if not len(images):
        raise ValueError("Invalid images: received none, accepted: at least 1.")
    if labels is not None and np.shape(labels) != (len(images),):
        raise ValueError(
            f"Invalid labels: received shape {np.shape(labels)}, "
            f"accepted: ({len(images)},), one for each image."
        )
    with tf.device("CPU:0"):
        pixels = tf.broadcast_to(images.reshape(shape), (*shape[:-1], channels))
    return indexed(
        name,
        split,
        lambda index: {"image": pixels[index]},
        len(images),
        labels,
        None if labels is None else int(np.max(labels)) + 1,
        fingerprint=hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
        image_size=shape[1:3],
        channels=channels,
        load=Stored(Pixels(PixelConfig(channels=channels))),
    )


def indexed(
    name: str,
    split: str,
    fields: Callable[[tf.Tensor], Example],
    num_examples: int,
    labels: np.ndarray | None,
    num_classes: int | None,
    *,
    fingerprint: str,
    load: Load = load_stored,
    attempt: Load | None = None,
    guard: Callable[[Example], Example] | None = None,
    image_size: tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    folders: Sequence[str] | None = None,
    channels: int = 3,
) -> Source:
    """A source whose examples have an index: it is shuffled fully and skips for free.

    Args:
      name, split, num_examples, labels, num_classes, fingerprint, load, attempt,
        guard, image_size, folders, channels: as in `Source` and `from_arrays`.
      classes: as in `Source`; None: the numbers of the labels.
      fields: int64 scalar -> the example of that index, without its label.
    """
    with tf.device("CPU:0"):
        known = tf.constant(
            np.full(num_examples, -1) if labels is None else labels, tf.int64
        )

    def examples(shuffle_seed: Seed, skip: tf.Tensor | int = 0) -> tf.data.Dataset:
        order = tf.range(num_examples, dtype=tf.int64)
        if shuffle_seed is not None:
            seed = tf.stack([tf.cast(shuffle_seed, tf.int64), 0])
            order = tf.random.experimental.stateless_shuffle(order, seed)
        return at(order[skip:])

    def at(indices: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(indices).map(
            lambda index: {**fields(index), "label": known[index]},
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    if classes is None and labels is not None:
        classes = [str(label) if label >= 0 else "" for label in labels]

    return Source(
        name,
        split,
        num_examples,
        num_classes,
        fingerprint,
        examples,
        load,
        attempt,
        guard,
        image_size,
        classes,
        folders,
        at,
        channels=channels,
    )


def reordered(source: Source, order: Order, fingerprint: str | None = None) -> Source:
    """A source whose shuffled epochs have another order.

    Args:
      source: of `indexed`.
      order: of its indices.
      fingerprint: that tells it from the source; None: the same.
    """
    at = source.at
    assert at is not None  # it is no stream

    def examples(shuffle_seed: Seed, skip: tf.Tensor | int = 0) -> tf.data.Dataset:
        if shuffle_seed is None:
            return source.examples(None, skip)
        return at(order(tf.convert_to_tensor(shuffle_seed))[skip:])

    return replace(
        source,
        examples=examples,
        order=order,
        fingerprint=fingerprint or source.fingerprint,
    )


def subset(num_examples: int, limit: int | None) -> np.ndarray:
    """Indices of a fixed random choice of `limit` examples, ascending; all if None."""
    if limit is None or limit >= num_examples:
        return np.arange(num_examples)
    chosen = np.random.RandomState(SUBSET_SEED).permutation(num_examples)[:limit]
    return np.sort(chosen)
