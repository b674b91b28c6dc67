"""Predictors whose W is computed from the statistics of their input."""

from __future__ import annotations

import math

import tensorflow as tf

from tf_dpred import newton_schulz, spectrum
from tf_dpred.config import OPTIMAL_FORMS, SOLVERS
from tf_dpred.predictors.base import Matrix, registered


class ClosedForm(Matrix):
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

    def reset(self, step: tf.Tensor) -> None:
        if self.freq == 1:
            self._set()
        else:
            tf.cond(step % self.freq == 0, self._set, self._keep)

    def _set(self) -> tf.Tensor:
        self.matrix.assign(self._weights_or_nan())
        return tf.convert_to_tensor(self.matrix)

    def _keep(self) -> tf.Tensor:
        """What becomes of W in the steps that do not set it."""
        return tf.convert_to_tensor(self.matrix)

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


@registered
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


@registered
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


@registered
class DirectCopy(ClosedForm):
    """W = F / |F| + eps I (arXiv 2110.04947), |.| spectral: the largest eigenvalue."""

    def weights_from_statistics(self) -> tf.Tensor:
        f = self.correlation
        norm = tf.reduce_max(tf.abs(tf.linalg.eigvalsh(f)))
        identity = tf.eye(tf.shape(f)[0], dtype=f.dtype)
        return tf.math.divide_no_nan(f, norm) + self.eps * identity


@registered
class Optimal(ClosedForm):
    """W that predicts z best, from C = E[z f^T] and R = E[f f^T] (Table 1).

    The pairs are those of the loss, (f1, z2) and (f2, z1); `centered` centres C and R.
    As in the authors' code, the symmetric form keeps W symmetric in the steps that do
    not set it, and with `rho` None it averages over the steps since W was last set.

    Args:
      eps: the ridge, above 0, in units of F.
      optimal_form: `symmetric`, `right` or `left`, see `spectrum.regression`.
    """

    def __init__(self, optimal_form: str = "symmetric", **kwargs):
        super().__init__(**kwargs)
        if optimal_form not in OPTIMAL_FORMS:
            raise ValueError(
                f"Invalid optimal_form: received {optimal_form!r}, accepted: "
                f"{', '.join(OPTIMAL_FORMS)}."
            )
        self.optimal_form = optimal_form

    def build(self, input_shape) -> None:
        super().build(input_shape)
        d = input_shape[-1]
        self._cross = self._state("cross_correlation", [d, d])
        self._target_mean = self._state("target_mean", [d])

    def observe(self, f: tf.Tensor, z: tf.Tensor) -> None:
        self._average(self._cross, spectrum.cross_correlation(z, f))
        self._average(self._target_mean, tf.reduce_mean(z, axis=0))
        super().observe(f, z)

    def weights_from_statistics(self) -> tf.Tensor:
        cross = tf.convert_to_tensor(self._cross)
        if self.centered:
            cross -= self._target_mean[:, None] * self.mean[None, :]
        return spectrum.regression(self.correlation, cross, self.eps, self.optimal_form)

    def _set(self) -> tf.Tensor:
        w = super()._set()
        if self.optimal_form == "symmetric" and self.rho is None:
            # The next batch then sets the averages, as the first one did.
            self._batches.assign(0)
        return w

    def _keep(self) -> tf.Tensor:
        if self.optimal_form == "symmetric":
            self.matrix.assign(spectrum.symmetrize(self.matrix))
        return super()._keep()
