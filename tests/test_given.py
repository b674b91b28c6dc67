"""A user's own backbone: which work, and in what words the others are refused."""

import keras
import numpy as np
import pytest
from devices import on_two_devices, strategy
from keras import layers

from tf_dpred import build
from tf_dpred.config import Config
from tf_dpred.data.views import view_pair
from tf_dpred.errors import Refused
from tf_dpred.networks import given
from tf_dpred.networks.encoder import Normalize
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.system import keras_private

SIZE = 16
SMALL = {"image_size": SIZE, "projector_hidden": 8, "projector_dim": 4}


def plain(before=None, size=SIZE, channels=3):
    """A convolution and a BatchNorm behind `before`."""
    images = x = keras.Input((size, size, channels))
    if before is not None:
        x = before(x)
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(x))
    return keras.Model(images, layers.GlobalAveragePooling2D()(x))


def twice(x):
    return layers.Rescaling(1 / 255)(layers.Rescaling(1 / 255)(x))


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """Rescales, and has its BatchNorm in a block of its own."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.scale = layers.Rescaling(1 / 255)
        self.block = keras.Sequential(
            [layers.Conv2D(units, 3), layers.BatchNormalization()]
        )
        self.pool = layers.GlobalAveragePooling2D()

    def call(self, images, training=False):
        return self.pool(self.block(self.scale(images), training=training))


class Forgetful(Subclassed):
    """Its config leaves out what it does to its output."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, images, training=False):
        return self.factor * super().call(images, training=training)

    def get_config(self):
        return {"name": self.name}


class Opaque(Subclassed):
    """It cannot be made from a config."""

    def __init__(self, thing, **kwargs):
        super().__init__(**kwargs)
        self.thing = thing


def tokens():
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, layers.Reshape((-1, 4))(layers.Conv2D(4, 4, 4)(inputs)))


def feature_map():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, layers.Conv2D(4, 3)(inputs))


def two_outputs():
    model = plain()
    return keras.Model(model.inputs, [model.output, model.output])


def borrowed():
    dense = layers.Dense(3)
    return plain(layers.Lambda(lambda x: dense(x)[..., :3]))


ACCEPTED = {
    "plain": (plain, False),
    "shifted, not rescaled": (lambda: plain(layers.RandomTranslation(0.1, 0.1)), False),
    "resized": (lambda: plain(layers.Resizing(8, 8)), False),
    "padded": (lambda: plain(layers.ZeroPadding2D(3)), False),
    "Rescaling": (lambda: plain(layers.Rescaling(1 / 127.5, offset=-1)), True),
    "Lambda": (lambda: plain(layers.Lambda(lambda x: x / 255)), True),
    "arithmetic": (lambda: plain(lambda x: (x - 127.0) / 64.0), True),
    "mean alone": (lambda: plain(lambda x: x - 120.0), True),
    "Normalization": (
        lambda: plain(layers.Normalization(mean=[120] * 3, variance=[3600] * 3)),
        True,
    ),
    "nested": (lambda: plain(keras.Sequential([layers.Rescaling(1 / 255)])), True),
    "a model inside": (
        lambda: keras.Sequential(
            [keras.Input((SIZE, SIZE, 3)), plain(layers.Rescaling(1 / 255))]
        ),
        True,
    ),
    "not built": (
        lambda: keras.Sequential([layers.Rescaling(1 / 255), layers.Conv2D(4, 3)]),
        True,
    ),
    "subclassed": (Subclassed, True),
    "tokens": (tokens, False),
    "a map, of any size": (feature_map, False),
}


@pytest.mark.parametrize(
    ("name", "as_function"),
    [*((name, False) for name in ACCEPTED), ("plain", True), ("subclassed", True)],
)
def test_model__a_backbone_that_works(name, as_function):
    """What its first weights get is near 1, whoever normalises; BatchNorms are ours."""
    make, pixels = ACCEPTED[name]
    config = Config.from_dict(SMALL)
    backbone = make if as_function else make()
    model = build.model(config, 1, view_pair("digits"), backbone)
    normalize = model.online.get_layer("normalize")
    expected = (1 / 255,) * 3 if pixels else (1.0,) * 3
    assert normalize.std == expected
    inside = keras_private.all_layers(model.online)
    norms = [x for x in inside if isinstance(x, layers.BatchNormalization)]
    assert {type(x) for x in norms} == {BatchNormalization}
    assert not {id(v) for v in model.online.variables} & {
        id(v) for v in model.target.variables
    }
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    representation, projection = model.online(images, training=False)
    assert representation.shape == (2, 4) and projection.shape == (2, 4)
    if not as_function:  # the copy computes what the user's model does
        x = Normalize((0.0,) * 3, expected)(images)
        own = np.asarray(given.prepared(backbone, SIZE)(x, training=False))
        own = own.mean(axis=tuple(range(1, own.ndim - 1)))
        np.testing.assert_allclose(representation, own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: plain(twice),
            r"'rescaling\w* \(Rescaling\), rescaling\w* \(Rescaling\)', which turns "
            r"pixels from 10 to 250 into values from 0\.000154 to 0\.00384, accepted: ",
        ),
        (
            lambda: plain(layers.Rescaling(2.0, offset=-1, name="centre")),
            r"'centre \(Rescaling\)', which turns pixels from 10 to 250 into values "
            "from 19 to 499",
        ),
        (lambda: Opaque(object()), r"'opaque\w* \(Opaque\)' \(NotImplementedError: "),
        (lambda: Forgetful(2.0), "whose copy by get_config.. computes something else"),
        (borrowed, r"uses weights that no layer of it owns \(lambda\w*/bias"),
        (
            lambda: plain(size=32),
            r"for inputs \(None, 32, 32, 3\), accepted: one for images \[16, 16, 3\]",
        ),
        (lambda: plain(channels=1), r"for inputs \(None, 16, 16, 1\), accepted: "),
        (two_outputs, "with outputs of shape .*, accepted: one output: features"),
        (
            lambda: keras.Sequential([layers.Dense(4), layers.Conv1D(4, 3)]),
            r"conv1d\w* \(Conv1D\)",
        ),
    ],
)
def test_model__a_backbone_that_is_refused(make, message):
    with pytest.raises(Refused, match=f"^--backbone: received .*{message}") as error:
        build.model(Config.from_dict(SMALL), 1, view_pair("digits"), make())
    assert "\n" not in str(error.value)


def test_prepared__no_model():
    with pytest.raises(
        Refused, match=r"^--backbone: received 'int', accepted: a Keras"
    ):
        given.prepared(lambda: 3, SIZE)


@pytest.mark.parametrize("make", [lambda: Opaque(object()), lambda: Forgetful(2.0)])
def test_model__a_function_needs_no_copies(make):
    model = build.model(Config.from_dict(SMALL), 1, view_pair("digits"), make)
    assert model.online.count_params() == model.target.count_params()


def test_model__efficientnet_by_name():
    """It has no include_preprocessing: its own Rescaling is the only one."""
    settings = {"backbone": "EfficientNetB0", "image_size": 32, "ema": False}
    config = Config.from_dict(SMALL | settings)
    model = build.model(config, 1, view_pair("byol"))
    assert model.online.get_layer("normalize").std == (1 / 255,) * 3


def _build_on_two():
    with strategy(2).scope():
        for backbone in (Subclassed(), plain):
            model = build.model(
                Config.from_dict(SMALL), 1, view_pair("digits"), backbone
            )
            assert len(model.online.variables[0].value.values) == 2


def test_model__on_two_devices():
    on_two_devices(_build_on_two)
