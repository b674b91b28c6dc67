"""Representations of a data set, computed batch by batch."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


class Outputs:
    """All outputs of a network in inference mode; traced once for images of a size.

    Args:
      network: images [n, h, w, 3] in [0, 255] -> representation [n, r], alone or as
        the first of several outputs.
    """

    def __init__(self, network: keras.Model):
        self._function = tf.function(
            lambda images: tf.nest.flatten(network(images, training=False)),
            autograph=False,
        )

    def __call__(self, images: tf.Tensor) -> list[tf.Tensor]:
        """The outputs [n, ...] of images [n, h, w, 3]."""
        spec = tf.TensorSpec([None, *images.shape[1:]], images.dtype)
        return self._function.get_concrete_function(spec)(images)


class FeatureExtractor:
    """Runs a network in inference mode over data sets; see `Outputs`.

    Args:
      network: whose first output is the representation, or its `Outputs`. The
        monitors pass the ONLINE network.
    """

    def __init__(self, network: keras.Model | Outputs):
        self._outputs = network if isinstance(network, Outputs) else Outputs(network)

    def __call__(self, dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Features of all batches.

        Args:
          dataset: batches of (images [n, h, w, 3], labels [n]).

        Returns:
          (features [N, r] float32, labels [N] int64), in the data set's order.
        """
        features, labels = [], []
        for images, batch_labels in dataset:
            features.append(self._outputs(images)[0].numpy().astype(np.float32))
            labels.append(batch_labels.numpy())
        return np.concatenate(features), np.concatenate(labels)
