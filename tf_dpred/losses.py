"""Per-example distances between predictions and targets. Pure functions.

All take `prediction` p = W f, `projection` z of the target network and `feature` f,
the projection of the online network that p was made from, each [n, d], and return
[n]. They stop no gradients: the model decides where gradients end.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

Loss = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]

# PyTorch's `F.normalize` divides by max(|x|, 1e-12); l2_normalize takes its square.
_EPSILON = 1e-24


@keras.saving.register_keras_serializable("tf_dpred")
def cosine(
    prediction: tf.Tensor, projection: tf.Tensor, feature: tf.Tensor
) -> tf.Tensor:
    """-2 cos(p, z) in [-2, 2] (BYOL's 2 - 2 cos without its constant)."""
    del feature
    p = tf.math.l2_normalize(prediction, axis=-1, epsilon=_EPSILON)
    z = tf.math.l2_normalize(projection, axis=-1, epsilon=_EPSILON)
    return -2.0 * tf.reduce_sum(p * z, axis=-1)


@keras.saving.register_keras_serializable("tf_dpred")
def mse(prediction: tf.Tensor, projection: tf.Tensor, feature: tf.Tensor) -> tf.Tensor:
    """|p - z|^2, the loss of the linear theory; 2 + cosine on unit vectors."""
    del feature
    return tf.reduce_sum(tf.math.squared_difference(prediction, projection), axis=-1)


@keras.saving.register_keras_serializable("tf_dpred")
def iso(prediction: tf.Tensor, projection: tf.Tensor, feature: tf.Tensor) -> tf.Tensor:
    """IsoLoss, cosine form (Halvagal et al., arXiv 2212.04858).

    L = -2 { f.z sg[1/(|p||z|)] - 1/2 sg[(p.z)/(|p|^3 |z|)] |W^(1/2) f|^2 }, which
    moves every eigenmode at the same relative rate. For symmetric W >= 0,
    |W^(1/2) f|^2 = f.p, so no matrix root is taken.
    """
    p_norm = tf.maximum(tf.norm(prediction, axis=-1), 1e-12)
    z_norm = tf.maximum(tf.norm(projection, axis=-1), 1e-12)
    agreement = tf.reduce_sum(prediction * projection, axis=-1)
    pull = tf.stop_gradient(1.0 / (p_norm * z_norm))
    # Not agreement / (|p|^3 |z|): the product is 0 in float32 where both are tiny.
    hold = tf.stop_gradient(agreement * pull / p_norm**2)
    return -2.0 * (
        pull * tf.reduce_sum(feature * projection, axis=-1)
        - 0.5 * hold * tf.reduce_sum(feature * prediction, axis=-1)
    )


LOSSES: dict[str, Loss] = {"cosine": cosine, "mse": mse, "iso": iso}
