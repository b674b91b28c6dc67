"""Architectures: published sizes, shapes, stems, heads, precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.config import RESNETS, NetworkConfig
from tf_dpred.errors import Refused
from tf_dpred.networks import backbones, encoder
from tf_dpred.networks.encoder import Normalize
from tf_dpred.networks.heads import projector
from tf_dpred.networks.normalization import BatchNormalization
from tf_dpred.networks.resnet import ARCHITECTURES, resnet
from tf_dpred.system import keras_private

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL = NetworkConfig(width=0.125, projector_hidden=12, projector_dim=8)


def parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def small_network(config=SMALL, size=16):
    return encoder.network(
        backbones.backbone(config, size), config, MEAN, STD, "online"
    )


def photos(n=2, size=16):
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), np.uint8)


# ResNet.


@pytest.mark.parametrize(
    ("name", "published"),
    [
        # torchvision's counts without the classifier (fc: 513 or 2049 a class)
        ("resnet18", 11_176_512),
        ("resnet34", 21_284_672),
        ("resnet50", 23_508_032),
        pytest.param("resnet101", 42_500_160, marks=pytest.mark.slow),
    ],
)
def test_resnet__published_parameter_count(name, published):
    assert parameters(resnet(name, 32)) == published


def test_resnet__names_are_those_of_the_config():
    assert tuple(ARCHITECTURES) == RESNETS


@pytest.mark.parametrize(
    ("name", "width", "features"),
    [
        ("resnet18", 1.0, 512),
        ("resnet18", 0.25, 128),
        ("resnet50", 0.25, 512),
    ],
)
def test_resnet__features(name, width, features):
    model = resnet(name, 32, width=width, stem="small")
    assert model.output_shape == (None, features)
    assert model.get_layer("stem").kernel.shape == (3, 3, 3, round(64 * width))


@pytest.mark.parametrize(
    ("stem", "size", "kernel", "after_stem", "last"),
    [
        ("imagenet", 224, (7, 7), 56, 7),
        ("imagenet", 96, (7, 7), 24, 3),
        ("small", 32, (3, 3), 32, 4),
    ],
)
def test_resnet__stem(stem, size, kernel, after_stem, last):
    model = resnet("resnet18", size, width=0.125, stem=stem)
    assert model.get_layer("stem").kernel.shape[:2] == kernel
    first_block = model.get_layer("stage1_block1_conv1").input.shape
    assert first_block[1:3] == (after_stem, after_stem)
    assert model.get_layer("pool").input.shape[1:3] == (last, last)


@pytest.mark.parametrize(("name", "last"), [("resnet18", 2), ("resnet50", 3)])
def test_resnet__zero_init_last_gamma(name, last):
    model = resnet(name, 16, width=0.125, stem="small", zero_init_last_gamma=True)
    norms = [x for x in model.layers if isinstance(x, BatchNormalization)]
    zero = [x.name for x in norms if not x.gamma.numpy().any()]
    blocks = sum(ARCHITECTURES[name][0])
    assert len(zero) == blocks
    assert all(x.endswith(f"_conv{last}_bn") for x in zero)
    # A block without a projection shortcut starts as the identity.
    probe = keras.Model(
        model.input,
        [
            model.get_layer(f"stage1_block{index}_relu").output
            for index in ([1, 2] if name == "resnet18" else [2, 3])
        ],
    )
    before, after = probe(tf.random.normal([2, 16, 16, 3], seed=0), training=True)
    assert before.numpy().any()
    np.testing.assert_array_equal(before, after)


def test_resnet__gammas_start_at_one_by_default():
    model = resnet("resnet18", 16, width=0.125, stem="small")
    norms = [x for x in model.layers if isinstance(x, BatchNormalization)]
    assert len(norms) == 20
    for norm in norms:
        np.testing.assert_array_equal(norm.gamma.numpy(), 1)


@pytest.mark.parametrize(
    ("stem", "layer", "std"),
    # He et al., 2015, over the outputs: sqrt(2 / (k^2 filters)), torchvision's default.
    [
        ("small", "stem", 0.0589),  # 3 x 3, 64 filters
        ("imagenet", "stem", 0.0253),  # 7 x 7, 64
        ("small", "stage1_block1_conv1", 0.0589),
        ("small", "stage2_block1_shortcut", 0.1250),  # 1 x 1, 128
        ("small", "stage3_block1_conv2", 0.0295),  # 3 x 3, 256
    ],
)
def test_resnet__initial_convolutions(stem, layer, std):
    model = resnet("resnet18", 32, stem=stem)
    kernel = model.get_layer(layer).kernel.numpy()
    assert model.get_layer(layer).bias is None
    # Of n numbers, the standard deviation is known to 1/sqrt(2n), here 1.7 % at most.
    assert kernel.std() == pytest.approx(std, rel=0.06)
    assert abs(kernel.mean()) < 4 * std / kernel.size**0.5
    # Normal, not truncated: within one deviation lie 68.3 %, uniform would be 57.7.
    assert np.mean(np.abs(kernel) < std) == pytest.approx(0.683, abs=0.05)
    assert np.abs(kernel).max() > 2.5 * std


@pytest.mark.parametrize("layer", ["projector_dense1", "projector_dense2"])
def test_projector__initial_kernels(layer):
    """Uniform within 1/sqrt(inputs) of 0, PyTorch's linear layer; biases of zero."""
    model = projector(NetworkConfig(projector_hidden=300, projector_dim=200), 400)
    dense = model.get_layer(layer)
    bound = dense.kernel.shape[0] ** -0.5
    kernel = dense.kernel.numpy()
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    np.testing.assert_array_equal(dense.bias.numpy(), 0)


@pytest.mark.parametrize("convolution", ["stem", "stage2_block1_conv1"])
def test_resnet__strided_convolutions_pad_symmetrically(convolution):
    """As PyTorch's padding=k//2; Keras' "same" would pad at the far side only."""
    model = resnet("resnet18", 32, width=0.0625, stem="imagenet")
    layer = model.get_layer(convolution)
    pad = model.get_layer(f"{convolution}_pad")
    probe = keras.Model(model.input, [pad.input, layer.output])
    x, y = (t.numpy() for t in probe(tf.random.normal([1, 32, 32, 3], seed=0)))
    kernel = layer.kernel.numpy()
    size = kernel.shape[0]
    margin = size // 2
    x = np.pad(x[0], [(margin, margin), (margin, margin), (0, 0)])
    assert y.shape[1] == (x.shape[0] - size) // 2 + 1
    for row, column in [(0, 0), (1, 2), (y.shape[1] - 1, y.shape[2] - 1)]:
        window = x[2 * row : 2 * row + size, 2 * column : 2 * column + size]
        expected = np.einsum("hwc,hwco->o", window, kernel)
        np.testing.assert_allclose(y[0, row, column], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet152"}, "received 'resnet152', accepted: resnet18, .*101"),
        ({"stem": "cifar"}, "received 'cifar', accepted: imagenet, small"),
    ],
)
def test_resnet__bad_argument(settings, message):
    with pytest.raises(ValueError, match=message):
        resnet(**{"name": "resnet18", "image_size": 32, **settings})


# Projector.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # 10 -> 12 -> 8: kernels 120 + 96, hidden bias 12, then what is asked for
        ({}, 228 + 8),
        ({"projector_output_bias": False}, 228),
        ({"projector_bn_affine": True}, 228 + 8 + 24),
        ({"projector_bn_affine": True, "projector_output_bias": False}, 228 + 24),
        ({"projector_output_bn": True}, 228 + 8),
        ({"projector_layers": 3}, 228 + 8 + 12 * 12 + 12),
        ({"projector_layers": 3, "projector_bn_affine": True}, 392 + 48),
    ],
)
def test_projector__parameters(settings, expected):
    config = NetworkConfig(projector_hidden=12, projector_dim=8, **settings)
    model = projector(config, 10)
    assert model.output_shape == (None, 8)
    assert parameters(model) == expected


def test_projector__numpy():
    config = NetworkConfig(
        projector_hidden=12, projector_dim=8, projector_bn_affine=True
    )
    model = projector(config, 10)
    rng = np.random.default_rng(0)
    for v in model.trainable_variables:
        v.assign(rng.normal(size=v.shape))
    kernel1, bias1, gamma, beta, kernel2, bias2 = (
        v.numpy() for v in model.trainable_variables
    )
    x = rng.normal(size=(20, 10)).astype(np.float32)
    hidden = x @ kernel1 + bias1
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    expected = np.maximum(gamma * hidden + beta, 0) @ kernel2 + bias2
    np.testing.assert_allclose(model(x, training=True), expected, atol=1e-4)


def test_projector__output_bn_is_standardised():
    config = NetworkConfig(
        projector_hidden=12, projector_dim=8, projector_output_bn=True
    )
    x = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    z = projector(config, 10)(x, training=True).numpy()
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-2)
    assert (z < 0).any()


# Whole networks.


def test_normalize__numpy():
    x = photos()
    expected = (x / 255.0 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(Normalize(MEAN, STD)(x), expected, atol=1e-6)


def test_normalize__config_round_trip():
    copy = Normalize.from_config(Normalize(MEAN, STD).get_config())
    np.testing.assert_array_equal(copy(photos()), Normalize(MEAN, STD)(photos()))


def test_network__uint8_equals_float():
    network = small_network()
    for a, b in zip(network(photos()), network(photos().astype("f4")), strict=True):
        np.testing.assert_array_equal(a, b)


def test_network__outputs():
    network = small_network()
    assert network.name == "online"
    assert network.input_shape == (None, 16, 16, 3)
    assert network.output_shape == [(None, 64), (None, 8)]
    representation, projection = network(photos(3))
    assert representation.shape == (3, 64)
    assert projection.shape == (3, 8)
    assert (representation.numpy() >= 0).all(), "pooled after a ReLU"


def test_network__projection_is_of_the_representation():
    network = small_network()
    representation, projection = network(photos())
    head = network.get_layer("projector")
    np.testing.assert_allclose(head(representation), projection, atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_network__float32_outputs_under_mixed(precision, policy):
    policy(precision)
    network = small_network()
    backbone = network.get_layer("resnet18")
    assert backbone.get_layer("stem").compute_dtype == precision.removeprefix("mixed_")
    for training in (True, False):
        outputs = network(photos(), training=training)
        assert [t.dtype for t in outputs] == [tf.float32, tf.float32]
    assert {v.dtype for v in network.variables} == {"float32"}


def test_network__bfloat16_is_near_float32(policy):
    expected = small_network()
    policy("mixed_bfloat16")
    found = small_network()
    found.set_weights(expected.get_weights())
    a, b = (n(photos(16), training=False)[1].numpy() for n in (found, expected))
    assert np.abs(a - b).max() < 0.03 * np.abs(b).max()


def test_backbone__keras_application():
    config = NetworkConfig(backbone="MobileNetV3Small")
    model = backbones.backbone(config, 32)
    assert model.output_shape == (None, 576)
    assert not any("rescaling" in layer.name for layer in model.layers)
    network = encoder.network(model, config, MEAN, STD, "online")
    assert network(photos(2, 32))[1].shape == (2, 128)


def test_with_own_layers__same_model():
    """Nested models too; momentum and epsilon stay those of the layer."""
    inner = keras.Sequential(
        [keras.layers.BatchNormalization(momentum=0.8, epsilon=0.01)], name="inner"
    )
    adapted = keras.layers.Normalization()
    adapted.adapt(np.random.default_rng(1).normal(5, 3, (64, 8, 8, 3)))
    outer = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            adapted,
            keras.layers.Conv2D(4, 3),
            keras.layers.BatchNormalization(),
            inner,
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    rng = np.random.default_rng(0)
    for layer in outer.layers[1:]:
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    copy = backbones.with_own_layers(outer)
    found = [
        layer
        for layer in keras_private.all_layers(copy)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert [type(layer) for layer in found] == [BatchNormalization] * 2
    assert (found[1].momentum, found[1].epsilon) == (0.8, 0.01)
    x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(copy(x), outer(x), rtol=1e-5, atol=1e-6)
    training = copy(x, training=True).numpy()
    np.testing.assert_allclose(training, outer(x, training=True), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "close"), [("resnet51", "resnet50"), ("MobileNetv3small", "MobileNetV3")]
)
def test_backbone__unknown_name(name, close):
    message = rf"^--backbone: received '{name}', accepted: .*\(close: .*{close}.*\)\.$"
    with pytest.raises(Refused, match=message):
        backbones.backbone(NetworkConfig(backbone=name), 32)


def test_backbone__unknown_name_like_nothing():
    with pytest.raises(Refused, match=r"keras\.applications\.$"):
        backbones.backbone(NetworkConfig(backbone="zzzzzz"), 32)


def test_backbone__image_size_too_small_for_the_application():
    message = "--image_size: received 32, accepted: what --backbone=InceptionV3 .*75"
    with pytest.raises(Refused, match=message):
        backbones.backbone(NetworkConfig(backbone="InceptionV3"), 32)


@pytest.mark.parametrize("shape", [(7, 9, 5), (11, 5)], ids=["map", "tokens"])
def test_network__pools_a_map_and_tokens(shape):
    features = keras.Input(shape)
    found = encoder.network(
        keras.Model(features, features * 2.0), SMALL, [0.0] * 5, [1 / 255] * 5, "online"
    )
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    axes = tuple(range(1, x.ndim - 1))
    np.testing.assert_allclose(found(x)[0], 2 * x.mean(axis=axes), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("outputs", ["two", "rank 5"])
def test_network__backbone_whose_output_is_no_features(outputs):
    image = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(image)
    wrong = [x, x] if outputs == "two" else keras.layers.Reshape((2, 2, 2, -1))(x)
    with pytest.raises(ValueError, match=r"accepted: one output \[n, features\], "):
        encoder.network(keras.Model(image, wrong), SMALL, MEAN, STD, "online")
