"""Everything private that this package uses of Keras, each with its reason.

A new version of Keras can change these without notice: if something breaks there, it is
found here.
"""

from __future__ import annotations

import keras


class BuiltModel(keras.Model):
    """A model that is built by its constructor, and never by `fit`.

    Before the first step, `fit` runs the model on symbolic data, which fails with
    several workers (keras#20585). There is no public way to switch that off.
    """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Does nothing: there is nothing left to build."""


def all_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """All layers inside a model or layer; `Model.layers` does not look into models."""
    return list(model._flatten_layers(include_self=False))


def decays(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether weight decay applies to a variable.

    Nothing public says what `Optimizer.exclude_from_weight_decay` excluded.
    """
    return optimizer._use_weight_decay(variable)


def index_of(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """The place of a variable among those that the optimizer was built for.

    `update_step` is not told the place, by which it finds the variable's momentum.
    """
    return optimizer._get_variable_index(variable)
