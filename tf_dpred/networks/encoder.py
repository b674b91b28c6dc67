"""Whole networks: images in [0, 255] -> (representation, projection)."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence

import keras

from tf_dpred.config import NetworkConfig
from tf_dpred.networks.heads import projector
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.networks.resnet import ARCHITECTURES, resnet


@keras.saving.register_keras_serializable("tf_dpred")
class Normalize(keras.layers.Layer):
    """x / 255, minus the mean, over the standard deviation, per channel.

    Lives inside the network so that whoever feeds it images cannot get it wrong.

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


def backbone(config: NetworkConfig, image_size: int) -> keras.Model:
    """The backbone of a config: normalised images -> pooled features.

    Args:
      config: `backbone` is a ResNet of `resnet.py` or a `keras.applications` name,
        which is built without its weights, top and own pre-processing.
      image_size: side of the input in pixels.

    Raises:
      ValueError: unknown name, or an image size the application does not take.
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
    # Ours come first in the network; theirs, where optional, is left out.
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
        raise ValueError(
            f"--backbone={config.backbone} cannot be built for --image_size="
            f"{image_size}: {error}"
        ) from error
    return with_own_batch_norm(model)


def check_name(name: str) -> None:
    """Checks a backbone's name without building it.

    Raises:
      ValueError: unknown name.
    """
    if name not in ARCHITECTURES:
        application(name)


def application(name: str) -> Callable[..., keras.Model]:
    """The function of `keras.applications` with this name.

    Raises:
      ValueError: there is none.
    """
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    if name not in names:
        close = difflib.get_close_matches(name, [*ARCHITECTURES, *names], cutoff=0.5)
        hint = f" (close: {', '.join(close)})" if close else ""
        raise ValueError(
            f"--backbone: received {name!r}, accepted: {', '.join(ARCHITECTURES)}, "
            f"or a model function of keras.applications{hint}."
        )
    return getattr(keras.applications, name)


def with_own_batch_norm(model: keras.Model) -> keras.Model:
    """A copy, with its weights, whose BatchNorms are this package's.

    Keras' own would take the statistics of each replica's share of the batch.

    Args:
      model: Functional or Sequential; models inside it are copied as well.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if type(layer) is keras.layers.BatchNormalization:
            # For an axis that is not the last one, which is left to Keras.
            return BatchNormalization.from_config({**config, "synchronized": True})
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():
        # keras.layers.Normalization keeps what it derives from its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return copy


def network(
    backbone: keras.Model,
    config: NetworkConfig,
    mean: Sequence[float],
    std: Sequence[float],
    name: str,
) -> keras.Model:
    """Normalisation, backbone and a new projector as one model.

    Args:
      backbone: built model, normalised images [n, h, w, 3] -> features [n, c].
      config: of the projector.
      mean, std: per channel, of images in [0, 1].
      name: `online` or `target`.

    Returns:
      A model: images [n, h, w, 3] of values in [0, 255], uint8 or float ->
      (representation [n, c], projection [n, d]), float32 under mixed precision.

    Raises:
      ValueError: the backbone does not return [n, c].
    """
    if len(backbone.outputs) != 1 or len(backbone.output_shape) != 2:
        raise ValueError(
            f"Invalid backbone: received outputs of shape {backbone.output_shape}, "
            "accepted: one output [batch, features]; pool over space first."
        )
    images = keras.Input(backbone.input_shape[1:], name="image")
    features = backbone(Normalize(mean, std, name="normalize")(images))
    dtype = keras.config.dtype_policy().variable_dtype
    representation = keras.layers.Activation(
        "linear", dtype=dtype, name="representation"
    )(features)
    projection = projector(config, features.shape[-1])(representation)
    return keras.Model(images, [representation, projection], name=name)
