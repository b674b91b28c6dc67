"""Parts of a backbone: which layers they have, their rates, and which are frozen."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_dpred import build
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config
from tf_dpred.data.views import view_pair
from tf_dpred.encoders import initial, restore
from tf_dpred.errors import Refused
from tf_dpred.networks import parts, vit
from tf_dpred.networks.encoder import backbone_weights
from tf_dpred.records.workdir import Workdir

SMALL = {"image_size": 16, "projector_hidden": 8, "projector_dim": 4}
RESNET = {"backbone": "resnet18", "width": 1 / 16}


def network(made=None, **settings):
    config = Config.from_dict({**SMALL, **settings})
    return restore.new_network(config, "online", made)


def maps():
    """16 pixels, then 8 twice, with a squeezed branch, then 4; features."""
    images = keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(images)
    x = layers.Conv2D(4, 3, 2, padding="same", name="second")(x)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    squeezed = layers.Conv2D(4, 1, activation="sigmoid", name="squeezed")(squeezed)
    x = layers.Multiply()([x, squeezed])
    x = layers.BatchNormalization(name="third")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(4, 3, padding="same", name="fourth")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(5, name="fifth")(x))


def without_norms():
    images = keras.Input((16, 16, 3))
    return keras.Model(images, layers.Conv2D(4, 4, 4, name="first")(images))


def nested():
    images = keras.Input((16, 16, 3))
    return keras.Model(images, maps()(layers.Identity()(images)))


def names(network):
    return {
        name: [x.name for x in found]
        for name, found in parts.of_network(network).items()
    }


@pytest.mark.parametrize("backbone", [maps, nested])
def test_of_network__parts_end_where_maps_become_smaller(backbone):
    assert names(network(backbone)) == {
        "stem": ["first"],
        "stage1": ["second", "squeezed", "third"],
        "stage2": ["fourth", "fifth"],
    }


def test_of_network__own_names(monkeypatch):
    found = names(network(**RESNET))
    assert list(found) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert found["stem"] == ["stem", "stem_bn"]
    assert {x.split("_")[0] for x in found["stage3"]} == {"stage3"}
    monkeypatch.setattr(vit, "BLOCKS", 2)
    given = {"backbone": "vit_tiny", "width": 1 / 16, "patch_size": 8}
    found = names(network(**given, pooling="class_token"))
    assert list(found) == ["stem", "block1", "block2"]
    assert found["stem"] == ["stem", "class_token"]
    assert found["block2"][-1] == "norm"


@pytest.mark.parametrize("name", ["MobileNetV3Small", "VGG16"])
def test_of_network__every_weight_is_in_one_part(name):
    found = network(image_size=64, backbone=name)
    of = parts.of_network(found)
    assert list(of) == ["stem", "stage1", "stage2", "stage3", "stage4"]
    weights = [id(w) for group in of.values() for layer in group for w in layer.weights]
    assert sorted(weights) == sorted(id(w) for w in backbone_weights(found).values())


def test_rates__of_any_backbone():
    given = {"layer_lr_decay": 0.5, "base_lr": 0.64, "batch_size": 100}
    config = Config.from_dict({**SMALL, **given})
    model = build.model(config, 10, view_pair("digits"), maps)
    found = {
        v.path.split("/")[-2]: rate
        for v, (_, rate) in zip(
            model.learned_variables, model.optimizer.variable_settings, strict=True
        )
    }
    assert found["projector_dense1"] is None  # that of the run, 0.25
    rates = {"fifth": 0.125, "fourth": 0.125, "squeezed": 0.0625, "first": 0.03125}
    assert {name: found[name] for name in rates} == rates


@pytest.mark.parametrize(
    ("backbone", "given", "frozen"),
    [
        (maps, "stage1", {"second", "squeezed", "third"}),
        (maps, "stem,fourth", {"first", "fourth"}),
        (maps, "batch_norm", {"third"}),
        (None, "stem,batch_norm", None),
        (without_norms, "batch_norm", set()),
    ],
)
def test_freeze__parts_and_batch_norms(backbone, given, frozen):
    settings = {**SMALL, **(RESNET if backbone is None else {}), "freeze": given}
    model = build.model(Config.from_dict(settings), 10, view_pair("digits"), backbone)
    weights = backbone_weights(model.online)
    before = {key: w.numpy() for key, w in weights.items()}
    views = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    pairs = tf.data.Dataset.from_tensors(tuple(views))
    model.fit(pairs, epochs=2, verbose=0, callbacks=[TargetEMA(0.5)])
    same = {
        key[0] for key, w in weights.items() if np.array_equal(w.numpy(), before[key])
    }
    if frozen is None:
        frozen = {key[0] for key in before if key[0].endswith("_bn")} | {"stem"}
    assert same == frozen


@pytest.mark.parametrize(
    ("given", "has_backbone", "warned"),
    [
        ({"projector_only_epochs": 1}, False, True),
        ({"projector_only_epochs": 1}, True, False),
        ({}, False, False),
    ],
)
def test_init__a_recipe_to_continue_without_weights(
    given, has_backbone, warned, tmp_path, caplog
):
    config = Config.from_dict({**SMALL, **given})
    assert not initial.of_run(config, Workdir(tmp_path), has_backbone=has_backbone)
    assert ("without --init: there is nothing to protect" in caplog.text) == warned


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "stage9",
            "--freeze: received 'stage9' with 'stage9', accepted: of stem, stage1,",
        ),
        (
            "stem,",
            "--freeze: received 'stem,' with '', accepted: of stem, stage1, stage2,",
        ),
    ],
)
def test_freeze__refused(given, message):
    config = Config.from_dict({**SMALL, "freeze": given})
    with pytest.raises(Refused, match=f"^{re.escape(message)}.*first.*batch_norm"):
        build.model(config, 10, view_pair("digits"), maps)
