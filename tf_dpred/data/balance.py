"""Training images in equal shares of each folder or class, however many each holds.

An epoch stays as long as it is: as many draws as there are images. Of G groups each
gets N / G of them (some one more, chosen anew in every epoch). A group with more images
gives a random part of them, each once; one with fewer gives each of its images equally
often, but for one time. The order is a function of the seed of the epoch alone.
"""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, refuse
from tf_dpred.data.source import Order, Source, reordered
from tf_dpred.system.files import printable


def of_config(config: Config, source: Source) -> Source:
    """The training images of a run, in the shares that `--balance` asks for.

    Args:
      config: of the run.
      source: its images.

    Raises:
      Refused: the images are in no folders or have no classes, or can only be streamed.
    """
    by = config.data.balance
    if by == "none":
        return source
    groups = source.folders if by == "folders" else source.classes
    detail = f" for {source.name} {source.split}"
    if groups is None or source.at is None:
        accepted = {
            "folders": "none, or folders with images in several directories, or lists",
            "classes": "none, or folders with images of train/CLASS and val/CLASS, or "
            "lists with a label column",
        }
        refuse("balance", by, accepted[by], detail=detail)
    names, of_image = np.unique(groups, return_inverse=True)
    if by == "classes" and (without := sum(not name for name in groups)):
        detail += f", of which {without} have no label"
        refuse("balance", by, "none, or a label for every image", detail=detail)
    if len(names) < 2:
        detail += f", which has one of them ({printable(str(names[0]))})"
        refuse("balance", by, "none, or images of at least two", detail=detail)
    sizes = np.bincount(of_image)
    few, many = int(np.argmin(sizes)), int(np.argmax(sizes))
    logging.info(
        "--balance=%s: %d of them, about %d draws of each in an epoch, from %d images "
        "(%s) to %d (%s)",
        by,
        len(names),
        len(groups) // len(names),
        *(sizes[few], printable(str(names[few]))),
        *(sizes[many], printable(str(names[many]))),
    )
    # The same images in other groups are drawn in another order.
    text = source.fingerprint.encode() + of_image.astype("<i8").tobytes()
    fingerprint = hashlib.sha256(text).hexdigest()
    return reordered(source, equal_shares(of_image), fingerprint)


def equal_shares(groups: np.ndarray) -> Order:
    """The order of an epoch in which all groups have equal shares.

    Args:
      groups: [N], the group of each image, 0 to G - 1, none of them empty.

    Returns:
      int64 seed -> indices of images, int64 [N].
    """
    count, sizes = len(groups), np.bincount(groups)
    with tf.device("CPU:0"):
        group_of = tf.constant(groups, tf.int64)
        size_of = tf.constant(sizes, tf.int64)
        start_of = tf.constant(np.cumsum(sizes) - sizes, tf.int64)

    def order(seed: tf.Tensor) -> tf.Tensor:
        pair = tf.stack([tf.cast(seed, tf.int64), 1])
        within, first, last = tf.unstack(tf.random.split(pair, 3))
        shuffle = tf.random.experimental.stateless_shuffle
        places = tf.range(count, dtype=tf.int64)
        mixed = shuffle(places, within)
        # Distinct keys, so that it does not matter how equal ones would be sorted.
        keys = tf.gather(group_of, mixed) * count + places
        by_group = tf.gather(mixed, tf.argsort(keys))
        # Draw i is of one group after the other, in an order of its own.
        group = tf.gather(
            shuffle(tf.range(len(sizes), dtype=tf.int64), first), places % len(sizes)
        )
        turn = places // len(sizes) % tf.gather(size_of, group)
        return shuffle(tf.gather(by_group, tf.gather(start_of, group) + turn), last)

    return order
