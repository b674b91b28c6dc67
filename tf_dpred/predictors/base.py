"""What all predictors share: the statistics F, and a W that is a matrix."""

from __future__ import annotations

import inspect

import keras
import tensorflow as tf

from tf_dpred import spectrum
from tf_dpred.system import replicas

registered = keras.saving.register_keras_serializable("tf_dpred")


def torch_uniform() -> keras.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for linear layers."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


class Predictor(keras.layers.Layer):
    """Keeps the running correlation F of its own input (Eq. 19) for all subclasses.

    F <- rho F + (1 - rho) E_B[f f^T] over the rows of both views; the first batch
    sets it. With rho None, F is the plain mean over all batches so far. F is kept, and
    everything derived from it computed, in the variable dtype (float32 under mixed
    precision): bfloat16 has no eigen-decomposition, and too few digits for one.

    Args:
      rho: weight of the old estimate in [0, 1), or None.
      centered: subtract E[f] E[f]^T, estimated with the same rho. The paper finds
        that this hurts (section 4); DirectCopy uses it.
      predictor_shrinkage: lambda in [0, 1); after every step, and after W was set,
        each matrix is multiplied by 1 - lambda. (The authors' code has this decay
        beside that of the optimizer.)
    """

    def __init__(
        self,
        rho: float | None = 0.3,
        centered: bool = False,
        predictor_shrinkage: float = 0.0,
        **kwargs,
    ):
        kwargs.setdefault("name", "predictor")
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        if rho is not None and not 0 <= rho < 1:
            raise ValueError(
                f"Invalid rho: received {rho}, accepted: at least 0, below 1, or None."
            )
        if not 0 <= predictor_shrinkage < 1:
            raise ValueError(
                f"Invalid predictor_shrinkage: received {predictor_shrinkage}, "
                "accepted: at least 0, below 1."
            )
        self.rho = rho
        self.centered = centered
        self.predictor_shrinkage = predictor_shrinkage

    def build(self, input_shape) -> None:
        """Allocates the statistics for inputs [n, d]."""
        d = input_shape[-1]
        self._uncentered = self._state("correlation", [d, d])
        self._mean = self._state("mean", [d])
        self._batches = self._state("batches", [], dtype="int64")
        super().build(input_shape)

    def compute_output_shape(self, input_shape) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict:
        """All arguments of the constructors, which keep them under their names."""
        settings = {name: getattr(self, name) for name in arguments(type(self))}
        return {**super().get_config(), **settings}

    def _state(self, name: str, shape, dtype=None) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )

    @property
    def correlation(self) -> tf.Tensor:
        """F, [d, d]: the running estimate, centred if asked for."""
        f = tf.convert_to_tensor(self._uncentered)
        if not self.centered:
            return f
        return f - self.mean[:, None] * self.mean[None, :]

    @property
    def mean(self) -> tf.Tensor:
        """Running mean of the projections, [d], estimated like F."""
        return tf.convert_to_tensor(self._mean)

    def observe(self, f: tf.Tensor, z: tf.Tensor) -> None:
        """Takes the projections of one step into the statistics.

        Args:
          f: [m, d], of the online network: of both views (m = 2n), or of the first one
            where the loss has one direction (m = n).
          z: [m, d], of the target network: what the loss compares each row of f with.
        """
        self._average(self._uncentered, spectrum.correlation(f))
        self._average(self._mean, tf.reduce_mean(f, axis=0))
        self._batches.assign_add(1)

    def _average(self, variable: keras.Variable, batch_value: tf.Tensor) -> None:
        """One update of a running average over steps and replicas."""
        batch_value = replicas.mean(batch_value)
        seen = tf.cast(self._batches.value, batch_value.dtype)
        if self.rho is None:
            keep = seen / (seen + 1)
        else:
            keep = tf.where(seen > 0, tf.constant(self.rho, seen.dtype), 0)
        variable.assign(keep * variable + (1 - keep) * batch_value)

    @property
    def matrices(self) -> list[keras.Variable]:
        """The weight matrices, without biases."""
        return []

    def update_weights(self, step: tf.Tensor) -> None:
        """After the optimizer's step: `reset`, then the shrinkage.

        Args:
          step: int64 scalar, the number of optimizer steps before this one.
        """
        self.reset(step)
        if self.predictor_shrinkage:
            for matrix in self.matrices:
                matrix.assign((1 - self.predictor_shrinkage) * matrix)

    def reset(self, step: tf.Tensor) -> None:
        """Sets the weights, or leaves them alone, as here; see `update_weights`."""


def arguments(cls: type[Predictor]) -> set[str]:
    """The names of a predictor's own arguments, and those of its base classes."""
    named = {
        name: parameter.kind
        for base in cls.__mro__
        if issubclass(base, Predictor)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
    }
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {n for n, kind in named.items() if kind not in variadic} - {"self"}


class Matrix(Predictor):
    """p = W f with W a [d, d] variable."""

    trainable_matrix = True

    def build(self, input_shape) -> None:
        super().build(input_shape)
        d = input_shape[-1]
        self.matrix = self.add_weight(
            name="matrix",
            shape=[d, d],
            initializer=torch_uniform(),
            trainable=self.trainable_matrix,
        )

    @property
    def matrices(self) -> list[keras.Variable]:
        return [self.matrix]

    def call(self, f: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matmul(f, self.matrix, transpose_b=True)
