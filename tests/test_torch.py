"""Weights of a ResNet under the names that torchvision gives them."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from tf_dpred.config import Config, FilesConfig
from tf_dpred.encoders import restore, settings, torch
from tf_dpred.errors import Refused


def new_encoder(backbone, size=64, **settings):
    """An encoder like torchvision's, with BatchNorm statistics of its own."""
    settings = {"stem": "imagenet", "views": "byol", "projector_dim": 8} | settings
    config = Config.from_dict({"backbone": backbone, "image_size": size, **settings})
    encoder = restore.untrained(config)
    generator = np.random.default_rng(0)
    for variable in encoder.network.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        if variable.name in ("beta", "moving_mean"):
            variable.assign(generator.normal(0, 0.1, variable.shape))
    return encoder


def state_of(encoder):
    name = encoder.config.network.backbone
    return torch.state_dict(encoder.network.get_layer(name))


# Entries of torchvision's state dicts without fc.weight and fc.bias, and some shapes.
TORCHVISION = {
    "resnet18": (
        120,
        {
            "conv1.weight": (64, 3, 7, 7),
            "bn1.running_var": (64,),
            "layer2.0.downsample.0.weight": (128, 64, 1, 1),
            "layer2.0.downsample.1.running_mean": (128,),
            "layer4.1.conv2.weight": (512, 512, 3, 3),
            "layer4.1.bn2.num_batches_tracked": (),
        },
    ),
    "resnet50": (
        318,
        {
            "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer3.5.conv3.weight": (1024, 256, 1, 1),
            "layer4.2.bn3.bias": (2048,),
        },
    ),
}


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_convert_to_torch__names_and_shapes(backbone):
    state = state_of(new_encoder(backbone))
    count, shapes = TORCHVISION[backbone]
    assert len(state) == count
    assert (
        shapes.items() <= {name: value.shape for name, value in state.items()}.items()
    )


# In a process of its own: PyTorch and TensorFlow in one may crash.
IN_TORCH = """
import sys, numpy, torch, torchvision
name, state, images, output = sys.argv[1:]
model = getattr(torchvision.models, name)()
model.fc = torch.nn.Identity()
weights = numpy.load(state)
model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
with torch.no_grad():
    features = model.eval()(torch.from_numpy(numpy.load(images)))
numpy.save(output, features.numpy())
"""


@pytest.mark.parametrize("backbone", TORCHVISION)
def test_convert_to_torch__torchvision_computes_the_same(backbone, tmp_path):
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    encoder = new_encoder(backbone)
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    unit = (images / 255 - encoder.preprocessing.mean) / encoder.preprocessing.std
    state, given, output = (tmp_path / name for name in ("state.npz", "x.npy", "y.npy"))
    np.savez(state, **state_of(encoder))
    np.save(given, unit.transpose(0, 3, 1, 2).astype(np.float32))
    subprocess.run(
        [sys.executable, "-c", IN_TORCH, backbone, state, given, output], check=True
    )
    expected = encoder.network(images, training=False)[0].numpy()
    difference = np.abs(np.load(output) - expected).max() / np.abs(expected).max()
    print(f"{backbone}: {difference:.1e}")
    assert difference < 1e-4


def test_convert_to_torch__notes_what_differs():
    encoder = new_encoder("resnet18", 16, stem="small", width=0.25, views="cifar")
    notes = torch.notes(encoder)
    assert "Conv2d(3, C, 3, 1, 1" in notes
    assert "0.4914" in notes and "16 x 16" in notes
    assert "times 0.25" in notes


def test_convert_to_torch__writes_the_name_that_was_asked(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    small = {"width": 1 / 16, "image_size": 16, "workdir": str(run)}
    flags = Config.from_dict(small).to_dict()
    (run / "flags.json").write_text(json.dumps({"flags": flags}))
    config = settings.of_encoder({"workdir": str(run), "encoder": "untrained"})
    output = tmp_path / "weights"
    torch.run(config, FilesConfig(output=str(output)))
    assert np.load(output)["conv1.weight"].shape == (4, 3, 3, 3)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"wrote {output}: 120 arrays"
    assert printed[1].startswith("input: RGB 16 x 16")


@pytest.mark.parametrize(
    ("output", "backbone", "message"),
    [
        (
            None,
            "resnet18",
            "--output: received None, accepted: the name of an npz file",
        ),
        ("no/x.npz", "resnet18", "--output: received '.*no/x.npz', accepted: the name"),
        ("x.npz", "MobileNetV2", "--backbone: received 'MobileNetV2', accepted: resn"),
    ],
)
def test_convert_to_torch__refuses_before_work(output, backbone, message, tmp_path):
    config = Config.from_dict({"backbone": backbone, "workdir": str(tmp_path)})
    output = output and str(tmp_path / output)
    with pytest.raises(Refused, match=f"^{message}"):
        torch.run(config, FilesConfig(output=output))


def test_module_name__not_of_a_resnet():
    with pytest.raises(ValueError, match="received layer 'pool'"):
        torch.module_name("pool")
