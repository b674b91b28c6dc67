"""The predictors: what maps an online projection f to a guess of the target's z.

All share one interface:

    call(f)               p, the prediction, [n, d] -> [n, d]
    observe(f, z)         takes the projections of a step into the statistics
    update_weights(step)  after the optimizer's step: sets the weights, or leaves them

A new predictor is one class, one line in `PREDICTORS` and one in
`config.PREDICTOR_FACTS`. Weights act from the left on column vectors, p = W f, so rows
are multiplied by W^T. Equation numbers are those of arXiv 2102.06810.
"""

from __future__ import annotations

import dataclasses
import inspect
import math

import keras
import tensorflow as tf

from tf_dpred import newton_schulz, spectrum
from tf_dpred.config import SOLVERS, PredictorConfig
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.system import replicas


def _torch_uniform() -> keras.initializers.Initializer:
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
    """

    def __init__(self, rho: float | None = 0.3, centered: bool = False, **kwargs):
        kwargs.setdefault("name", "predictor")
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        if rho is not None and not 0 <= rho < 1:
            raise ValueError(
                f"Invalid rho: received {rho}, accepted: at least 0, below 1, or None."
            )
        self.rho = rho
        self.centered = centered

    def build(self, input_shape) -> None:
        """Allocates the statistics for inputs [n, d]."""
        d = input_shape[-1]
        self._uncentered = self._state("correlation", [d, d])
        self._mean = self._state("mean", [d])
        self._batches = self._state("batches", [], dtype="int64")
        super().build(input_shape)

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

    def update_weights(self, step: tf.Tensor) -> None:
        """Sets the weights after the optimizer's step; here it leaves them alone.

        Args:
          step: int64 scalar, the number of optimizer steps before this one.
        """


class _Matrix(Predictor):
    """p = W f with W a [d, d] variable."""

    trainable_matrix = True

    def build(self, input_shape) -> None:
        super().build(input_shape)
        d = input_shape[-1]
        self.matrix = self.add_weight(
            name="matrix",
            shape=[d, d],
            initializer=_torch_uniform(),
            trainable=self.trainable_matrix,
        )

    def call(self, f: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matmul(f, self.matrix, transpose_b=True)


class Linear(_Matrix):
    """p = W f (+ b), trained by gradients.

    Args:
      predictor_bias: add a bias.
    """

    def __init__(self, predictor_bias: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.use_bias = predictor_bias

    def build(self, input_shape) -> None:
        super().build(input_shape)
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=[input_shape[-1]], initializer="zeros"
            )

    def call(self, f: tf.Tensor) -> tf.Tensor:
        p = super().call(f)
        return p if self.bias is None else p + self.bias


class Symmetric(Linear):
    """`Linear`, with W <- (W + W^T)/2 after every step (Table 3)."""

    def update_weights(self, step: tf.Tensor) -> None:
        self.matrix.assign(spectrum.symmetrize(self.matrix))


class ClosedForm(_Matrix):
    """p = W f with W set from statistics, not trained.

    W starts at random and is set for the first time right after step 0, as in the
    authors' code: a step always predicts with the W of an earlier one.

    Args:
      eps: see the subclass.
      freq: W is set every this many steps. Above 1, W takes ordinary gradient steps
        in between; at 1, each of those would be overwritten at once, so W is not
        handed to the optimizer at all.
    """

    def __init__(self, eps: float = 0.1, freq: int = 1, **kwargs):
        super().__init__(**kwargs)
        if freq < 1:
            raise ValueError(f"Invalid freq: received {freq}, accepted: at least 1.")
        self.eps = eps
        self.freq = freq
        self.trainable_matrix = freq > 1

    def weights_from_statistics(self) -> tf.Tensor:
        """W, [d, d], from what was observed."""
        raise NotImplementedError(f"{type(self).__name__} sets no weights.")

    def update_weights(self, step: tf.Tensor) -> None:
        if self.freq == 1:
            self.matrix.assign(self._weights_or_nan())
            return
        tf.cond(
            step % self.freq == 0,
            lambda: self.matrix.assign(self._weights_or_nan()),
            lambda: tf.convert_to_tensor(self.matrix),
        )

    def _weights_or_nan(self) -> tf.Tensor:
        """W, all NaN if F is not finite.

        LAPACK would end the step with an error that does not say why. With NaN the step
        goes on, and its `FiniteCheck` names F and the step.
        """
        f = self.correlation
        return tf.cond(
            tf.reduce_all(tf.math.is_finite(f)),
            self.weights_from_statistics,
            lambda: tf.fill(tf.shape(f), tf.constant(math.nan, f.dtype)),
        )


class Direct(ClosedForm):
    """DirectPred: F = U diag(s) U^T, W = U diag(p) U^T with p from s (Eq. 18).

    Args:
      exponent, eigenvalue_map, eps: see `spectrum.eigenvalue_map`.
      solver: `eigh`; or `newton_schulz`, W by matrix products alone, for devices that
        are slow at eigh (`newton_schulz.predictor`). That takes exponent 1/2 and an
        uncentred F, whose eigenvalues can be negative by rounding alone.
    """

    def __init__(
        self,
        exponent: float = 0.5,
        eigenvalue_map: str = "reference",
        solver: str = "eigh",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if solver not in SOLVERS:
            raise ValueError(
                f"Invalid solver: received {solver!r}, accepted: {', '.join(SOLVERS)}."
            )
        if solver == "newton_schulz" and (exponent != 0.5 or self.centered):
            raise ValueError(
                f"Invalid solver: received 'newton_schulz' with exponent {exponent} "
                f"and centered {self.centered}, accepted: with 0.5 and False."
            )
        self.exponent = exponent
        self.eigenvalue_map = eigenvalue_map
        self.solver = solver

    def weights_from_statistics(self) -> tf.Tensor:
        if self.solver == "newton_schulz":
            return newton_schulz.predictor(
                self.correlation, self.eps, self.eigenvalue_map
            )
        s, u = tf.linalg.eigh(self.correlation)
        p = spectrum.eigenvalue_map(s, self.eps, self.exponent, self.eigenvalue_map)
        return spectrum.from_eigenvalues(p, u)


class DirectSet(ClosedForm):
    """W = F^a / |F^a| + eps I (Wang et al., arXiv 2110.04947), |.| spectral.

    Args:
      exponent: a.
    """

    def __init__(self, exponent: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.exponent = exponent

    def weights_from_statistics(self) -> tf.Tensor:
        s, u = tf.linalg.eigh(self.correlation)
        s = tf.maximum(s, tf.zeros([], s.dtype))
        # Not s^a / max s^a, which can overflow where s does not.
        p = tf.math.divide_no_nan(s, tf.reduce_max(s)) ** self.exponent + self.eps
        return spectrum.from_eigenvalues(p, u)


class DirectCopy(ClosedForm):
    """W = F / |F| + eps I (arXiv 2110.04947), |.| spectral: the largest eigenvalue."""

    def weights_from_statistics(self) -> tf.Tensor:
        f = self.correlation
        norm = tf.reduce_max(tf.abs(tf.linalg.eigvalsh(f)))
        identity = tf.eye(tf.shape(f)[0], dtype=f.dtype)
        return tf.math.divide_no_nan(f, norm) + self.eps * identity


class Optimal(ClosedForm):
    """The least-squares plug-in, W = sym(E[z f^T] (E[f f^T] + eps I)^-1) (Table 1).

    The pairs are those of the loss, (f1, z2) and (f2, z1). With `centered`, only the
    second factor is centred.

    Args:
      eps: the ridge, above 0, in units of F.
    """

    def build(self, input_shape) -> None:
        super().build(input_shape)
        d = input_shape[-1]
        self._cross = self._state("cross_correlation", [d, d])

    def observe(self, f: tf.Tensor, z: tf.Tensor) -> None:
        self._average(self._cross, spectrum.cross_correlation(z, f))
        super().observe(f, z)

    def weights_from_statistics(self) -> tf.Tensor:
        f = self.correlation
        ridge = f + self.eps * tf.eye(tf.shape(f)[0], dtype=f.dtype)
        # C R^-1 = (R^-1 C^T)^T for the symmetric R.
        cross = tf.linalg.matrix_transpose(self._cross)
        return spectrum.symmetrize(tf.linalg.solve(ridge, cross))


class MLP(Predictor):
    """Dense(hidden) - BN - ReLU - Dense(d): BYOL's and SimSiam's predictor.

    The layers compute in the global dtype policy; the prediction leaves in the
    variable dtype.

    Args:
      predictor_hidden: units of the hidden layer.
      predictor_bias: the last layer has a bias (SimSiam; BYOL has none).
    """

    def __init__(
        self, predictor_hidden: int = 4096, predictor_bias: bool = False, **kwargs
    ):
        super().__init__(**kwargs)
        self.hidden = predictor_hidden
        self.use_bias = predictor_bias

    def build(self, input_shape) -> None:
        super().build(input_shape)
        self._network = keras.Sequential(
            [
                keras.layers.Dense(
                    self.hidden, kernel_initializer=_torch_uniform(), name="hidden"
                ),
                BatchNormalization(name="bn"),
                keras.layers.ReLU(name="relu"),
                keras.layers.Dense(
                    input_shape[-1],
                    use_bias=self.use_bias,
                    kernel_initializer=_torch_uniform(),
                    name="output",
                ),
            ],
            name="mlp",
        )
        self._network.build(input_shape)

    def call(self, f: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return tf.cast(self._network(f, training=training), self.variable_dtype)


class Identity(Predictor):
    """p = f: no predictor. Collapses with the stop-gradient alone (section 3)."""

    def call(self, f: tf.Tensor) -> tf.Tensor:
        return f


PREDICTORS: dict[str, type[Predictor]] = {
    "direct": Direct,
    "direct_copy": DirectCopy,
    "direct_set": DirectSet,
    "optimal": Optimal,
    "linear": Linear,
    "symmetric": Symmetric,
    "mlp": MLP,
    "none": Identity,
}


def make_predictor(config: PredictorConfig) -> Predictor:
    """The predictor of a config; settings that its class does not take are unused."""
    cls = PREDICTORS[config.predictor]
    taken = {
        name
        for base in cls.__mro__
        if issubclass(base, Predictor)
        for name in inspect.signature(base.__init__).parameters
    }
    settings = dataclasses.asdict(config)
    return cls(**{name: settings[name] for name in taken & settings.keys()})
