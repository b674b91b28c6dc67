"""Backbones by name, normalised images -> pooled features, and those of a user."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable

import keras

from tf_dpred.config import NetworkConfig, refuse
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.networks.resnet import ARCHITECTURES, resnet
from tf_dpred.system import keras_private


def backbone(config: NetworkConfig, image_size: int) -> keras.Model:
    """The backbone of a config: normalised images -> pooled features.

    Args:
      config: `backbone` is a ResNet of `resnet.py` or a `keras.applications` name,
        which is built without its weights, top and own pre-processing.
      image_size: side of the input in pixels.

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
        )
    build = application(config.backbone)
    # The network normalises before its backbone, so the application need not.
    options = (
        {"include_preprocessing": False}
        if "include_preprocessing" in inspect.signature(build).parameters
        else {}
    )
    try:
        model = build(
            include_top=False,
            weights=None,
            input_shape=(image_size, image_size, 3),
            pooling="avg",
            **options,
        )
    except ValueError as error:
        reason = " ".join(str(error).split())
        refuse(
            "image_size",
            image_size,
            f"what --backbone={config.backbone} can be built for ({reason})",
        )
    return with_own_batch_norm(model)


def check_name(name: str) -> None:
    """Checks a backbone's name without building it.

    Raises:
      Refused: unknown name.
    """
    if name not in ARCHITECTURES:
        application(name)


def application(name: str) -> Callable[..., keras.Model]:
    """The function of `keras.applications` with this name.

    Raises:
      Refused: there is none.
    """
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in names:
        close = difflib.get_close_matches(name, [*ARCHITECTURES, *names], cutoff=0.5)
        hint = f" (close: {', '.join(close)})" if close else ""
        refuse(
            "backbone",
            name,
            f"{', '.join(ARCHITECTURES)}, or a model function of keras.applications"
            + hint,
        )
    return getattr(keras.applications, name)


def with_own_batch_norm(model: keras.Model) -> keras.Model:
    """A copy, with its weights, whose BatchNorms are this package's.

    Keras' own take the statistics of each replica's share of the batch.

    Args:
      model: Functional or Sequential; models inside it are copied as well.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if type(layer) is keras.layers.BatchNormalization:
            # Ours leaves an axis other than the last to Keras, which has to know this.
            return BatchNormalization.from_config({**config, "synchronized": True})
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    for layer in keras_private.all_layers(copy):
        # keras.layers.Normalization keeps what it derives from its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return copy
