"""What measures an encoder during its run: kNN, and its views without labels."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
from absl import logging

from tf_dpred.callbacks.knn_monitor import KNNMonitor
from tf_dpred.callbacks.quality_monitor import QualityMonitor
from tf_dpred.config import Config, refuse
from tf_dpred.data import pipeline
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.datasets import DataSet
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.source import Source
from tf_dpred.evaluation import labelled
from tf_dpred.evaluation.features import Outputs
from tf_dpred.evaluation.views import HeldOutViews, held_out_source
from tf_dpred.supplied import Supplied


def of_config(
    config: Config, bad_images: BadImages, found: DataSet | None, given: Supplied
) -> tuple[KNNMonitor | None, QualityMonitor | None]:
    """The monitors that a run asks for; None where there is nothing to measure by.

    Args:
      config: of the run.
      bad_images: counts the files of a folder that cannot be used.
      found: the data set of the training images, if it was found already.
      given: what a program gave the run.

    Raises:
      Refused: images that are asked for are not there, or `--keep_best` asks for what
        is not measured.
    """
    outputs = functools.cache(Outputs)
    knn = None
    if config.evaluation.knn_every:
        own_images = given.source if given.labelled is None else given.labelled
        knn = knn_monitor(
            config, labelled_sources(config, bad_images, found, own_images), outputs
        )
    best = config.training.keep_best
    if best == "knn" and knn is None:
        refuse("keep_best", best, "view_top1 where there is no labelled test split")
    quality = None
    if config.evaluation.quality_every:
        held_out = held_out_source(config, bad_images, found, given.source)
        quality = QualityMonitor(
            lambda: HeldOutViews.of_source(
                *held_out, given.pair, config.data.image_size
            ),
            config.evaluation.quality_every,
            config.training.epochs,
            outputs,
        )
    return knn, quality


def labelled_sources(
    config: Config,
    bad_images: BadImages,
    found: DataSet | None,
    given: labelled.Labelled | None = None,
) -> tuple[Source, Source] | None:
    """The kNN monitor's searched and classified images; None without labels.

    Args:
      config: of the run.
      bad_images: counts the files of a folder that cannot be used.
      found: the data set of the training images, if it was found already.
      given: the images, where a program gave them.

    Raises:
      Refused: see `evaluation.labelled`.
    """
    limits = (config.evaluation.knn_train_size, config.evaluation.knn_test_size)
    if given is not None:
        return labelled.own_splits(given, limits)
    return labelled.open_splits(config, bad_images, limits, found)


def knn_monitor(
    config: Config,
    sources: tuple[Source, Source] | None,
    outputs: Callable[[keras.Model], Outputs] = Outputs,
) -> KNNMonitor | None:
    """The kNN monitor of (searched, classified) images; None where there are none."""
    if sources is None:
        logging.info("no kNN monitor: there is no labelled test split")
        return None
    bank, test = (
        pipeline.evaluation_images(
            source,
            Preprocessing.of(config),
            config.data.image_size,
            pipeline.EVALUATION_BATCH,
        )
        for source in sources
    )
    num_classes = sources[0].num_classes
    assert num_classes is not None  # they are labelled
    return KNNMonitor(
        bank, test, num_classes, config.evaluation, config.training.epochs, outputs
    )
