"""A picture of what the networks see: pairs of views of some training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpred.config import Config
from tf_dpred.data import pipeline
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.views import view_pair
from tf_dpred.train import training_source
from tf_dpred.workdir import Workdir

PAIRS, COLUMNS, GAP = 32, 8, 4


def write(config: Config) -> Path:
    """Writes `preview.png` into the work directory: the first views of a run.

    Each tile holds view 1 above view 2 of one image.

    Returns:
      The picture's path.

    Raises:
      ValueError: as `train.Pretraining`.
    """
    workdir = Workdir(config.training.workdir)
    source = training_source(config, BadImages(config.data.max_bad_images))
    views = pipeline.training_views(
        source,
        view_pair(config.data.views, config.data.view_strength),
        config.data.image_size,
        min(PAIRS, source.num_examples),
        seed=config.training.seed,
    )
    with named_errors():
        view1, view2 = (v.numpy() for v in next(iter(views)))
    path = workdir.path / "preview.png"
    path.write_bytes(tf.io.encode_png(grid(view1, view2)).numpy())
    return path


def grid(view1: np.ndarray, view2: np.ndarray) -> np.ndarray:
    """Pairs in rows of eight.

    Args:
      view1, view2: [n, s, s, 3] uint8.

    Returns:
      [h, w, 3] uint8, white between the tiles.
    """
    count, size = view1.shape[:2]
    rows = -(-count // COLUMNS)
    tile_height, tile_width = 2 * size + GAP, size + GAP
    picture = np.full(
        (rows * tile_height + GAP, min(count, COLUMNS) * tile_width + GAP, 3),
        255,
        np.uint8,
    )
    for index in range(count):
        row, column = divmod(index, COLUMNS)
        top, left = GAP + row * tile_height, GAP + column * tile_width
        tile = np.concatenate([view1[index], view2[index]])
        picture[top : top + 2 * size, left : left + size] = tile
    return picture
