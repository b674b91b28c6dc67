"""Backbones by name, normalised images -> pooled features, and those of a user."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import keras
import numpy as np

from tf_dpred.config import VITS, NetworkConfig, refuse
from tf_dpred.networks.convolution import ChannelwiseConv2D
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.networks.resnet import ARCHITECTURES, resnet
from tf_dpred.networks.vit import vit
from tf_dpred.system import keras_private


def backbone(config: NetworkConfig, image_size: int, channels: int = 3) -> keras.Model:
    """The backbone of a config: normalised images -> pooled features.

    Args:
      config: `backbone` is a ResNet of `resnet.py`, a ViT of `vit.py`, or a
        `keras.applications` name, which is built without its weights, top and own
        pre-processing.
      image_size: side of the input in pixels.
      channels: of the input.

    Raises:
      Refused: unknown name, or an image size that the application does not take.
    """
    if config.backbone in ARCHITECTURES:
        return resnet(
            config.backbone,
            image_size,
            width=config.width,
            stem=config.stem,
            zero_init_last_gamma=config.zero_init_last_gamma,
            image_channels=channels,
        )
    if config.backbone in VITS:
        return vit(
            config.backbone,
            image_size,
            width=config.width,
            patch_size=config.patch_size,
            pooling=config.pooling,
            image_channels=channels,
        )
    check_name(config.backbone)
    shape = (image_size, image_size, channels)
    try:
        model = of_application(config.backbone, input_shape=shape)
    except ValueError as error:
        reason = " ".join(str(error).split())
        refuse(
            "image_size",
            image_size,
            f"what --backbone={config.backbone} can be built for ({reason})",
        )
    return with_own_layers(model)


def of_application(
    name: str, weights: str | None = None, input_shape: tuple[int, ...] | None = None
) -> keras.Model:
    """A model of `keras.applications` to pooled features.

    The network normalises before its backbone, so the application need not.

    Args:
      name: of its function.
      weights: None, `imagenet`, or a file.
      input_shape: [h, w, c]; None: any, or what the application takes by itself.
    """
    build = application(name)
    options: dict[str, Any] = {}
    if "include_preprocessing" in inspect.signature(build).parameters:
        options["include_preprocessing"] = False
    if input_shape is not None:
        options["input_shape"] = input_shape
    return build(include_top=False, weights=weights, pooling="avg", **options)


def stem_scale(application: str) -> np.ndarray:
    """What the first kernel of ImageNet weights is multiplied by, [3, 1].

    EfficientNetB0 to B7 were trained on channels that were divided by the square root
    of the deviation once more. Keras has a layer for it where it fetches the weights,
    and none where they come from a file.
    """
    if not application.startswith("EfficientNetB"):
        return np.ones([3, 1], np.float32)
    return np.array([[0.229], [0.224], [0.225]], np.float32) ** -0.5


def check_name(name: str) -> None:
    """Checks a backbone's name without building it.

    Raises:
      Refused: unknown name.
    """
    if name not in (*ARCHITECTURES, *VITS):
        application(name)


def application(name: str) -> Callable[..., keras.Model]:
    """The function of `keras.applications` with this name.

    Raises:
      Refused: there is none.
    """
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in names:
        own = (*ARCHITECTURES, *VITS)
        close = difflib.get_close_matches(name, [*own, *names], cutoff=0.5)
        hint = f" (close: {', '.join(close)})" if close else ""
        refuse(
            "backbone",
            name,
            f"{', '.join(own)}, or a model function of keras.applications" + hint,
        )
    return getattr(keras.applications, name)


def described(layer: keras.layers.Layer) -> str:
    """Name and class of a layer, for messages."""
    return f"{layer.name} ({type(layer).__name__})"


def refuse_layer(
    layer: keras.layers.Layer, accepted: str, error: Exception
) -> NoReturn:
    """Refuses a backbone for what one of its layers raised."""
    reason = " ".join(str(error).split())[:300]
    detail = f" ({type(error).__name__}: {reason})"
    refuse("backbone", described(layer), accepted, detail=detail)


def with_own_layers(model: keras.Model) -> keras.Model:
    """A copy, with its weights, of this package's layers, see `replace_layers`.

    Keras' BatchNorms take the statistics of each replica's share of the batch.

    Args:
      model: Functional or Sequential; models inside it are copied as well.

    Raises:
      Refused: names a layer that cannot be copied.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.Lambda):
            # It has no weights, and Keras does not make it from its config.
            return layer
        try:
            config = layer.get_config()
            if type(layer) is keras.layers.BatchNormalization:
                # Ours leaves an axis other than the last to Keras, which has to know.
                return BatchNormalization.from_config({**config, "synchronized": True})
            return type(layer).from_config(config)
        except Exception as error:  # whatever a user's layer raises
            accepted = "layers that can be made from their get_config(), or a function"
            refuse_layer(layer, f"{accepted} that makes the backbone", error)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    for layer in keras_private.all_layers(copy):
        # keras.layers.Normalization keeps what it derives from its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    replace_layers(copy)
    return copy


def replace_layers(model: keras.Model) -> None:
    """Makes a model's BatchNorms and channelwise convolutions this package's.

    In place, and so also inside of its layers: only a layer itself could put another
    object where its BatchNorm is.
    """
    for layer in keras_private.all_layers(model):
        if type(layer) is keras.layers.BatchNormalization:
            layer.__class__ = BatchNormalization  # which adds no state
            layer.synchronized = True
        elif ChannelwiseConv2D.computes(layer):
            layer.__class__ = ChannelwiseConv2D
