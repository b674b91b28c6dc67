"""Pictures of image files: rows of tiles, white between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.data import image_files, image_ops
from tf_dpred.data.pixels import Pixels
from tf_dpred.system.files import printable, whole

SIDE, GAP = 128, 8
WHITE, MISSING = np.uint8(255), np.uint8(128)


def write(
    rows: Sequence[Sequence[str | Path]],
    path: Path,
    pixels: Pixels,
    *,
    first_apart: bool = False,
) -> None:
    """Writes a picture of rows of image files as a PNG file by `files.whole`.

    Args:
      rows: the files; one that cannot be used is gray, and a warning names it.
      path: of the picture.
      pixels: how values become pixels.
      first_apart: whether the first of each row is set apart.
    """
    strips = [_strip(row, pixels, first_apart) for row in rows]
    with whole(path) as file:
        file.write(tf.io.encode_png(_stacked(strips)).numpy())


def _tile(file: str | Path, pixels: Pixels) -> np.ndarray:
    """An image in a square, uint8 [SIDE, SIDE, 3]."""
    if (reason := image_files.problem(file, pixels)) is not None:
        logging.warning("not drawn: %s (%s)", printable(str(file)), reason)
        return np.full((SIDE, SIDE, 3), MISSING)
    content = image_files.read(os.fsencode(file), pixels)
    image = image_ops.as_rgb(image_files.decode(content, pixels))
    fitted = tf.image.resize_with_pad(image, SIDE, SIDE, antialias=True)
    rounded = tf.clip_by_value(tf.round(fitted), 0, 255)
    return tf.cast(rounded, tf.uint8).numpy()


def _strip(
    files: Sequence[str | Path], pixels: Pixels, first_apart: bool
) -> np.ndarray:
    """Images side by side, uint8 [h, w, 3]."""
    picture = np.full((SIDE + 2 * GAP, GAP, 3), WHITE)
    for index, file in enumerate(files):
        right = 4 * GAP if first_apart and index == 0 else GAP
        around = ((GAP, GAP), (0, right), (0, 0))
        framed = np.pad(_tile(file, pixels), around, constant_values=WHITE)
        picture = np.concatenate([picture, framed], axis=1)
    return picture


def _stacked(strips: Sequence[np.ndarray]) -> np.ndarray:
    """Strips of one height below each other; white where one is shorter."""
    width = max(strip.shape[1] for strip in strips)
    return np.concatenate(
        [
            np.pad(
                strip,
                ((0, 0), (0, width - strip.shape[1]), (0, 0)),
                constant_values=WHITE,
            )
            for strip in strips
        ]
    )
