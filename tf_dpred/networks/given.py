"""A user's own backbone: checked, copied, and what it wants its images to be."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.networks import backbones
from tf_dpred.system import keras_private

Backbone: TypeAlias = keras.layers.Layer | Callable[[], keras.layers.Layer]

# The darkest and the brightest pixel of the image that a backbone is tried with, and
# how far apart they may be where its first layer with weights gets them: 1 after a
# division by 255, 2 in [-1, 1], some 4 over ImageNet's standard deviation, 240 where
# only a mean is subtracted.
DARK, BRIGHT = 10.0, 250.0
NEAREST, FARTHEST = 0.3, 300.0
# A side of this image for a model of images of any size.
ANY = 32
# What resizing and padding may change.
TOLERATED = 5.0


def built(backbone: Backbone, image_size: int, channels: int = 3) -> keras.Model:
    """A new backbone for a network: a copy of a model, or what a function makes.

    Raises:
      Refused: see `prepared`, `copied` and `made`.
    """
    model = prepared(backbone, image_size, channels)
    return copied(model) if isinstance(backbone, keras.layers.Layer) else made(model)


def prepared(backbone: Backbone, image_size: int, channels: int = 3) -> keras.Model:
    """A user's backbone as a Functional model of square images.

    Args:
      backbone: a Keras model or layer, or a function that makes one.
      image_size: side of the images in pixels.
      channels: of the images.

    Raises:
      Refused: it is none, or it does not take such images.
    """
    model = backbone if isinstance(backbone, keras.layers.Layer) else backbone()
    if not isinstance(model, keras.layers.Layer):
        name = type(model).__name__
        refuse("backbone", name, "a Keras model, or a function that makes one")
    shape = (image_size, image_size, channels)
    if getattr(model, "inputs", None) and model.input_shape == (None, *shape):
        return _with_features(model)
    accepted = f"one for images {list(shape)}, as --image_size={image_size} asks"
    if getattr(model, "inputs", None) and not _fits(model.input_shape, (None, *shape)):
        detail = f" for inputs {model.input_shape}"
        refuse("backbone", backbones.described(model), accepted, detail=detail)
    images = keras.Input(shape)
    with _errors_refused(model, accepted):
        features = model(images)
    return _with_features(keras.Model(images, features, name=model.name))


@contextlib.contextmanager
def _errors_refused(model: keras.layers.Layer, accepted: str) -> Iterator[None]:
    """Refuses a backbone for what one of its layers raises, by that layer's name."""
    filtered = keras.config.is_traceback_filtering_enabled()
    # Else Keras takes the layers out of the traceback.
    keras.config.disable_traceback_filtering()
    try:
        yield
    except Exception as error:
        layer, traceback = model, error.__traceback__
        while traceback is not None:
            found = traceback.tb_frame.f_locals.get("self")
            if isinstance(found, keras.layers.Layer):
                layer = found
            traceback = traceback.tb_next
        backbones.refuse_layer(layer, accepted, error)
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


def _with_features(model: keras.Model) -> keras.Model:
    outputs = model.outputs
    if len(outputs) != 1 or not 2 <= len(outputs[0].shape) <= 4:
        refuse(
            "backbone",
            backbones.described(model),
            "one output: features [n, c], a map [n, h, w, c] or tokens [n, t, c]",
            detail=f" with outputs of shape {[o.shape for o in outputs]}",
        )
    return model


def _fits(shape, wanted: tuple[int | None, ...]) -> bool:
    """Whether the shape of a model's input, with None for any, is the wanted one."""
    if not isinstance(shape, tuple) or len(shape) != len(wanted):
        return False
    return all(a in (None, b) for a, b in zip(shape, wanted, strict=True))


def made(model: keras.Model) -> keras.Model:
    """A user's model that nobody else has, with this package's BatchNorms.

    Raises:
      Refused: see `_compute`.
    """
    backbones.replace_layers(model)
    _compute([model])
    return model


def copied(model: keras.Model) -> keras.Model:
    """`backbones.with_own_layers` of a user's model, compared with it.

    Raises:
      Refused: it cannot be copied, its copy computes something else; see `_compute`.
    """
    copy = backbones.with_own_layers(model)
    expected, found = _compute([model, copy])
    near = 0.01 * max(float(np.max(np.abs(expected))), 1e-6)
    if expected.shape != found.shape or np.max(np.abs(found - expected)) > near:
        refuse(
            "backbone",
            backbones.described(model),
            "layers whose get_config() has all of their arguments, or a function that "
            "makes the backbone",
            detail=", whose copy by get_config() computes something else",
        )
    return copy


def _compute(models: Sequence[keras.Model]) -> list[np.ndarray]:
    """What models make of one image.

    Raises:
      Refused: a model uses weights that its layers do not own, as of a layer that a
        Lambda calls: nobody would train them.
    """

    def call(image: tf.Tensor) -> list[tf.Tensor]:
        return [tf.cast(model(image, training=False), tf.float32) for model in models]

    image = _ramp(models[0])
    traced = tf.function(call, autograph=False).get_concrete_function(image)
    values = [v.value for model in models for v in model.variables]
    # With several replicas, a variable has one for each of them.
    own = {id(part) for v in values for part in getattr(v, "values", (v,))}
    if strange := sorted(v.name for v in traced.graph.variables if id(v) not in own):
        refuse(
            "backbone",
            backbones.described(models[0]),
            "layers that own their weights",
            detail=f", which uses weights that no layer of it owns ({strange[0]})",
        )
    return [np.asarray(output) for output in traced(image)]


def takes_pixels(model: keras.Model) -> bool:
    """Whether a backbone normalises by itself, and has to get values in [0, 255].

    Seen from what its first layer with weights gets, however it comes there: by
    Rescaling, Normalization, a Lambda, arithmetic, or in a model inside it.

    Raises:
      Refused: it changes the range of its images in another way, such that neither
        pixels nor normalised images fit.
    """
    with _errors_refused(model, f"one for images {list(model.input_shape[1:])}"):
        before, arrived = keras_private.first_input(model, _ramp(model))
    if arrived is None:
        return False
    low, high = float(np.min(arrived)), float(np.max(arrived))
    if abs(high - BRIGHT) <= TOLERATED and -TOLERATED <= low <= DARK + TOLERATED:
        return False
    names = ", ".join(map(backbones.described, before or [model]))
    if not NEAREST <= high - low <= FARTHEST:
        refuse(
            "backbone",
            names,
            "layers that normalise values in [0, 255], or none that rescale: images "
            "come normalised",
            detail=f", which turns pixels from {DARK:g} to {BRIGHT:g} into values from "
            f"{low:.3g} to {high:.3g}",
        )
    logging.info("%s normalises by itself (%s): it gets pixels", model.name, names)
    return True


def _ramp(model: keras.Model) -> tf.Tensor:
    """One image from dark to bright, float32 [1, h, w, c]."""
    *sides, channels = (side or ANY for side in model.input_shape[1:])
    # Its ends are flat, so that they outlast resizing.
    ramp = np.linspace(2 * DARK - BRIGHT, 2 * BRIGHT - DARK, math.prod(sides))
    image = np.clip(ramp, DARK, BRIGHT).astype(np.float32).reshape(1, *sides, 1)
    return tf.constant(np.broadcast_to(image, (1, *sides, channels)))
