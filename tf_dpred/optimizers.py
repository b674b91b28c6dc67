"""LARS, and SGD whose weight decay is part of the gradient.

Keras' own `weight_decay` is decoupled: it shrinks the weights beside the update. Both
recipes of the paper need it inside the gradient, where momentum (and LARS' ratio) see
it, so the coefficient is kept here and not handed to the base class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tf_dpred.system import keras_private


class _CoupledDecayOptimizer(keras.optimizers.Optimizer):
    """Momentum SGD with decay in the gradient; groups may have their own settings.

    mu <- momentum mu + adapt(g + wd w);  w <- w - lr mu.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        momentum: float,
        weight_decay: float,
        name: str,
        **kwargs,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(
                f"Invalid momentum: received {momentum}, accepted: at least 0, below 1."
            )
        if not weight_decay >= 0:
            raise ValueError(
                f"Invalid weight_decay: received {weight_decay}, accepted: at least 0."
            )
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = float(momentum)
        self.coupled_weight_decay = float(weight_decay)
        self._groups: list[tuple[set[int], float | None, object]] = []

    def set_group(
        self,
        variables: Iterable[keras.Variable],
        *,
        weight_decay: float | None = None,
        learning_rate: float | LearningRateSchedule | None = None,
    ) -> None:
        """Gives some variables their own decay or learning rate; call before build.

        Like Keras' `exclude_from_weight_decay`, this is not part of the config, but of
        `variable_settings`.

        Args:
          variables: the variables of the group.
          weight_decay: None keeps the optimizer's.
          learning_rate: number or schedule; None keeps the optimizer's.

        Raises:
          ValueError: the optimizer is built already.
        """
        if self.built:
            raise ValueError("set_group: received a built optimizer, accepted: before.")
        ids = {id(v) for v in variables}
        self._groups.append((ids, weight_decay, learning_rate))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Allocates momenta and decides, by role, what applies to each variable."""
        if self.built:
            return
        super().build(variables)
        self._mu = self.add_optimizer_variables(variables, "momentum")
        self._decays = [self._decay_of(v) for v in variables]
        self._rates: list[object] = [None] * len(variables)
        for ids, weight_decay, learning_rate in self._groups:
            for index, variable in enumerate(variables):
                if id(variable) not in ids:
                    continue
                if weight_decay is not None and self._decays[index] is not None:
                    self._decays[index] = weight_decay
                self._rates[index] = learning_rate

    @property
    def variable_settings(self) -> list[tuple[float | None, Any]]:
        """Decay and learning rate of each variable; see `set_group`, None: no own one.

        `DirectPred` saves them, and sets them where a model is loaded.
        """
        return list(zip(self._decays, self._rates, strict=True))

    @variable_settings.setter
    def variable_settings(self, settings: Sequence[Sequence[Any]]) -> None:
        decays, rates = zip(*settings, strict=True)
        self._decays, self._rates = list(decays), list(rates)

    def _decay_of(self, variable: keras.Variable) -> float | None:
        """The decay coefficient, None where a variable is excluded from decay."""
        applies = keras_private.decays(self, variable)
        return self.coupled_weight_decay if applies else None

    def _adapt(self, gradient: tf.Tensor, weight: tf.Tensor, index: int) -> tf.Tensor:
        return gradient

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = keras_private.index_of(self, variable)
        # Tensors, as operations on Keras' variables take longer to trace.
        mu, weight = (
            tf.convert_to_tensor(self._mu[index]),
            tf.convert_to_tensor(variable),
        )
        rate = self._rates[index]
        if rate is not None:
            learning_rate = rate(self.iterations) if callable(rate) else rate
        if tf.is_tensor(learning_rate):
            learning_rate = tf.cast(learning_rate, variable.dtype)
        gradient = tf.cast(gradient, variable.dtype)
        if self._decays[index]:
            gradient = gradient + self._decays[index] * weight
        mu = self.momentum * mu + self._adapt(gradient, weight, index)
        self.assign(self._mu[index], mu)
        self.assign_sub(variable, learning_rate * mu)

    def get_config(self) -> dict:
        config = super().get_config()
        config.update(momentum=self.momentum, weight_decay=self.coupled_weight_decay)
        return config


@keras.saving.register_keras_serializable("tf_dpred")
class SGD(_CoupledDecayOptimizer):
    """SGD with momentum and coupled weight decay on every variable, as in PyTorch.

    mu <- momentum mu + (g + wd w);  w <- w - lr mu  (authors' small-set recipe).

    Args:
      learning_rate: number or Keras schedule.
      momentum: in [0, 1).
      weight_decay: wd >= 0, added to the gradient of every variable, also biases and
        BatchNorm's.
      name: of the optimizer.
      **kwargs: of `keras.optimizers.Optimizer` (clipnorm, ...).

    Raises:
      ValueError: momentum or weight_decay out of range.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        name: str = "sgd",
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, weight_decay, name, **kwargs)


@keras.saving.register_keras_serializable("tf_dpred")
class LARS(_CoupledDecayOptimizer):
    """Layer-wise adaptive rate scaling (You et al., arXiv 1708.03888; BYOL code).

        g <- g + wd w;  g <- eta |w|/|g| g (ratio 1 where a norm is 0)
        mu <- momentum mu + g;  w <- w - lr mu

    Variables of rank 0 and 1 (biases, BatchNorm's gamma and beta) skip the decay and
    the ratio: they take plain momentum steps at the full rate.

    Args:
      learning_rate: number or Keras schedule; outside the momentum buffer.
      momentum: in [0, 1).
      weight_decay: wd >= 0.
      eta: trust coefficient, above 0.
      exclude: regular expressions; a variable is also excluded if one of them is found
        in its path. They only add to the rule by rank.
      name: of the optimizer.
      **kwargs: of `keras.optimizers.Optimizer`.

    Raises:
      ValueError: momentum, weight_decay or eta out of range.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 4.8,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        eta: float = 1e-3,
        exclude: Sequence[str] = (),
        name: str = "lars",
        **kwargs,
    ):
        if not eta > 0:
            raise ValueError(f"Invalid eta: received {eta}, accepted: above 0.")
        super().__init__(learning_rate, momentum, weight_decay, name, **kwargs)
        self.eta = float(eta)
        self.exclude = tuple(exclude)

    def is_excluded(self, variable: keras.Variable) -> bool:
        """Whether a variable skips decay and trust ratio."""
        return len(variable.shape) <= 1 or any(
            re.search(pattern, variable.path) for pattern in self.exclude
        )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._adapted = [not self.is_excluded(v) for v in variables]

    def _decay_of(self, variable: keras.Variable) -> float | None:
        return None if self.is_excluded(variable) else super()._decay_of(variable)

    def _adapt(self, gradient: tf.Tensor, weight: tf.Tensor, index: int) -> tf.Tensor:
        if not self._adapted[index]:
            return gradient
        w_norm = tf.norm(weight)
        g_norm = tf.norm(gradient)
        ratio = tf.where(
            (w_norm > 0) & (g_norm > 0),
            self.eta * tf.math.divide_no_nan(w_norm, g_norm),
            tf.ones([], gradient.dtype),
        )
        return ratio * gradient

    def get_config(self) -> dict:
        return {**super().get_config(), "eta": self.eta, "exclude": list(self.exclude)}
