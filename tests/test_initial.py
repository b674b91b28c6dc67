"""Weights that a run starts from: what fits is taken, what does not is named."""

import json
import sys

import keras
import numpy as np
import pytest

from tf_dpred import build
from tf_dpred.config import Config
from tf_dpred.data.views import view_pair
from tf_dpred.encoders import initial, restore, torch
from tf_dpred.errors import Refused
from tf_dpred.networks.encoder import weights_by_layer
from tf_dpred.records import checkpoints
from tf_dpred.records.state import named
from tf_dpred.records.workdir import Workdir

SMALL = {"width": 1 / 16, "image_size": 16, "projector_dim": 8, "projector_hidden": 8}


def encoder(**settings):
    return restore.untrained(Config.from_dict({**SMALL, "seed": 7, **settings}))


def started(init, **settings):
    config = Config.from_dict({**SMALL, **settings, "init": str(init)})
    weights = initial.read(config)
    return build.model(config, 10, view_pair("digits"), start=weights)


def of_backbone(network):
    return network.get_layer("resnet18").get_weights()


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def saved_keras(tmp_path):
    trained = encoder()
    trained.bare().save(tmp_path / "encoder.keras")
    return tmp_path / "encoder.keras", trained.network


def saved_h5(tmp_path):
    trained = encoder()
    trained.network.get_layer("resnet18").save_weights(tmp_path / "x.weights.h5")
    return tmp_path / "x.weights.h5", trained.network


def saved_npz(tmp_path):
    trained = encoder()
    state = torch.state_dict(trained.network.get_layer("resnet18"))
    state = {f"module.{name}": value for name, value in reversed(state.items())}
    state["module.fc.weight"] = np.zeros((10, 32), np.float32)
    np.savez(tmp_path / "state.npz", **state)
    return tmp_path / "state.npz", trained.network


@pytest.mark.parametrize("saved", [saved_keras, saved_h5, saved_npz])
def test_init__both_networks_start_from_a_file(saved, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    path, trained = saved(tmp_path)
    model = started(path)
    for network in (model.online, model.target):
        assert equal(of_backbone(network), of_backbone(trained))
    assert "online starts from" in caplog.text
    assert "100 of 100 arrays of the backbone, 0 of 6 behind it" in caplog.text
    assert "random" not in caplog.text
    assert ("not used: module.fc" in caplog.text) == (path.suffix == ".npz")


def test_init__the_projector_of_a_run_comes_along(tmp_path):
    flags = Config.from_dict({**SMALL, "seed": 7}).to_dict()
    (tmp_path / "flags.json").write_text(json.dumps({"flags": flags}))
    trained = encoder()
    checkpoints.save(
        tmp_path / "checkpoints" / "step-00000003.npz",
        {
            name: variable.numpy()
            for name, variable in named("online", trained.network.variables).items()
        },
    )
    model = started(tmp_path)
    assert equal(model.online.get_weights(), trained.network.get_weights())
    assert equal(model.target.get_weights(), trained.network.get_weights())


def test_init__only_what_fits(tmp_path, caplog):
    """Another stem: the rest of the backbone is taken, and the stem is named."""
    caplog.set_level("INFO", logger="absl")
    encoder().bare().save(tmp_path / "encoder.keras")
    online = started(tmp_path / "encoder.keras", stem="imagenet").online
    assert "99 of 100 arrays of the backbone" in caplog.text
    assert "--init: not found, so random: stem\n" in caplog.text
    assert online.get_layer("resnet18").get_layer("stem").kernel.shape[0] == 7


def test_init__layers_that_keras_numbered(tmp_path):
    """The second model of a process has conv2d_1 where the first has conv2d."""

    def backbone():
        images = keras.Input((16, 16, 3))
        x = keras.layers.Conv2D(4, 3)(images)
        x = keras.layers.MultiHeadAttention(2, 2)(x, x)
        return keras.Model(images, keras.layers.BatchNormalization()(x))

    first = backbone()
    first.save(tmp_path / "b.keras")
    config = Config.from_dict({**SMALL, "init": str(tmp_path / "b.keras")})
    made = build.model(
        config, 10, view_pair("digits"), backbone, start=initial.read(config)
    )
    for network in (made.online, made.target):
        inner = next(x for x in network.layers if isinstance(x, keras.Model))
        assert equal(inner.get_weights(), first.get_weights())


def test_init__a_run_that_is_continued_does_not_read_it(tmp_path):
    config = Config.from_dict({**SMALL, "init": str(tmp_path / "gone.keras")})
    workdir = Workdir(tmp_path)
    with pytest.raises(Refused, match="--init"):
        initial.of_run(config, workdir)
    checkpoints.save(workdir.checkpoints / "step-00000003.npz", {})
    assert initial.of_run(config, workdir) is None


def no_file(path):
    return path / "none.keras"


def no_suffix(path):
    (path / "x.bin").touch()
    return path / "x.bin"


def damaged(path):
    (path / "x.keras").write_bytes(b"PK")
    return path / "x.keras"


def other_arrays(path):
    np.savez(path / "x.npz", a=np.zeros(3))
    return path / "x.npz"


def damaged_npz(path):
    (path / "x.npz").write_bytes(b"PK")
    return path / "x.npz"


def without_torch(path):
    (path / "x.pth").touch()
    return path / "x.pth"


def empty_directory(path):
    return path


def other_network(path):
    encoder(width=1 / 8).bare().save(path / "x.keras")
    return path / "x.keras"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (no_file, "accepted: a .keras, .h5"),
        (no_suffix, "accepted: a .keras, .h5"),
        (damaged, "accepted: a whole Keras file"),
        (other_arrays, "with entries such as a, accepted: a torchvision ResNet's"),
        (damaged_npz, "accepted: a whole npz file."),
        (without_torch, "accepted: an npz file of its arrays, or with PyTorch: pip"),
        (empty_directory, "accepted: a .keras, .h5"),
        (other_network, "which has 0 of the 100 arrays of this one (without stage1"),
    ],
)
def test_init__refused(made, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = made(tmp_path)
    with pytest.raises(Refused) as refusal:
        started(path)
    assert str(refusal.value).startswith(f"--init: received {str(path)!r}")
    assert message in str(refusal.value)


def test_from_state_dict__is_the_inverse():
    backbone = encoder(stem="imagenet").network.get_layer("resnet18")
    arrays = torch.from_state_dict(torch.state_dict(backbone))
    own = weights_by_layer(backbone)
    assert arrays.keys() == own.keys()
    assert all(np.array_equal(arrays[key], own[key].numpy()) for key in own)
