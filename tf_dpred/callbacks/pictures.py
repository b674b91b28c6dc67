"""What a run looks like: its views, nearest neighbours, and a map of its features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import text_format
from tensorboard.plugins import projector

from tf_dpred.callbacks.knn_monitor import KNNMonitor
from tf_dpred.callbacks.tensorboard import TensorBoard
from tf_dpred.data import image_ops
from tf_dpred.evaluation import knn
from tf_dpred.reports import tiles
from tf_dpred.system.files import write_whole

QUERIES, NEIGHBOURS = 10, 8
# The searched images that are held in memory; the sides of their tiles in pixels.
SEARCHED, THUMBNAIL = 2048, 64
# Points of the map; TensorBoard's sprite may have 8192 pixels on a side.
POINTS, SPRITE_TILE = 1000, 32


class Pictures(keras.callbacks.Callback):
    """Writes pictures to TensorBoard.

    After the first steps, `views`: pairs of training views. With every kNN evaluation,
    `neighbours` (of fixed test images, among some of the searched ones) and the
    embedding projector's files (features of test images, with thumbnails).

    Args:
      tensorboard: the callback that writes them.
      views: makes a picture of the run's views, uint8 [h, w, 3].
      knn: the monitor whose features are shown; it has to come earlier in the list of
        callbacks. None: views only.
      after: steps of this process before the views are drawn, so that they do not
        delay its start.
    """

    def __init__(
        self,
        tensorboard: TensorBoard,
        views: Callable[[], np.ndarray],
        knn: KNNMonitor | None,
        after: int,
    ):
        super().__init__()
        self.tensorboard = tensorboard
        self.views = views
        self.knn = knn
        self.after = after
        self._bank: np.ndarray | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._draw_views_at = self.model.steps_done + self.after
        if logs and "knn" in logs:
            self._draw_features()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if self._draw_views_at and self.model.steps_done >= self._draw_views_at:
            self._draw_views_at = 0
            self.tensorboard.image("views", self.views())

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs and "knn" in logs:
            self._draw_features()

    def _draw_features(self) -> None:
        assert self.knn is not None  # it put `knn` into the logs
        if self._bank is None:
            self._bank, _ = _thumbnails(self.knn.bank, SEARCHED, THUMBNAIL)
            self._test, _ = _thumbnails(self.knn.test, QUERIES, THUMBNAIL)
            points, labels = _thumbnails(self.knn.test, POINTS, SPRITE_TILE)
            self._write_map_once(points, labels)
        bank, labels = self.knn.features["bank"]
        test, answers = self.knn.features["test"]
        _, rows = knn.nearest(bank[:SEARCHED], test[:QUERIES], NEIGHBOURS)
        lines = [
            tiles.framed(
                [self._test[i], *self._bank[row]],
                [None, *(labels[row] == answers[i])],
            )
            for i, row in enumerate(rows)
        ]
        self.tensorboard.image("neighbours", np.concatenate(lines))
        self._write_map(test[:POINTS])

    def _write_map_once(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Writes what does not change: thumbnails, labels, and where all of it lies."""
        config = projector.ProjectorConfig()
        embedding = config.embeddings.add()
        embedding.tensor_name = "features"
        embedding.tensor_path = "projector/features.tsv"
        embedding.metadata_path = "projector/labels.tsv"
        embedding.sprite.image_path = "projector/images.png"
        embedding.sprite.single_image_dim.extend([SPRITE_TILE] * 2)
        lines = "".join(f"{label}\n" for label in labels)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "images.png").write_bytes(
                tf.io.encode_png(tiles.square(images)).numpy()
            )
            write_whole(self._folder / "labels.tsv", lines)
            root = self._folder.parent / "projector_config.pbtxt"
            write_whole(root, text_format.MessageToString(config))
        except OSError as error:
            logging.error("no map of the features: %s", error)

    def _write_map(self, features: np.ndarray) -> None:
        rows = ("\t".join(f"{x:.4g}" for x in row) for row in features)
        try:
            write_whole(self._folder / "features.tsv", "\n".join(rows) + "\n")
        except OSError as error:
            logging.error("the map of the features is not the latest: %s", error)

    @property
    def _folder(self) -> Path:
        return Path(self.tensorboard.directory) / "projector"


def _thumbnails(
    batches: tf.data.Dataset, count: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a data set, uint8 [n, side, side, 3], and their labels."""
    found = []
    for images, labels in batches.unbatch().take(count).batch(64):
        small = tf.image.resize(image_ops.as_rgb(images), [side, side], "area")
        found.append((tf.cast(tf.round(small), tf.uint8).numpy(), labels.numpy()))
    images, labels = zip(*found, strict=True)
    return np.concatenate(images), np.concatenate(labels)
