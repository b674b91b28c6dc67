"""What an encoder is compared with: raw pixels, and encoders of other people."""

from __future__ import annotations

import dataclasses
import types
import zipfile
from pathlib import Path

import keras

from tf_dpred.config import Config, refuse
from tf_dpred.encoders import restore
from tf_dpred.encoders.restore import Encoder
from tf_dpred.networks.encoder import pooled

ACCEPTED = (
    "a keras.applications name, NAME:FILE with its weights from a file, a .keras file "
    "of images to features, a work directory, or an export"
)
# Raw pixels of larger images are averaged down to this side.
PIXELS = 32


@keras.saving.register_keras_serializable("tf_dpred")
class ApplicationInput(keras.layers.Layer):
    """Images in [0, 255] -> what a network of `keras.applications` takes.

    Args:
      application: its name.
    """

    def __init__(self, application: str, **kwargs):
        super().__init__(**kwargs)
        self.application = application

    def call(self, images):
        images = keras.ops.cast(images, self.compute_dtype)
        return _module(self.application).preprocess_input(images)

    def get_config(self) -> dict:
        return {**super().get_config(), "application": self.application}


def pixels(config: Config) -> Encoder:
    """The images themselves as features, [n, s s C] with s at most `PIXELS`."""
    size = config.data.image_size
    images = keras.Input((size, size, config.pixels.count))
    x = images
    if size > PIXELS:
        x = keras.layers.Resizing(PIXELS, PIXELS, antialias=True)(x)
    network = keras.Model(images, keras.layers.Flatten()(x))
    return Encoder(network, config, "pixels", 0)


def open_baseline(name: str, config: Config) -> Encoder:
    """The encoder that `--baseline` names.

    Args:
      name: see `ACCEPTED`.
      config: of the encoder beside it, whose preparation of images it shares unless it
        is a run or an export of its own.

    Raises:
      Refused: there is no such encoder, or it does not take square RGB images.
    """
    path = Path(name)
    if not path.is_dir() and config.pixels.count != 3:
        accepted = f"a run or an export of images of {config.pixels.count} channels"
        refuse("baseline", name, accepted)
    if path.is_dir():
        found = restore.open_directory(path, "baseline", ACCEPTED)
    elif (known := _application(name)) is not None:
        found = _of_application(known, name.partition(":")[2], config)
    elif path.suffix == ".keras":
        found = _of_file(path, config)
    else:
        refuse("baseline", name, ACCEPTED)
    return dataclasses.replace(found, which=f"baseline {path.name}")


def _of_file(path: Path, config: Config) -> Encoder:
    try:
        model = keras.saving.load_model(path, safe_mode=True)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        detail = f" that cannot be loaded ({' '.join(str(error).split())})"
        refuse("baseline", str(path), ACCEPTED, detail=detail)
    shape = model.input_shape
    square = isinstance(shape, tuple) and len(shape) == 4 and shape[3] == 3
    if not square or shape[1] != shape[2]:
        detail = f", which takes {shape}"
        refuse("baseline", str(path), "a model of square RGB images", detail=detail)
    return _encoder(model, config, shape[1] or config.data.image_size)


def _application(name: str) -> str | None:
    """The name in `keras.applications` that NAME or NAME:FILE means."""
    names = {n.lower(): n for n in dir(keras.applications) if n[0].isupper()}
    return names.get(name.partition(":")[0].lower())


def _of_application(name: str, file: str, config: Config) -> Encoder:
    if file and not Path(file).is_file():
        refuse("baseline", f"{name}:{file}", "NAME:FILE of a file with its weights")
    build = getattr(keras.applications, name)
    try:
        # With its top for the size that it was trained at.
        size = build(weights=None).input_shape[1]
        backbone = build(
            include_top=False,
            weights=file or "imagenet",
            input_shape=(size, size, 3),
            pooling="avg",
        )
    # What h5py raises for a file of another kind or of other weights is ValueError or
    # OSError; what Keras raises where there is no network is a bare Exception.
    except Exception as error:
        detail = f" whose weights cannot be had ({' '.join(str(error).split())})"
        accepted = f"{name}, or {name}:FILE"
        refuse("baseline", f"{name}:{file}" if file else name, accepted, detail=detail)
    images = keras.Input((size, size, 3))
    network = keras.Model(images, backbone(ApplicationInput(name)(images)))
    return _encoder(network, config, size)


def _module(application: str) -> types.ModuleType:
    """The module of `keras.applications` that holds this function."""
    for module in vars(keras.applications).values():
        if isinstance(module, types.ModuleType) and hasattr(module, application):
            return module
    raise ValueError(f"Invalid application: received {application!r}.")


def _encoder(model: keras.Model, config: Config, size: int) -> Encoder:
    """Of a model: its first output, the mean of it where it is a map or tokens."""
    images = keras.Input((size, size, 3))
    features = model(images)
    if isinstance(features, list | tuple):
        features = features[0]
    sized = dataclasses.replace(config.data, image_size=size)
    network = keras.Model(images, pooled(features))
    return Encoder(network, dataclasses.replace(config, data=sized), "baseline", 0)
