"""Learning rate and EMA momentum as functions of the step.

The learning-rate schedules are Keras' own objects, made here from the field's
quantities; the EMA momentum is a pure function of the step with its settings.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf
from keras.optimizers.schedules import (
    CosineDecay,
    LearningRateSchedule,
    PolynomialDecay,
)

# step, a float scalar of the dtype to compute in -> tau
Momentum = Callable[[tf.Tensor], "tf.Tensor | float"]


def peak_learning_rate(base_lr: float, batch_size: int) -> float:
    """Linear scaling: base_lr * batch_size / 256 (Goyal et al., 2017)."""
    return base_lr * batch_size / 256


def learning_rate(
    kind: str, peak: float, warmup_steps: int, total_steps: int
) -> float | LearningRateSchedule:
    """Linear warm-up from 0 to `peak`, then constant or a cosine to 0.

    With s the step, w the warm-up and K the total (BYOL code):
    s < w: peak s/w, after it: peak (1 + cos(pi (s - w)/(K - w))) / 2.

    Args:
      kind: `cosine` or `constant`.
      peak: the rate after the warm-up.
      warmup_steps: w >= 0.
      total_steps: K > w, optimizer steps of the whole run.

    Returns:
      A number if it never changes, else a Keras schedule: step -> rate.

    Raises:
      ValueError: unknown kind, or w >= K.
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"Invalid warmup_steps: received {warmup_steps}, accepted: at least 0 and "
            f"below total_steps={total_steps}."
        )
    if kind == "cosine":
        if warmup_steps == 0:
            return CosineDecay(peak, total_steps)
        return CosineDecay(
            0.0,
            total_steps - warmup_steps,
            warmup_target=peak,
            warmup_steps=warmup_steps,
        )
    if kind == "constant":
        if warmup_steps == 0:
            return peak
        return PolynomialDecay(0.0, warmup_steps, end_learning_rate=peak)
    raise ValueError(f"Invalid kind: received {kind!r}, accepted: cosine, constant.")


@keras.saving.register_keras_serializable("tf_dpred")
class Resting(LearningRateSchedule):
    """0 for the first steps, then what another schedule gives at each step.

    Args:
      rate: the other schedule, or a number.
      rest_steps: how many steps have the rate 0, at least 0.
    """

    def __init__(self, rate: float | LearningRateSchedule, rest_steps: int):
        self.rate, self.rest_steps = rate, rest_steps

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        rate = self.rate(step) if callable(self.rate) else self.rate
        rate = tf.convert_to_tensor(rate, tf.float32)
        return tf.where(step < self.rest_steps, tf.zeros_like(rate), rate)

    def get_config(self) -> dict:
        rate = keras.saving.serialize_keras_object(self.rate)
        return {"rate": rate, "rest_steps": self.rest_steps}

    @classmethod
    def from_config(cls, config: dict) -> Resting:
        rate = keras.saving.deserialize_keras_object(config["rate"])
        return cls(rate, config["rest_steps"])


def ema_momentum(kind: str, tau_base: float, total_steps: int) -> Momentum:
    """Momentum of the target's moving average, step -> tau in [0, 1].

    Args:
      kind: `constant` or `cosine`.
      tau_base: in [0, 1].
      total_steps: K, optimizer steps of the whole run.

    Raises:
      ValueError: unknown kind, or tau_base outside [0, 1].
    """
    if kind == "constant":
        return ConstantMomentum(tau_base)
    if kind == "cosine":
        return CosineMomentum(tau_base, total_steps)
    raise ValueError(f"Invalid kind: received {kind!r}, accepted: constant, cosine.")


@keras.saving.register_keras_serializable("tf_dpred")
@dataclasses.dataclass(frozen=True)
class ConstantMomentum:
    """tau_base, in [0, 1], at every step.

    Raises:
      ValueError: tau_base out of range.
    """

    tau_base: float

    def __post_init__(self) -> None:
        if not 0 <= self.tau_base <= 1:
            raise ValueError(
                f"Invalid tau_base: received {self.tau_base}, accepted: [0, 1]."
            )

    def __call__(self, step: tf.Tensor) -> tf.Tensor | float:
        """Step, a float scalar -> tau, in its dtype or as a number."""
        return self.tau_base

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> Momentum:
        return cls(**config)


@keras.saving.register_keras_serializable("tf_dpred")
@dataclasses.dataclass(frozen=True)
class CosineMomentum(ConstantMomentum):
    """1 - (1 - tau_base)(1 + cos(pi k/K))/2 at step k (BYOL, section 3.2).

    From tau_base, in [0, 1], at k = 0 to 1 at k = K and after it.

    Raises:
      ValueError: tau_base out of range, or K below 1.
    """

    total_steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.total_steps < 1:
            raise ValueError(
                f"Invalid total_steps: received {self.total_steps}, "
                "accepted: at least 1."
            )

    def __call__(self, step: tf.Tensor) -> tf.Tensor | float:
        progress = tf.minimum(step / self.total_steps, 1)
        return 1 - (1 - self.tau_base) * (1 + tf.cos(math.pi * progress)) / 2
