"""Parts of a backbone, from the images on: which are frozen, and which learn slower."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import keras

from tf_dpred.config import refuse
from tf_dpred.networks.encoder import backbone_layers
from tf_dpred.system import keras_private

# Stands for all BatchNorms of a backbone.
BATCH_NORM = "batch_norm"
_OWN = re.compile(r"(stem|stage\d+|block\d+)(_.*)?")


def of_network(network: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Name -> the layers with weights of each part of the backbone, in order.

    The parts of a ResNet of this package are `stem` and `stage1` to `stage4`, those of
    a ViT `stem` and `block1` to `block12`. Those of other backbones are called `stem`,
    `stage1`, ... as well: a part ends where the maps become smaller. All of a backbone
    is `stem` where Keras does not know the order or the sizes.

    Args:
      network: of `encoder.join`.
    """
    parts: dict[str, list[keras.layers.Layer]] = {"stem": []}
    for outer in backbone_layers(network):
        part, least = "stem", math.inf
        layers = list(_in_order(outer))
        own = any(layer.name == "stem" for layer in layers)
        for layer in layers:
            if own:
                # A layer of another name belongs to the part before it.
                part = found[1] if (found := _OWN.fullmatch(layer.name)) else part
            elif (side := _side(layer)) < least:
                part = f"stage{len(parts)}" if parts[part] else part
                least = side
            parts.setdefault(part, []).extend([layer] if layer.weights else [])
    return {name: layers for name, layers in parts.items() if layers}


def _in_order(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """A layer, or those of a model, through inner models."""
    if not isinstance(layer, keras.Model):
        yield layer
        return
    for inner in layer.layers:
        yield from _in_order(inner)


def _side(layer: keras.layers.Layer) -> float:
    """Side of the map that a layer makes; infinite where it makes none.

    A map of one pixel tells nothing: squeeze-and-excitation makes some on the way.
    """
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):  # it was called twice, or never
        return math.inf
    known = len(shape) == 4 and shape[1] is not None and shape[1] > 1
    return shape[1] if known else math.inf


def freeze(network: keras.Model, names: str) -> None:
    """Keeps layers of a backbone as they are, their BatchNorm statistics too.

    Args:
      network: of `encoder.join`.
      names: separated by commas: the beginnings of layers' names, where `stage1` also
        stands for stage1_block1_conv1 and the like, but not for stage10; where no layer
        is called so, a part of `of_network`; or `batch_norm`, of which a backbone may
        have none.

    Raises:
      Refused: there is no such layer with weights.
    """
    layers = [
        layer
        for outer in backbone_layers(network)
        for layer in (outer, *keras_private.all_layers(outer))
        if layer.weights and not isinstance(layer, keras.Model)
    ]
    parts = of_network(network)
    norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    for name in names.split(","):
        pattern = f"{re.escape(name)}(_.*)?"
        frozen = [x for x in layers if re.fullmatch(pattern, x.name)]
        frozen = frozen or (norms if name == BATCH_NORM else parts.get(name, []))
        if not frozen and name != BATCH_NORM:
            known = sorted({layer.name.split("_")[0] for layer in layers})
            accepted = ", ".join(dict.fromkeys([*parts, *known, BATCH_NORM]))
            refuse("freeze", names, f"of {accepted}", detail=f" with {name!r}")
        for layer in frozen:
            layer.trainable = False
