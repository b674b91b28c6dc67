"""What Keras asks of the model beside its steps: its parts, and how it is saved."""

from __future__ import annotations

import functools
from typing import Any

import keras

from tf_dpred.data import device_views  # noqa: F401, registers a kind of make_views
from tf_dpred.optimizers import LARS, SGD
from tf_dpred.step.fitted_model import FittedModel
from tf_dpred.step.metrics import EqualMean
from tf_dpred.system import saving

# Arguments of the constructor that are objects, by their names in the config.
_OBJECTS = ("online", "target", "predictor", "loss", "make_views")


class KerasModel(FittedModel):
    """Two networks and a predictor, as Keras sees them.

    What it counts and shows are those three; its own bookkeeping is part of `variables`
    and of what is saved alone.
    """

    loss_tracker: EqualMean
    feature_std: EqualMean
    view_retrieval: EqualMean

    # Its parts.

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

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Of a batch of images, as of a functional model."""
        return self.online.input_shape

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of a batch of representations, as of a functional model."""
        return self.online.output_shape[0]

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
    def trainable_variables(self) -> list[keras.Variable]:
        return self.learned_variables

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        return self.learned_variables

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

    @property
    def metrics_names(self) -> list[str]:
        """Of the numbers of `evaluate`, in its order."""
        return [*super().metrics_names, self.view_retrieval.name]

    def reset_metrics(self) -> None:
        super().reset_metrics()
        self.view_retrieval.reset_state()

    # How it is saved.

    def get_config(self) -> dict[str, Any]:
        """All arguments of the constructor.

        Raises:
          ValueError: `loss` or `make_views` is a function that is not registered.
        """
        settings = ("symmetric", "stop_gradient", "accumulation_steps", "remat")
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
        if not self.compiled:
            return None
        optimizer = self.optimizer
        coupled = isinstance(optimizer, LARS | SGD)
        return keras.saving.serialize_keras_object(
            {
                "optimizer": optimizer,
                "variable_settings": optimizer.variable_settings if coupled else None,
                "run_eagerly": self.run_eagerly,
                "steps_per_execution": self.steps_per_execution,
                "jit_compile": self.jit_compile,
            }
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        settings = keras.saving.deserialize_keras_object(config)
        of_variables = settings.pop("variable_settings")
        self.compile(**settings)
        if of_variables is not None:
            self.optimizer.variable_settings = of_variables

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


def _without(
    variables: list[keras.Variable], left_out: list[keras.Variable]
) -> list[keras.Variable]:
    ids = {id(variable) for variable in left_out}
    return [variable for variable in variables if id(variable) not in ids]
