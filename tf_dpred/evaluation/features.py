"""Representations of a data set, computed batch by batch."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


class FeatureExtractor:
    """Runs a network in inference mode over data sets; it is traced once.

    Args:
      network: images [n, h, w, 3] in [0, 255] -> representation [n, r], alone or as
        the first of several outputs. The monitors pass the ONLINE network.
    """

    def __init__(self, network: keras.Model):
        self._represent = tf.function(
            lambda images: tf.nest.flatten(network(images, training=False))[0],
            reduce_retracing=True,
        )

    def __call__(self, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Features of all batches.

        Args:
          dataset: batches of (images [n, h, w, 3], labels [n]).

        Returns:
          (features [N, r] float32, labels [N] int64), in the data set's order.
        """
        features, labels = [], []
        for images, batch_labels in dataset:
            features.append(self._represent(images).numpy().astype(np.float32))
            labels.append(batch_labels.numpy())
        return np.concatenate(features), np.concatenate(labels)
