"""How the model is compiled, and what `fit` does beside its steps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tf_dpred.optimizers import LARS, SGD
from tf_dpred.step import multi_worker
from tf_dpred.step.remat import Remat
from tf_dpred.step.trace_once import TraceOnce
from tf_dpred.system import replicas
from tf_dpred.system.keras_private import BuiltModel

_FIT = inspect.signature(keras.Model.fit)


class FittedModel(BuiltModel):
    """An online network, a target that a callback moves, and a predictor."""

    online: keras.Model
    target: keras.Model
    predictor: keras.layers.Layer
    remat: bool
    train_function: Callable[..., Any] | None
    test_function: Callable[..., Any] | None
    _update_target: Callable[[tf.Tensor], None] | None = None
    _traced_update: Callable[[tf.Tensor], None] | None = None

    @property
    def has_separate_target(self) -> bool:
        """False where the target is the online network itself."""
        return self.target is not self.online

    @property
    def learned_variables(self) -> list[keras.Variable]:
        """What the optimizer trains: never the target's variables."""
        return self.online.trainable_variables + self.predictor.trainable_variables

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str,
        *,
        predictor_weight_decay: float | None = None,
        predictor_learning_rate: float | LearningRateSchedule | None = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = False,
        **others: Any,
    ) -> None:
        """Builds the optimizer for the online network and the predictor.

        Args:
          optimizer: any Keras optimizer, or its name.
          predictor_weight_decay, predictor_learning_rate: for the predictor alone;
            None: the optimizer's. They need an optimizer of `tf_dpred.optimizers`.
          run_eagerly, steps_per_execution, jit_compile: as in `keras.Model.compile`.
          **others: of `keras.Model.compile`; only None is accepted.

        Raises:
          ValueError: a loss, metrics, or an optimizer that scales the loss or
            accumulates gradients, which this model does itself.
        """
        for name, value in others.items():
            if value is not None:
                raise ValueError(
                    f"compile: received {name}={value!r}, accepted: the optimizer; the "
                    "loss is an argument of the model, which has its own metrics."
                )
        optimizer = keras.optimizers.get(optimizer)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "compile: received a LossScaleOptimizer, accepted: the optimizer "
                "inside it; under mixed_float16 the step scales the loss itself."
            )
        if optimizer.gradient_accumulation_steps:
            raise ValueError(
                "compile: received an optimizer with gradient_accumulation_steps, "
                "accepted: accumulation_steps of the model, by which F, W and the "
                "target advance with the optimizer."
            )
        own = {
            "weight_decay": predictor_weight_decay,
            "learning_rate": predictor_learning_rate,
        }
        if any(value is not None for value in own.values()):
            if not isinstance(optimizer, LARS | SGD):
                raise ValueError(
                    f"compile: received {type(optimizer).__name__} with settings of "
                    "the predictor alone, accepted: tf_dpred.SGD, tf_dpred.LARS."
                )
            optimizer.set_group(self.predictor.trainable_variables, **own)
        how = {
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }
        super().compile(optimizer=optimizer, auto_scale_loss=False, **how)
        self.optimizer.build(self.learned_variables)
        self.set_projections(compiled=bool(self.jit_compile))

    def set_projections(self, *, compiled: bool) -> None:
        """Decides how the step runs the networks; again where layers were frozen.

        Args:
          compiled: XLA compiles the step, whoever asks for that.
        """
        self._project_online: Callable[[tf.Tensor], tf.Tensor] = (
            Remat(self.online, compiled=compiled)
            if self.remat
            else TraceOnce(self.online)
        )
        self._project_target = TraceOnce(self.target)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        given = _FIT.bind(self, *args, **kwargs).arguments
        for name in ("class_weight", "sample_weight"):
            if given.get(name) is not None:
                raise ValueError(
                    f"fit: received {name}, accepted: two views without labels or "
                    "weights; draw the images that matter more often instead."
                )
        # A `TargetEMA` belongs to one call of `fit`.
        self._update_target = None
        callbacks = given.get("callbacks")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.set_model(self)
        try:
            return super().fit(*args, **kwargs)
        finally:
            self._update_target = None

    def install_target_update(self, update: Callable[[tf.Tensor], None]) -> None:
        """Makes `update(step)` the last operation of every training step.

        `fit` forgets it when it begins and when it ends.

        Args:
          update: called in the step's graph, in replica context, with the number of
            optimizer steps before this one.

        Raises:
          ValueError: there is no separate target to update, or another update of it.
        """
        if not self.has_separate_target:
            raise ValueError(
                "install_target_update: received a model whose target is its online "
                "network, accepted: a model with a separate target."
            )
        if self._update_target not in (None, update):
            raise ValueError(
                "The target's update: received two TargetEMA, accepted: one."
            )
        self._update_target = update

    def _check_target_moves(self) -> None:
        if self.has_separate_target and self._update_target is None:
            raise ValueError(
                "A separate target needs an update: received no TargetEMA, accepted: "
                "fit(..., callbacks=[TargetEMA(0.99), ...]), or a model without a "
                "separate target (ema=False)."
            )

    def make_train_function(self, force: bool = False):
        """As in Keras, but also for several workers.

        Raises:
          ValueError: nothing would move the target.
        """
        self._check_target_moves()
        # A step that was traced before contains the update of that time.
        force = force or self._update_target != self._traced_update
        self._traced_update = self._update_target
        if not replicas.are_on_several_workers(self.distribute_strategy):
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = multi_worker.function(self, self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False):
        """As in Keras, but also for several workers."""
        if not replicas.are_on_several_workers(self.distribute_strategy):
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = multi_worker.function(self, self.test_step)
        return self.test_function
