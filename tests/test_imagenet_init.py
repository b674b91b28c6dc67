"""--init=imagenet: weights of keras.applications see what they were trained on."""

import inspect
import re
import sys

import keras
import numpy as np
import pytest
from keras.src.utils import file_utils

from tf_dpred.config import Config, applications
from tf_dpred.encoders import initial, restore
from tf_dpred.errors import Refused

# One that rescales by itself, and one whose images are prepared outside.
NAMES = ("MobileNetV3Small", "VGG16")
SIZE = 80


def stored(name, path):
    """A file of weights for this application, which none of its own has."""
    options = {"include_top": False, "weights": None, "pooling": "avg"}
    model = getattr(keras.applications, name)(**options)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            channels = layer.weights[0].shape
            uniform = generator.uniform(0.2, 0.6, channels)
            layer.set_weights([uniform, uniform**2, *layer.get_weights()[2:]])
        if isinstance(layer, keras.layers.BatchNormalization):
            # Such that what was seen first is still seen at the end.
            layer.moving_variance.assign(0.3 * np.ones(layer.moving_variance.shape))
    model.save_weights(path)
    return path


def by_keras(name, images):
    """The features as Keras' documentation says that they are made."""
    build = getattr(keras.applications, name)
    module = sys.modules[inspect.unwrap(build).__module__]
    shape = images.shape[1:]
    model = build(
        include_top=False, weights="imagenet", pooling="avg", input_shape=shape
    )
    return model(module.preprocess_input(images.copy())).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_imagenet__features_are_those_of_keras(name, tmp_path, monkeypatch):
    path = stored(name, tmp_path / "x.weights.h5")
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(path))
    images = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3))
    images = images.astype(np.float32)
    expected = by_keras(name, images)
    for init in ("imagenet", f"imagenet:{path}"):
        settings = {"backbone": name, "image_size": SIZE, "init": init}
        found = restore.untrained(Config.from_dict(settings)).bare()(images).numpy()
        bound = 1e-3 * np.abs(expected).max()
        assert np.abs(found - expected).max() < bound
        # And it is not all the same for each image.
        assert np.abs(expected[0] - expected[1]).max() > 10 * bound


def test_imagenet__every_application_is_known():
    """A family that is not in the table has to normalise by itself."""
    names = [n for n in dir(keras.applications) if n[0].isupper()]
    unknown = {n for n in names if applications.normalization(n) is None}
    assert unknown == {f"EfficientNetB{i}" for i in range(8)}


def test_imagenet__no_network(monkeypatch):
    def fail(name, origin, **_):
        raise Exception(f"URL fetch failure on {origin}: None -- [Errno -2] unknown")

    monkeypatch.setattr(file_utils, "get_file", fail)
    config = Config.from_dict({"backbone": "MobileNetV2", "init": "imagenet"})
    with pytest.raises(Refused) as refusal:
        initial.read(config)
    line = str(refusal.value)
    assert line.startswith("--init: received 'imagenet' that cannot be had (URL fetch ")
    assert "mobilenet_v2_weights" in line  # the address of the file
    assert line.endswith(
        "the weights of MobileNetV2 without its top, as imagenet:FILE."
    )


def test_imagenet__a_file_of_other_weights(tmp_path):
    path = stored("MobileNetV3Small", tmp_path / "x.weights.h5")
    settings = {"backbone": "MobileNetV2", "init": f"imagenet:{path}"}
    with pytest.raises(Refused, match=r"^--init: received 'imagenet:.*cannot be had"):
        initial.read(Config.from_dict(settings))
    path.write_bytes(b"no weights")
    with pytest.raises(Refused, match=r"^--init: received 'imagenet:.*cannot be had"):
        initial.read(Config.from_dict(settings))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"backbone": "resnet50"},
            "--init: received 'imagenet', accepted: with a keras.applications name as "
            "--backbone only; for resnet50, torchvision's file",
        ),
        (
            {"backbone": "vit_tiny"},
            "--init: received 'imagenet', accepted: with a keras.applications name as "
            "--backbone only.",
        ),
        (
            {"init": "imagenet:"},
            "--init: received '', accepted: a file or a dir",
        ),
        (
            {"init": "imagenet:$NO/x.h5"},
            "--init: received 'imagenet:$NO/x.h5', where NO is not",
        ),
        ({"normalize": "data"}, "--normalize: received 'data', accepted: recipe with"),
    ],
)
def test_imagenet__refused(given, message):
    settings = {"backbone": "ResNet50", "init": "imagenet", **given}
    with pytest.raises(Refused, match=f"^{re.escape(message)}"):
        Config.from_dict(settings)


def test_imagenet__a_file_that_is_not_there():
    settings = {"backbone": "ResNet50", "init": "imagenet:/none.h5"}
    with pytest.raises(Refused, match="accepted: imagenet:FILE of a file with these"):
        initial.read(Config.from_dict(settings))
