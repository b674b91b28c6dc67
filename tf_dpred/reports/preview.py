"""A picture of what the networks see: views of some training images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import balance, datasets, image_ops, pipeline, views
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.own_views import OwnViews
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.source import Source
from tf_dpred.data.views import ViewPair
from tf_dpred.records import own
from tf_dpred.records.workdir import Workdir
from tf_dpred.reports import tiles

IMAGES = 24
LEGIBLE = 96
"""Pixels on a screen that an image should fill: smaller ones are enlarged."""


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=preview`."""
    workdir = Workdir(config.training.workdir)
    if source := own.recorded(workdir).get("source"):
        refuse(
            "workdir",
            str(workdir.path),
            "one of a run on images by name; the views of this run are in TensorBoard",
            detail=f", which holds a run on images that a program gave it ({source})",
        )
    bad_images = BadImages(config.data.max_bad_images)
    found = datasets.of_config(config)
    config = datasets.settled(config, found)
    source = balance.of_config(
        config, datasets.training_source(config, bad_images, found)
    )
    print(f"wrote {write(config, source)}")


def write(config: Config, source: Source) -> Path:
    """Writes `preview.png`, see `picture`, into the work directory -> its path.

    Small images are enlarged by a whole number, pixel by pixel.

    Raises:
      Refused: the directory cannot be written to.
    """
    workdir = Workdir(config.training.workdir)
    workdir.create()
    pair = own.stored_views(workdir, config.data.image_size)
    with named_errors():
        factor = -(-LEGIBLE // config.data.image_size)
        drawn = picture(config, source, pair)
        drawn = drawn.repeat(factor, axis=0).repeat(factor, axis=1)
    workdir.preview.write_bytes(tf.io.encode_png(drawn).numpy())
    return workdir.preview


def picture(
    config: Config, source: Source, pair: ViewPair | OwnViews | None = None
) -> np.ndarray:
    """The first images of a run, uint8 [h, w, 3].

    A tile holds, from above: the image as evaluation sees it, view 1, view 2.

    Args:
      config: of the run.
      source: its training images.
      pair: its views; None: those of its settings.
    """
    if pair is None:
        pair = views.of_config(config)
    size, seed = config.data.image_size, config.training.seed
    count = min(IMAGES, source.num_examples)
    stream = pipeline.training_views(source, pair, size, count, seed=seed)
    view1, view2 = (view.numpy() for view in next(iter(stream)))
    preprocessing = Preprocessing.of(config)
    clean = pipeline.first_images(source, preprocessing, size, count, seed=seed)
    if clean.shape[-1] not in (1, 3):
        logging.info("of %d channels, red, green and blue are 1, 2, 3", clean.shape[-1])
    drawn = np.concatenate([clean, view1, view2], axis=1)
    return tiles.rows(image_ops.as_rgb(drawn))
