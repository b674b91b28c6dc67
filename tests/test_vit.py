"""Vision transformers: published sizes, NumPy's numbers, other sizes, refusals."""

import math
import re

import keras
import numpy as np
import pytest

from tf_dpred import build
from tf_dpred.config import VITS, Config
from tf_dpred.data.views import view_pair
from tf_dpred.encoders import initial, restore
from tf_dpred.errors import Refused
from tf_dpred.networks import vit

SMALL = {
    "backbone": "vit_tiny",
    "width": 1 / 16,
    "patch_size": 4,
    "image_size": 16,
    "projector_hidden": 8,
    "projector_dim": 4,
}


@pytest.mark.parametrize(
    ("name", "published"),
    # timm's counts with 16-pixel patches of 224-pixel images and a class token, without
    # the classifier (1000 (c + 1)) and the learned positions (197 c).
    [
        ("vit_tiny", 5_717_416 - 193_000 - 37_824),
        ("vit_small", 22_050_664 - 385_000 - 75_648),
        ("vit_base", 86_567_656 - 769_000 - 151_296),
    ],
)
def test_vit__published_parameter_count(name, published):
    model = vit.vit(name, 224, pooling="class_token")
    assert model.count_params() == published
    assert not any("batch_norm" in layer.name for layer in model.layers)


def test_vit__names_are_those_of_the_config():
    assert tuple(vit.ARCHITECTURES) == VITS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("vit_huge", 32), "Invalid name: received 'vit_huge'"),
        (("vit_tiny", 40), "Invalid image_size: received 40"),
    ],
)
def test_vit__refused(given, message):
    with pytest.raises(ValueError, match=message):
        vit.vit(*given)


def position(place, k, channels, *, cosine):
    """Attention is all you need, section 3.5, with c/2 channels for a direction."""
    angle = place / 10000 ** (2 * k / (channels / 2))
    return math.cos(angle) if cosine else math.sin(angle)


@pytest.mark.parametrize("side", [14, 7, 8, 28])
def test_positions__formula(side):
    """At 14 patches the places are 0, 1, ..., 13; at others in the same square."""
    channels, quarter = 24, 6
    found = vit.positions(side, channels).reshape(side, side, channels)
    places = np.linspace(-0.5, 13.5, 2 * side + 1)[1::2]  # the centres
    if side == 14:
        np.testing.assert_allclose(places, np.arange(14), atol=1e-9)
    for row, column, k in ((0, 0, 0), (1, 3, 2), (side - 1, 2, 5)):
        x, y = places[column], places[row]
        expected = [
            position(at, k, channels, cosine=cosine)
            for at in (x, y)
            for cosine in (False, True)
        ]
        at = [k + quarter * part for part in range(4)]
        np.testing.assert_allclose(found[row, column, at], expected, atol=1e-5)


def test_attention__equals_numpy():
    keras.utils.set_random_seed(0)
    layer = vit.Attention(3)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2, 5, 12)).astype(np.float32)
    layer.build(x.shape)
    layer.set_weights([generator.normal(size=w.shape) for w in layer.get_weights()])
    of = {w.path.rpartition("/")[0].rpartition("/")[2]: [] for w in layer.weights}
    for w in layer.weights:
        of[w.path.rpartition("/")[0].rpartition("/")[2]].append(np.float64(w))
    query, key, value = (x @ of[n][0] + of[n][1] for n in ("query", "key", "value"))
    mixed = np.zeros_like(query)
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        for n in range(2):
            scores = query[n, :, part] @ key[n, :, part].T / 2
            weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            mixed[n, :, part] = weights @ value[n, :, part]
    expected = mixed @ of["out"][0] + of["out"][1]
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_attention__initial_kernels():
    """Xavier's bound for each of query, key and value by itself, as in MoCo v3."""
    layer = vit.Attention(6)
    layer.build((None, 4, 96))
    bound = (6 / (96 + 96)) ** 0.5
    for dense in (layer.query, layer.key, layer.value, layer.out):
        kernel = dense.kernel.numpy()
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_array_equal(dense.bias.numpy(), 0)


@pytest.mark.parametrize("pooling", ["mean", "class_token"])
def test_vit__sees_where_patches_are(pooling):
    """Features change where two patches change places, and by every patch."""
    keras.utils.set_random_seed(0)
    model = vit.vit("vit_tiny", 16, width=1 / 8, patch_size=8, pooling=pooling)
    assert model.output_shape == (None, 24)
    images = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    moved = np.roll(images, 8, axis=1)
    changed = images.copy()
    changed[:, 8:, 8:] += 1
    first, second, third = model(np.concatenate([images, moved, changed])).numpy()
    assert np.abs(first - second).max() > 1e-3
    assert np.abs(first - third).max() > 1e-3


def test_vit__weights_fit_images_of_another_size(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    first = restore.untrained(Config.from_dict({**SMALL, "seed": 7}))
    first.bare().save(tmp_path / "first.keras")
    larger = {**SMALL, "image_size": 24, "init": str(tmp_path / "first.keras")}
    config = Config.from_dict(larger)
    model = build.model(config, 10, view_pair("digits"), start=initial.read(config))
    arrays = len(first.network.get_layer("vit_tiny").weights)
    assert f"{arrays} of {arrays} arrays of the backbone" in caplog.text
    for network in (model.online, model.target):
        found = network.get_layer("vit_tiny").get_weights()
        expected = first.network.get_layer("vit_tiny").get_weights()
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_vit__bfloat16(policy):
    network = restore.untrained(Config.from_dict(SMALL)).network
    policy("mixed_bfloat16")
    found = restore.untrained(Config.from_dict(SMALL)).network
    found.set_weights(network.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    a, b = (n(images, training=False)[0].numpy() for n in (found, network))
    assert a.dtype == np.float32
    assert np.abs(a - b).max() < 0.05 * np.abs(b).max()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"image_size": 30},
            "--image_size: received 30, accepted: a multiple of --patc",
        ),
        ({"width": 0.3}, "--width: received 0.3, accepted: such that round(64 width)"),
        ({"width": 0.001}, "--width: received 0.001, accepted: such that"),
        (
            {"pooling": "max"},
            "--pooling: received 'max', accepted: one of mean, class_",
        ),
        ({"patch_size": 0}, "--patch_size: received 0, accepted: at least 1"),
        (
            {"backbone": "resnet18"},
            "--patch_size: received 4, accepted: 16 unless for vit_tiny, vit_small, ",
        ),
        (
            {"backbone": "MobileNetV2", "width": 1, "patch_size": 16, "pooling": "mean"}
            | {"pooling": "class_token"},
            "--pooling: received 'class_token', accepted: mean unless for vit_tiny",
        ),
        ({"backbone": "vit_huge", "patch_size": 16, "width": 1}, None),
    ],
)
def test_config__refused(given, message):
    if message is None:
        message = "--backbone: received 'vit_huge', accepted: resnet18"
        with pytest.raises(Refused, match=f"^{re.escape(message)}.*close: vit_"):
            restore.untrained(Config.from_dict({**SMALL, **given}))
        return
    with pytest.raises(Refused, match=f"^{re.escape(message)}"):
        Config.from_dict({**SMALL, **given})
