"""Everything private that this package uses of Keras, each with its reason.

A new version of Keras can change these without notice: if something breaks there, it is
found here.
"""

from __future__ import annotations

import functools

import keras
import tensorflow as tf


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


def is_graph(layer) -> bool:
    """Whether a layer is a built Functional or Sequential model."""
    graph = getattr(layer, "_functional", layer)
    return isinstance(layer, keras.Model) and hasattr(graph, "_nodes_by_depth")


def nodes(model: keras.Model) -> list[tuple]:
    """(operation, inputs, outputs) of each call of such a model, in order.

    `Model.operations` does not say what an operation takes that is called twice.
    """
    by_depth = getattr(model, "_functional", model)._nodes_by_depth
    found = [
        node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]
    ]
    return [
        (node.operation, node.input_tensors, node.output_tensors)
        for node in found
        if not node.is_input
    ]


def first_input(
    model: keras.Model, images: tf.Tensor
) -> tuple[list[keras.layers.Layer], tf.Tensor | None]:
    """What the first layer with weights gets when a model sees images.

    The layers may be anywhere, also inside of a user's own; nothing public tells when
    one is called, so their `call` is replaced for the time of one call of the model,
    which ends there.

    Returns:
      The layers without weights that came before (and keras.layers.Normalization, whose
      weights are its statistics); the first input, None where no layer has weights.
    """
    before: list[keras.layers.Layer] = []
    leaves = [x for x in all_layers(model) if not all_layers(x)]

    def spy(layer: keras.layers.Layer):
        call = layer.call
        passive = not layer.weights or isinstance(layer, keras.layers.Normalization)

        @functools.wraps(call)
        def called(inputs, *args, **kwargs):
            if passive:
                before.append(layer)
            elif getattr(inputs, "dtype", tf.int32).is_floating:
                raise _Arrived(inputs)
            return call(inputs, *args, **kwargs)

        return called

    for layer in leaves:
        object.__setattr__(layer, "call", spy(layer))
    try:
        model(images, training=False)
    except _Arrived as found:
        return before, found.args[0]
    finally:
        for layer in leaves:
            object.__delattr__(layer, "call")
    return before, None


class _Arrived(BaseException):  # so that nobody but `first_input` handles it
    """Holds the input of a layer."""


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
