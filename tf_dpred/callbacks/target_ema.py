"""The target network as an exponential moving average of the online network."""

from __future__ import annotations

import numbers

import keras
import numpy as np
import tensorflow as tf

from tf_dpred.schedules import ConstantMomentum, Momentum
from tf_dpred.system import saving


@keras.saving.register_keras_serializable("tf_dpred")
class TargetEMA(keras.callbacks.Callback):
    """target <- tau target + (1 - tau) online, after every optimizer step.

    Over trainable variables only: each network keeps its own BatchNorm statistics.
    A callback's batch hooks run once per `steps_per_execution` steps, too seldom; so
    `set_model` installs the update into the training step, where it is exact at any
    `steps_per_execution`, on any number of devices and under accumulation. The hooks
    only report tau.

    Args:
      schedule: tau in [0, 1], or step -> tau; see `schedules.ema_momentum`.

    Raises:
      ValueError: tau out of range; or from `set_model`, where the model has no separate
        target or another `TargetEMA` for the same `fit`.
    """

    def __init__(self, schedule: Momentum | float):
        super().__init__()
        if not callable(schedule) and not isinstance(schedule, numbers.Real):
            raise ValueError(
                f"TargetEMA: received {schedule!r}, accepted: a number in [0, 1] or a "
                "function, such as schedules.ema_momentum('cosine', 0.99, total_steps)."
            )
        self.schedule: Momentum = (
            schedule if callable(schedule) else ConstantMomentum(float(schedule))
        )

    def get_config(self) -> dict:
        return {"schedule": saving.config_of("schedule", self.schedule)}

    @classmethod
    def from_config(cls, config: dict) -> TargetEMA:
        return cls(keras.saving.deserialize_keras_object(config["schedule"]))

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        model.install_target_update(self.update)

    def update(self, step: tf.Tensor) -> None:
        """Moves the target; runs inside the training step, on each replica.

        Args:
          step: int64 scalar, optimizer steps before this one.
        """
        # By the target's variables: layers of the online network may be frozen.
        both = zip(
            self.model.online.variables, self.model.target.variables, strict=True
        )
        pairs = [(online, target) for online, target in both if target.trainable]
        tau: dict[str, tuple[tf.Tensor, tf.Tensor]] = {}  # dtype -> tau, 1 - tau
        for online, target in pairs:
            dtype = target.dtype
            if dtype not in tau:
                # Not tf.cast, which takes a python number through float32.
                value = tf.convert_to_tensor(self.schedule(tf.cast(step, dtype)), dtype)
                tau[dtype] = value, 1 - value
            keep, take = tau[dtype]
            # Tensors, as operations on Keras' variables take longer to trace.
            before, new = tf.convert_to_tensor(target), tf.convert_to_tensor(online)
            target.assign(keep * before + take * new)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["tau"] = self.tau()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["tau"] = self.tau()

    def tau(self) -> float:
        """The momentum of the latest optimizer step."""
        step = max(self.model.steps_done - 1, 0)
        # An array: TensorFlow keeps a tensor of every Python number it is given.
        return float(self.schedule(tf.constant(np.asarray(step, np.float32))))
