"""Activations that are computed again for the gradient instead of being kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_dpred.system import keras_private


class Remat:
    """The projections of a network in training mode: images [n, h, w, c] -> [n, d].

    The network is cut into about as many parts as each has layers, where all of it
    passes through one tensor, as between the blocks of a ResNet. Of a part only what
    goes in is kept for the gradient (Chen et al., arXiv 1604.06174): memory grows with
    the root of the number of layers, and each forward pass but the target's is made
    twice. The numbers are the same; BatchNorm's running statistics and the seeds of
    random layers advance once.

    Args:
      network: images -> (representation, projection).
      compiled: the step is compiled by XLA, which would otherwise notice that it has
        the activations already, and keep them.
    """

    def __init__(self, network: keras.Model, *, compiled: bool = False):
        pieces = _pieces(network, network.outputs[1])
        total = sum(size for _, size in pieces)
        least = total / round(math.sqrt(total))
        self._parts: list[_Part] = []
        models: list[keras.Model] = []
        held = 0
        for model, size in pieces:
            models.append(model)
            held += size
            if held >= least or model is pieces[-1][0]:
                self._parts.append(_Part(models, compiled))
                models, held = [], 0

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        x = images
        for part in self._parts:
            x = part(x)
        return x


def _pieces(model: keras.Model, output: Any) -> list[tuple[keras.Model, int]]:
    """The smallest models that, one after the other, make `output`; their layers."""
    nodes = keras_private.nodes(model)
    last_use = {id(output): len(nodes)}
    for place, (_, inputs, _) in enumerate(nodes):
        for tensor in inputs:
            last_use[id(tensor)] = max(place, last_use.get(id(tensor), 0))
    start: Any = model.inputs[0]
    held: list[Any] = []
    live: dict[int, Any] = {id(start): start}
    found: list[tuple[keras.Model, int]] = []
    for place, (operation, _, outputs) in enumerate(nodes):
        held.append(operation)
        live |= {id(tensor): tensor for tensor in outputs}
        live = {k: t for k, t in live.items() if last_use.get(k, -1) > place}
        if len(live) != 1:
            continue
        (end,) = live.values()
        inner = held[0]
        nested = len(held) == 1 and keras_private.is_graph(inner)
        if nested and len(inner.outputs) == 1:
            found += _pieces(inner, inner.outputs[0])
        else:
            found.append((keras.Model(start, end), len(held)))
        start, held = end, []
        if end is output:
            break
    return found


class _Part:
    """Models, one after the other, of which the gradient keeps the input alone."""

    def __init__(self, models: Sequence[keras.Model], compiled: bool):
        self._models, self._compiled = tuple(models), compiled
        variables = {id(v): v for model in models for v in model.variables}.values()
        self._weights = [v for v in variables if v.trainable]
        self._state = [v for v in variables if not v.trainable]

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        before = [tf.convert_to_tensor(v.value) for v in self._state]

        @tf.custom_gradient
        def run(x, *weights):
            y, after = self._run(x, weights, before)

            def gradient(dy, *_):
                kept = self._not_before(dy, x, *weights)
                # Images may be integers.
                learned = kept if x.dtype.is_floating else kept[1:]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(learned)
                    again = self._run(kept[0], kept[1:], before)[0]
                none = [None] * (len(kept) - len(learned))
                return none + tape.gradient(again, learned, dy)

            return (y, *after), gradient

        y, *states = run(x, *(tf.convert_to_tensor(v.value) for v in self._weights))
        for variable, value in zip(self._state, states, strict=True):
            variable.assign(value)
        return y

    def _run(self, x, weights, state) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Output and new state, as a function of all that it depends on."""
        mapping = [
            *zip(self._weights, weights, strict=True),
            *zip(self._state, state, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            for model in self._models:
                x = model(x, training=True)
            after = [scope.get_current_value(v) for v in self._state]
        return x, [tf.convert_to_tensor(value) for value in after]

    def _not_before(self, dy: tf.Tensor, *kept: tf.Tensor) -> list[tf.Tensor]:
        """`kept`, but not until dy is there."""
        if self._compiled:
            # Nothing public makes this operation; few steps need the module.
            from tensorflow.compiler.tf2xla.python import xla

            return list(xla.optimization_barrier(*kept, dy))[:-1]
        with tf.control_dependencies([dy]):
            return [tf.identity(tensor) for tensor in kept]
