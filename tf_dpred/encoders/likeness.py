"""How alike the pixels of two images are, whatever their size, file and border.

An image is a thumbnail of 32 pixels. The likeness of two is the correlation of their
colours, of the whole of one with that crop of the other which fits best: the crops keep
85 % or more of each side. So a copy that was compressed, resized or slightly cropped
is near 1, and one with other colours is not.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.data import image_files
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.remote import Base
from tf_dpred.system import pace
from tf_dpred.system.files import printable

SIDE, COMPARED_SIDE = 32, 16
KEPT = (0.95, 0.9, 0.85)
PLACES = (0.0, 0.5, 1.0)
BATCH = 64
"""Images or pairs at a time; each pair has a hundred crops."""
HOPELESS = 0.5
"""Of the whole images: pairs below it are not compared crop by crop."""
FLAT = 2.0
"""Deviation of gray levels below which an image is of one colour."""


def thumbnails(
    root: Base, names: Sequence[str], folder: Path, pixels: Pixels = image_files.USUAL
) -> np.ndarray:
    """Small versions of files, uint8 [N, SIDE, SIDE, 3], in a file without a name.

    Args:
      root: folder that the names are relative to.
      names: of N files. One that cannot be used is black, and a warning names it.
      folder: where there is room: 3 KB an image.
      pixels: how values become pixels.
    """
    paths = [os.fsencode(root / name) for name in names]

    def small(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        known = image_files.unless_special(path)
        content = tf.cond(
            known == "", lambda: "", lambda: image_files.read_or_empty(known)
        )
        image = image_files.decode_or_empty(content, pixels)
        usable = tf.size(image) > 0
        black = tf.zeros([1, 1, pixels.channels], tf.uint8)
        shown = tf.cond(usable, lambda: image, lambda: black)
        resized = tf.image.resize(shown, [SIDE, SIDE], antialias=True)
        rounded = tf.clip_by_value(tf.round(resized), 0, 255)
        return tf.cast(rounded, tf.uint8), usable

    made = tf.data.Dataset.from_tensor_slices(paths)
    made = made.map(small, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    shape = (len(names), SIDE, SIDE, pixels.channels)
    with tempfile.TemporaryFile(dir=folder) as file:
        found = np.memmap(file, np.uint8, "w+", shape=shape)
    starts = pace.logged(range(0, len(names), BATCH), len(names), each=BATCH)
    for start, (images, usable) in zip(starts, made.batch(BATCH), strict=True):
        found[start : start + BATCH] = images.numpy()
        for place in np.flatnonzero(~usable.numpy()).tolist():
            logging.warning("left out %s", printable(names[start + place]))
    return found


def of_pairs(thumbs: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The likeness of pairs of images.

    Args:
      thumbs: of `thumbnails`, [N, SIDE, SIDE, 3].
      pairs: rows [P, 2].

    Returns:
      [P] float32 in [-1, 1]. Two images of one colour each are alike, 1, where that is
      the same one, and else 0.
    """
    found = np.zeros(len(pairs), np.float32)
    starts = range(0, len(pairs), BATCH)
    for start in pace.logged(starts, len(pairs), each=BATCH, what="pairs"):
        part = slice(start, start + BATCH)
        first, second = (_channels_first(thumbs[rows]) for rows in pairs[part].T)
        found[part] = _whole(first, second)
        close = np.flatnonzero(found[part] > HOPELESS)
        if len(close):
            best = _cropped(first[close], second[close]).numpy()
            found[start + close] = np.maximum(found[start + close], best)
    return found


def _channels_first(images: np.ndarray) -> np.ndarray:
    """float32 [P, C, SIDE, SIDE]."""
    return images.transpose(0, 3, 1, 2).astype(np.float32)


def _whole(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlations [P] of images [P, C, SIDE, SIDE] without crops."""
    units = [_unit(_shrunk(tf.constant(images))) for images in (first, second)]
    found = tf.reduce_sum(units[0] * units[1], axis=[1, 2, 3]).numpy()
    flat = [images.std(axis=(1, 2, 3)) < FLAT for images in (first, second)]
    colours = [images.mean(axis=(2, 3)) for images in (first, second)]
    same = np.abs(colours[0] - colours[1]).max(axis=1) < 2 * FLAT
    return np.where(flat[0] | flat[1], flat[0] & flat[1] & same, found)


@tf.function(reduce_retracing=True)
def _cropped(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """The best correlation [P] of one image with a crop of the other."""
    return tf.maximum(_best_crop(first, second), _best_crop(second, first))


def _best_crop(cropped: tf.Tensor, whole: tf.Tensor) -> tf.Tensor:
    operators = _operators()
    kinds, side = operators.shape[:2]
    # Without its mean, so that the sums below keep their digits.
    centred = cropped - tf.reduce_mean(cropped, axis=[2, 3], keepdims=True)
    flat = operators.reshape(kinds * side, SIDE)
    crops = flat @ centred @ flat.T  # all crops of an image side by side
    blocks = np.repeat(np.eye(kinds, dtype=np.float32), side, axis=1)

    def summed(values: tf.Tensor) -> tf.Tensor:
        """Over the pixels of each channel of each crop, [P, C, kinds, kinds]."""
        return blocks @ values @ blocks.T

    # `_unit` has no mean, so that those of the crops do not matter here.
    products = summed(crops * tf.tile(_unit(_shrunk(whole)), [1, 1, kinds, kinds]))
    variance = summed(crops**2) - summed(crops) ** 2 / side**2
    lengths = tf.sqrt(tf.maximum(tf.reduce_sum(variance, axis=1), 1e-6))
    return tf.reduce_max(tf.reduce_sum(products, axis=1) / lengths, axis=[1, 2])


def _shrunk(images: tf.Tensor) -> tf.Tensor:
    whole = _operators()[0]
    return whole @ images @ whole.T


def _unit(images: tf.Tensor) -> tf.Tensor:
    """Each channel minus its mean, so that a blue sky is like no other; of length 1."""
    centred = images - tf.reduce_mean(images, axis=[2, 3], keepdims=True)
    lengths = tf.sqrt(tf.reduce_sum(centred**2, axis=[1, 2, 3], keepdims=True))
    return centred / tf.maximum(lengths, 1e-6)


@functools.cache
def _operators() -> np.ndarray:
    """Area averages that crop and shrink an axis, [o, COMPARED_SIDE, SIDE]."""
    crops = [(1.0, 0.0)] + [(kept, place) for kept in KEPT for place in PLACES]
    edges = np.arange(SIDE + 1)
    found = []
    for kept, place in crops:
        borders = np.linspace(0, kept * SIDE, COMPARED_SIDE + 1)
        borders = borders + place * (1 - kept) * SIDE
        low = np.maximum(edges[:-1], borders[:-1, np.newaxis])
        high = np.minimum(edges[1:], borders[1:, np.newaxis])
        found.append(np.maximum(high - low, 0) / (borders[1] - borders[0]))
    return np.stack(found).astype(np.float32)
