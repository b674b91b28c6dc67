"""A network whose two passes of a step are traced as one function, called twice."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_dpred.system import replicas


class TraceOnce:
    """The projections of a network in training mode: images [n, h, w, c] -> [n, d].

    Tracing a ResNet and its gradient takes seconds. A `tf.function` is traced once for
    both views and runs the same operations. With several replicas, the network is
    traced for each view: BatchNorm talks to the other replicas, which a function inside
    the step cannot do.

    Args:
      network: images -> (representation, projection).
    """

    def __init__(self, network: keras.Model):
        self._network = network
        self._traced = tf.function(self._project, autograph=False)

    def _project(self, images: tf.Tensor) -> tf.Tensor:
        return self._network(images, training=True)[1]

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        if tf.executing_eagerly() or replicas.count() > 1:
            return self._project(images)
        return self._traced(images)
