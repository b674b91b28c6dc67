"""Whole networks: images in [0, 255] -> (representation, projection).

Importing this module registers the package's layers with Keras.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tf_dpred.config import NetworkConfig, refuse
from tf_dpred.networks import given, heads
from tf_dpred.system import saving


@keras.saving.register_keras_serializable("tf_dpred")
class Normalize(keras.layers.Layer):
    """x / 255, minus the mean, over the standard deviation, per channel.

    It is a part of the network, so that nobody who feeds it images can forget it.

    Args:
      mean: of the channels, images in [0, 1].
      std: of the channels, above 0.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs):
        # float32 on purpose: bfloat16 holds integers exactly only up to 256.
        kwargs.setdefault("dtype", keras.config.dtype_policy().variable_dtype)
        super().__init__(**kwargs)
        self.mean, self.std = tuple(mean), tuple(std)

    def call(self, images):
        scale = [1 / (255 * s) for s in self.std]
        offset = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        dtype = self.compute_dtype
        images = keras.ops.cast(images, dtype)
        return images * keras.ops.array(scale, dtype) + keras.ops.array(offset, dtype)

    def get_config(self) -> dict:
        return {**super().get_config(), "mean": self.mean, "std": self.std}


def network(
    backbone: keras.Model,
    config: NetworkConfig,
    mean: Sequence[float],
    std: Sequence[float],
    name: str,
) -> keras.Model:
    """Normalisation, backbone and a new projector as one model.

    Args:
      backbone: see `join`; it gets normalised images.
      config: of the projector.
      mean, std: per channel, of images in [0, 1].
      name: `online` or `target`.

    Returns:
      A model: images [n, h, w, 3] of values in [0, 255], uint8 or float ->
      (representation [n, c], projection [n, d]), float32 under mixed precision.

    A backbone that normalises by itself gets the images as they are.

    Raises:
      ValueError: the backbone's output is none that `join` takes.
      Refused: see `given.takes_pixels`.
    """
    if given.takes_pixels(backbone):
        mean, std = (0.0,) * len(mean), (1 / 255,) * len(std)
    normalize = Normalize(mean, std, name="normalize")
    return join(backbone, lambda c: heads.projector(config, c), name, normalize)


def of_backbone(
    backbone: keras.Model,
    projector_or_sizes: Sequence[int] | keras.Model,
    name: str,
    normalize: tuple[Sequence[float], Sequence[float]] | None = None,
) -> keras.Model:
    """A copy of a user's backbone with a projector, as one model.

    Args:
      backbone: Functional or Sequential, see `join`.
      projector_or_sizes: see `heads.make`.
      name: of the model.
      normalize: mean and std of `Normalize`; None: no normalisation.

    Raises:
      Refused: a backbone that cannot be copied, or that normalises as well; names what
        is wrong.
      ValueError: see `join` and `heads.make`.
    """
    if not getattr(backbone, "inputs", None):
        refuse(
            "backbone",
            getattr(backbone, "name", backbone),
            "a Functional or Sequential model with an Input, such as "
            "keras.Model(x, model(x)) with x = keras.Input(...)",
        )
    if len(backbone.inputs) != 1:
        shapes = [tuple(x.shape) for x in backbone.inputs]
        detail = f" with inputs of shape {shapes}"
        refuse("backbone", backbone.name, "one input", detail=detail)
    made = backbone.compute_output_spec(backbone.inputs[0])
    if isinstance(made, dict):
        detail = f" with outputs by name, {sorted(made)}"
        refuse("backbone", backbone.name, "one output, a tensor", detail=detail)
    if normalize is not None:
        _check_statistics(normalize, backbone.input_shape[-1])
    if normalize is not None and given.takes_pixels(backbone):
        accepted = "one that does not normalise, or normalize=None"
        refuse("backbone", backbone.name, accepted)
    layer = None if normalize is None else Normalize(*normalize, name="normalize")
    projector_of = functools.partial(heads.make, projector_or_sizes)
    return join(given.copied(backbone), projector_of, name, layer)


def _check_statistics(normalize: Any, channels: int) -> None:
    """Refuses what is no mean and standard deviation of each channel."""
    try:
        mean, std = np.asarray(normalize, np.float64)
        fits = mean.shape == std.shape == (channels,)
        fits &= bool(np.all(np.isfinite(mean)) and np.all(std > 0))
    except (TypeError, ValueError):  # other lengths, or no numbers
        fits = False
    if not fits:
        raise ValueError(
            f"Invalid normalize: received {normalize!r}, accepted: (mean, std), of "
            f"{channels} channels each, std above 0."
        )


def join(
    backbone: keras.Model,
    projector_of: Callable[[int], keras.layers.Layer],
    name: str,
    normalize: keras.layers.Layer | None = None,
) -> keras.Model:
    """A backbone and a projector as one model.

    Args:
      backbone: built model to features [n, c]; of features [n, h, w, c] or tokens
        [n, t, c], the mean is taken.
      projector_of: c -> a layer or model, [n, c] -> [n, d].
      name: of the model.
      normalize: a layer in front of the backbone.

    Returns:
      A model: what the backbone takes -> (representation [n, c], projection [n, d]).

    Raises:
      ValueError: the backbone has several outputs, or one of another rank.
    """
    shape = backbone.output_shape
    if len(backbone.outputs) != 1 or not 2 <= len(shape) <= 4:
        raise ValueError(
            f"Invalid backbone: received outputs of shape {shape}, accepted: one "
            "output [n, features], [n, height, width, features] or tokens "
            "[n, number, features]."
        )
    images = keras.Input(backbone.input_shape[1:], name="image")
    features = backbone(images if normalize is None else normalize(images))
    features = pooled(features)
    dtype = keras.config.dtype_policy().variable_dtype
    representation = keras.layers.Activation(
        "linear", dtype=dtype, name="representation"
    )(features)
    projection = projector_of(features.shape[-1])(representation)
    return keras.Model(images, [representation, projection], name=name)


def pooled(features: keras.KerasTensor) -> keras.KerasTensor:
    """Features [n, c]; of a map [n, h, w, c] or tokens [n, t, c], the mean."""
    rank = len(features.shape)
    if rank == 2:
        return features
    pooling = (
        keras.layers.GlobalAveragePooling1D
        if rank == 3
        else keras.layers.GlobalAveragePooling2D
    )
    dtype = keras.config.dtype_policy().variable_dtype
    return pooling(dtype=dtype, name="pool")(features)


def backbone_weights(network: keras.Model) -> dict[tuple[str, str], keras.Variable]:
    """(layer, variable) -> the weights in front of the representation of `join`."""
    return weights_by_layer(*backbone_layers(network))


def backbone_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a network of `join` in front of its representation."""
    names = [layer.name for layer in network.layers]
    return network.layers[: names.index("representation")]


def weights_by_layer(
    *layers: keras.layers.Layer,
) -> dict[tuple[str, str], keras.Variable]:
    """(layer, variable) -> the weights of some layers in order, through inner models.

    A variable inside a layer of layers is called by its path there: `query/kernel`.

    Raises:
      ValueError: two layers have one name.
    """
    found: dict[tuple[str, str], keras.Variable] = {}
    for layer in layers:
        if isinstance(layer, keras.Model):
            inner = weights_by_layer(*layer.layers)
        else:
            inner = {(layer.name, name): w for name, w in _by_name(layer).items()}
        if twice := [
            key for key in inner if found.get(key, inner[key]) is not inner[key]
        ]:
            raise ValueError(f"Invalid model: received two weights {twice[0]}.")
        found |= inner
    return found


def _by_name(layer: keras.layers.Layer) -> dict[str, keras.Variable]:
    """The weights of one layer by their paths in it, `variable` without a name."""
    found: dict[str, keras.Variable] = {}
    for weight in layer.weights:
        path = weight.path.rpartition(f"{layer.name}/")[2]
        name = path.removesuffix(weight.name) + saving.stable_name(weight)
        same = sum(
            re.fullmatch(rf"{re.escape(name)}(\.\d+)?", n) is not None for n in found
        )
        found[f"{name}.{same}" if same else name] = weight
    return found
