"""Predictors that gradients train, and none at all."""

from __future__ import annotations

import keras
import tensorflow as tf

from tf_dpred import spectrum
from tf_dpred.config import PREDICTOR_BN
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.predictors.base import Matrix, Predictor, registered, torch_uniform


@registered
class Linear(Matrix):
    """p = W f (+ b), trained by gradients.

    Args:
      predictor_bias: add a bias.
    """

    def __init__(self, predictor_bias: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.predictor_bias = predictor_bias

    def build(self, input_shape) -> None:
        super().build(input_shape)
        self.bias = None
        if self.predictor_bias:
            self.bias = self.add_weight(
                name="bias", shape=[input_shape[-1]], initializer="zeros"
            )

    def call(self, f: tf.Tensor) -> tf.Tensor:
        p = super().call(f)
        return p if self.bias is None else p + self.bias


@registered
class Symmetric(Linear):
    """`Linear`, with W <- (W + W^T)/2 after every step (Table 3)."""

    def reset(self, step: tf.Tensor) -> None:
        self.matrix.assign(spectrum.symmetrize(self.matrix))


@registered
class MLP(Predictor):
    """Dense(hidden) - BN - ReLU - Dense(d): BYOL's and SimSiam's predictor.

    The prediction leaves in the variable dtype.

    Args:
      predictor_hidden: units of the hidden layer, which has a bias.
      predictor_bias: the last layer has a bias (DirectPred's authors, SimSiam; BYOL has
        none).
      predictor_bn: of the hidden layer: `affine` with gamma and beta (BYOL, SimSiam),
        `plain` without (DirectPred's authors on small images), or `none`.
      layers_dtype: dtype policy that the layers compute in; None: the global one.
    """

    def __init__(
        self,
        predictor_hidden: int = 4096,
        predictor_bias: bool = False,
        predictor_bn: str = "affine",
        layers_dtype: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if predictor_bn not in PREDICTOR_BN:
            raise ValueError(
                f"Invalid predictor_bn: received {predictor_bn!r}, accepted: "
                f"{', '.join(PREDICTOR_BN)}."
            )
        self.predictor_hidden = predictor_hidden
        self.predictor_bias = predictor_bias
        self.predictor_bn = predictor_bn
        self.layers_dtype = layers_dtype or keras.config.dtype_policy().name

    def build(self, input_shape) -> None:
        super().build(input_shape)
        affine, dtype = self.predictor_bn == "affine", self.layers_dtype
        normalized = BatchNormalization(
            center=affine, scale=affine, dtype=dtype, name="bn"
        )
        self._network = keras.Sequential(
            [
                keras.layers.Dense(
                    self.predictor_hidden,
                    kernel_initializer=torch_uniform(),
                    dtype=dtype,
                    name="hidden",
                ),
                *([] if self.predictor_bn == "none" else [normalized]),
                keras.layers.ReLU(dtype=dtype, name="relu"),
                keras.layers.Dense(
                    input_shape[-1],
                    use_bias=self.predictor_bias,
                    kernel_initializer=torch_uniform(),
                    dtype=dtype,
                    name="output",
                ),
            ],
            name="mlp",
        )
        self._network.build(input_shape)

    @property
    def matrices(self) -> list[keras.Variable]:
        return [self._network.get_layer(name).kernel for name in ("hidden", "output")]

    def call(self, f: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.cast(self._network(f, training=training), self.variable_dtype)


@registered
class SymmetricMLP(MLP):
    """`MLP`, its matrices W1 and W2^T set to their mean after every step (Table 3)."""

    def reset(self, step: tf.Tensor) -> None:
        # A Keras kernel is the transpose of its matrix.
        hidden, output = self.matrices
        mean = 0.5 * (hidden + tf.linalg.matrix_transpose(output))
        hidden.assign(mean)
        output.assign(tf.linalg.matrix_transpose(mean))


@registered
class Identity(Predictor):
    """p = f: no predictor. Collapses with the stop-gradient alone (section 3)."""

    def call(self, f: tf.Tensor) -> tf.Tensor:
        return f
