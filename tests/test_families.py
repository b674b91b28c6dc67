"""Backbones of keras.applications: each is trained, stored, opened and exported."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_dpred.config import Config
from tf_dpred.encoders import export, formats, initial, restore, settings
from tf_dpred.networks import backbones, vit
from tf_dpred.networks.convolution import ChannelwiseConv2D
from tf_dpred.networks.encoder import weights_by_layer
from tf_dpred.records import state
from tf_dpred.system import keras_private
from tf_dpred.train import Pretraining

# Of the families that people ask for, the smallest. Each takes minutes.
FAMILIES = ("ConvNeXtTiny", "EfficientNetV2B0", "MobileNetV3Small", "ResNet50")


def convolved(images, kernel, bias, stride):
    """The convolution of each channel for itself, "same" padding, in NumPy.

    Args: images [n, s, s, c], kernel [k, k, 1, c m]; output g m + j is of channel g.
    """
    count, side, _, channels = images.shape
    k, filters = kernel.shape[0], kernel.shape[3]
    out = -(-side // stride)
    room = max((out - 1) * stride + k - side, 0)
    padded = np.pad(images, [(0, 0), *[(room // 2, room - room // 2)] * 2, (0, 0)])
    found = np.zeros((count, out, out, filters))
    for f in range(filters):
        channel = padded[..., f // (filters // channels)]
        for y in range(out):
            for x in range(out):
                top, left = y * stride, x * stride
                patch = channel[:, top : top + k, left : left + k]
                found[:, y, x, f] = (patch * kernel[..., 0, f]).sum((1, 2)) + bias[f]
    return found


@pytest.mark.parametrize(
    ("kernel", "stride", "each"), [(3, 1, 1), (7, 1, 1), (3, 2, 1), (4, 1, 3)]
)
def test_channelwise__equals_numpy_and_keras(kernel, stride, each):
    keras.utils.set_random_seed(0)
    layer = layers.Conv2D(4 * each, kernel, stride, "same", groups=4)
    model = keras.Sequential([keras.Input((6, 6, 4)), layer])
    layer.bias.assign(np.arange(4 * each))
    images = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    by_keras = model(images)
    copy = backbones.with_own_layers(model)
    assert type(copy.layers[0]) is ChannelwiseConv2D
    found = copy(images)
    expected = convolved(images, *(np.asarray(w) for w in layer.get_weights()), stride)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found, by_keras, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3),
        layers.Conv2D(4, 3, groups=2),
        layers.Conv2D(4, 3, (1, 2), groups=4),
        layers.DepthwiseConv2D(3),
        layers.Conv1D(4, 3, groups=4),
    ],
    ids=lambda layer: layer.name,
)
def test_channelwise__others_stay_as_they_are(layer):
    shape = (8, 4) if isinstance(layer, layers.Conv1D) else (8, 8, 4)
    model = keras.Sequential([keras.Input(shape), layer])
    assert type(backbones.with_own_layers(model).layers[0]) is type(layer)


def trained(name, size, tmp_path, **more):
    """Trains a backbone for two steps -> the encoder that was stored."""
    given = {
        "backbone": name,
        "image_size": size,
        "batch_size": 8,
        "train_size": 16,
        "epochs": 1,
        "projector_hidden": 8,
        "projector_dim": 4,
        "optimizer": "adamw",
        "base_lr": 0.1,
        "knn_every": 0,
        "quality_every": 0,
        "workdir": str(tmp_path / "run"),
    } | more
    run = Pretraining(Config.from_dict(given))
    online = run.model.online
    before = [v.numpy() for v in online.trainable_variables]
    assert np.isfinite(run.train()["loss"])
    changed = [
        (a != b.numpy()).any()
        for a, b in zip(before, online.trainable_variables, strict=True)
    ]
    assert np.mean(changed) > 0.9
    opened = restore.open_encoder(settings.of_encoder({"workdir": given["workdir"]}))
    assert opened.step == 2
    for a, b in zip(opened.network.variables, online.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    return opened


def check_exports(encoder, tmp_path, caplog):
    """All formats whose converters are installed are there, and compute the same."""
    path = export.write_encoder(encoder, tmp_path / "export", tmp_path / "run")
    assert "left out" not in caplog.text
    size = encoder.image_size
    images = np.random.default_rng(1).integers(0, 256, (1, size, size, 3))
    images = images.astype(np.float32)
    expected = np.asarray(encoder.bare()(images))
    found = {
        "saved_model.pb": tf.saved_model.load(str(path))(images)["representation"],
        "encoder.keras": keras.saving.load_model(path / "encoder.keras")(images),
    }
    if (path / "encoder.onnx").exists():
        found["encoder.onnx"] = formats._run_onnx(path / "encoder.onnx", images)
    if (path / "encoder.tflite").exists():
        found["encoder.tflite"] = formats._run_litert(path / "encoder.tflite", images)
    for name, values in found.items():
        bound = 1e-3 * np.abs(expected).max()
        assert np.abs(values - expected).max() <= bound, name
    return found


def test_families__convnext_is_trained_stored_and_exported(
    tmp_path, monkeypatch, caplog
):
    """ConvNeXtTiny of four small blocks: GELU, and a group for each channel."""
    from keras.src.applications import convnext

    sizes = {"depths": [1] * 4, "projection_dims": [8, 12, 12, 12], "default_size": 224}
    monkeypatch.setitem(convnext.MODEL_CONFIGS, "tiny", sizes)
    opened = trained("ConvNeXtTiny", 32, tmp_path)
    channelwise = [
        layer
        for layer in keras_private.all_layers(opened.network)
        if isinstance(layer, ChannelwiseConv2D)
    ]
    assert len(channelwise) == 4
    check_exports(opened, tmp_path, caplog)


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
def test_families__vit_is_trained_stored_and_exported(
    pooling, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(vit, "BLOCKS", 2)
    more = {"width": 1 / 16, "patch_size": 8, "pooling": pooling}
    check_exports(trained("vit_tiny", 16, tmp_path, **more), tmp_path, caplog)


def test_erfc__onnx_equals_tensorflow(tmp_path):
    """TensorFlow's exact GELU; its converter to ONNX does not know erfc."""
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    images = keras.Input((4, 4, 3))
    x = layers.Activation("gelu")(images / 32.0 - 4.0)  # from -4 to 4
    model = keras.Model(images, layers.Flatten()(x))
    [onnx] = [way for way in formats.of_keras(model) if way.name == "encoder.onnx"]
    formats.write(tmp_path / "export", [onnx], (4, 4, 3))
    values = np.linspace(0, 255, 48, dtype=np.float32).reshape(1, 4, 4, 3)
    found = onnx.run(tmp_path / "export", values)
    at = np.float64(values.ravel()) / 32 - 4
    expected = [x / 2 * (1 + math.erf(x / 2**0.5)) for x in at]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Scales(layers.Layer):
    """Weights without names, as ConvNeXt's LayerScale has, and a numbered layer."""

    def build(self, shape):
        self.first, self.second = (self.add_weight((shape[-1],)) for _ in range(2))
        self.dense = layers.Dense(4)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x * self.first + self.second)


def scaled():
    images = keras.Input((16, 16, 3))
    return keras.Model(images, Scales(name="scales")(layers.Conv2D(4, 4, 4)(images)))


def test_named__weights_without_names():
    """Keras numbers them by how many the process has made."""
    names = [list(state.named("online", scaled().variables)) for _ in range(2)]
    assert names[0] == names[1]
    assert names[0][2:4] == ["online/0002/variable", "online/0003/variable"]
    keys = [key for key in weights_by_layer(scaled()) if key[0] == "scales"]
    assert keys[:2] == [("scales", "variable"), ("scales", "variable.1")]


def test_init__weights_without_names(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    first = scaled()
    values = [np.random.default_rng(0).normal(size=w.shape) for w in first.weights]
    first.set_weights(values)
    first.save(tmp_path / "first.keras")
    settings_ = {"image_size": 16, "init": str(tmp_path / "first.keras")}
    config = Config.from_dict(settings_)
    network = restore.new_network(config, "online", scaled)
    initial.read(config).assign(network)
    assert "6 of 6 arrays of the backbone" in caplog.text
    inner = next(x for x in network.layers if isinstance(x, keras.Model))
    for found, value in zip(inner.get_weights(), values, strict=True):
        np.testing.assert_array_equal(found, np.float32(value))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", FAMILIES)
def test_families__each_is_trained_stored_and_exported(name, tmp_path, caplog):
    opened = trained(name, 32, tmp_path)
    check_exports(opened, tmp_path, caplog)
