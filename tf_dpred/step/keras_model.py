"""What Keras asks of the model beside its steps: its parts, and how it is saved."""

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
from tf_dpred.step.metrics import EqualMean
from tf_dpred.step.trace_once import TraceOnce
from tf_dpred.system import replicas, saving
from tf_dpred.system.keras_private import BuiltModel

_FIT = inspect.signature(keras.Model.fit)
# Arguments of the constructor that are objects, by their names in the config.
_OBJECTS = ("online", "target", "predictor", "loss", "make_views")


class KerasModel(BuiltModel):
    """Two networks and a predictor, as Keras sees them.

    What it counts and shows are those three; its own bookkeeping is part of `variables`
    and of what is saved alone.
    """

    online: keras.Model
    target: keras.Model
    predictor: keras.layers.Layer
    loss_tracker: EqualMean
    feature_std: EqualMean
    view_retrieval: EqualMean
    train_function: Callable[..., Any] | None
    test_function: Callable[..., Any] | None
    _update_target: Callable[[tf.Tensor], None] | None = None
    _traced_update: Callable[[tf.Tensor], None] | None = None
    _compiled_with: dict[str, Any] | None = None

    # Its parts.

    @property
    def has_separate_target(self) -> bool:
        """False where the target is the online network itself."""
        return self.target is not self.online

    @functools.cached_property
    def encoder(self) -> keras.Model:
        """The online network without its projector: images -> representation [n, c].

        It shares its weights with this model, in inference and in training.
        """
        return keras.Model(self.input, self.output, name="encoder")

    @property
    def input(self):
        """The symbolic images, as of a functional model."""
        return self.online.input

    @property
    def output(self):
        """The symbolic representation, as of a functional model."""
        return self.online.outputs[0]

    def call(self, images, training: bool | None = None):
        """Images [n, h, w, c] -> the online network's representation [n, r]."""
        return self.online(images, training=training)[0]

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """Online network, target if it is another one, and predictor."""
        target = [self.target] if self.has_separate_target else []
        return [self.online, *target, self.predictor]

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        # Not int(variable): a variable of several replicas has no __int__.
        return int(self.optimizer.iterations.numpy())

    @property
    def learned_variables(self) -> list[keras.Variable]:
        """What the optimizer trains: never the target's variables."""
        return self.online.trainable_variables + self.predictor.trainable_variables

    trainable_variables = trainable_weights = learned_variables

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        return _without(self.variables, self.learned_variables)

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        return _without(self.weights, self.learned_variables)

    @property
    def weights(self) -> list[keras.Variable]:
        return [weight for layer in self.layers for weight in layer.weights]

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_tracker, self.feature_std]

    def reset_metrics(self) -> None:
        super().reset_metrics()
        self.view_retrieval.reset_state()

    # How it is saved.

    def get_config(self) -> dict[str, Any]:
        """All arguments of the constructor.

        Raises:
          ValueError: `loss` or `make_views` is a function that is not registered.
        """
        settings = ("symmetric", "stop_gradient", "accumulation_steps")
        return {
            **super().get_config(),
            "online": keras.saving.serialize_keras_object(self.online),
            "target": keras.saving.serialize_keras_object(self.target)
            if self.has_separate_target
            else None,
            "predictor": keras.saving.serialize_keras_object(self.predictor),
            "loss": saving.config_of("loss", self.distance),
            "make_views": saving.config_of("make_views", self.make_views),
            **{name: getattr(self, name) for name in (*settings, "skip_nonfinite")},
            "floatx": keras.config.floatx(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None):
        """A model of `get_config`, not trained.

        Raises:
          ValueError: optimizers and metrics kept their numbers in another float type.
        """
        settings = dict(config)
        floatx = settings.pop("floatx")
        if floatx != keras.config.floatx():
            raise ValueError(
                f"keras.config.floatx(): received {keras.config.floatx()!r}, accepted: "
                f"{floatx!r}, with which this model was saved."
            )
        for name in _OBJECTS:
            settings[name] = keras.saving.deserialize_keras_object(
                settings[name], custom_objects
            )
        settings["dtype"] = keras.saving.deserialize_keras_object(settings["dtype"])
        return cls(**settings)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs) -> None:
        """As in Keras; all that the rest of a training depends on is in the file.

        Raises:
          ValueError: an HDF5 file, which would not hold all of it.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"save: received {str(filepath)!r}, accepted: a name that ends in "
                ".keras."
            )
        super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def export(self, *args, **kwargs) -> None:
        """Exports `encoder`, which is what a call of this model computes."""
        self.encoder.export(*args, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        if self._compiled_with is None:
            return None
        return keras.saving.serialize_keras_object(self._compiled_with)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))

    def _seeds(self) -> list[keras.Variable]:
        """The states of random layers, such as Dropout, which Keras does not save."""
        return [
            state
            for layer in self.layers
            for state in _without(layer.variables, layer.weights)
        ]

    def save_own_variables(self, store) -> None:
        for index, state in enumerate(self._seeds()):
            store[f"seed_{index}"] = state

    def load_own_variables(self, store) -> None:
        seeds = self._seeds()
        if len(store.keys()) != len(seeds):
            raise ValueError(
                f"Random layers: received the states of {len(store.keys())}, accepted: "
                f"of {len(seeds)}."
            )
        for index, state in enumerate(seeds):
            state.assign(store[f"seed_{index}"])

    # How it is trained.

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
        # Anew, since compiling also takes account of layers that were frozen.
        self._project_online = TraceOnce(self.online)
        self._project_target = TraceOnce(self.target)
        super().compile(optimizer=optimizer, auto_scale_loss=False, **how)
        self.optimizer.build(self.learned_variables)
        self._compiled_with = {
            "optimizer": optimizer,
            **{f"predictor_{name}": value for name, value in own.items()},
            **how,
        }

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


def _without(
    variables: list[keras.Variable], left_out: list[keras.Variable]
) -> list[keras.Variable]:
    ids = {id(variable) for variable in left_out}
    return [variable for variable in variables if id(variable) not in ids]
