"""A ResNet encoder as the state dict of torchvision's, in an npz file.

    python -m tf_dpred.main --mode=convert_to_torch --workdir=runs/quickstart \\
        --output=resnet18.npz

Then, where PyTorch is (TensorFlow is not needed there; `fc` is left out):

    model = torchvision.models.resnet18()
    model.fc = torch.nn.Identity()
    weights = numpy.load("resnet18.npz")
    model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})

The mode prints how the images are normalised, and what to change in the model where
the stem or the width is not torchvision's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import keras
import numpy as np

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.encoders import restore
from tf_dpred.encoders.restore import Encoder
from tf_dpred.networks.resnet import ARCHITECTURES
from tf_dpred.system import devices
from tf_dpred.system.files import output_file, write_arrays

# Variables of a Keras layer -> entries of a PyTorch module.
ENTRIES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# The converse, of BatchNorm.
VARIABLES = {entry: name for name, entry in ENTRIES.items() if name != "kernel"}


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=convert_to_torch`: writes `--output` and prints `notes`.

    Raises:
      Refused: no such encoder, no ResNet of this package, or an output that cannot be
        written.
      OSError: the output could not be written.
    """
    output = output_file(files.output, "an npz file")
    name = config.network.backbone
    if name not in ARCHITECTURES:
        refuse("backbone", name, f"{', '.join(ARCHITECTURES)} with this mode")
    devices.set_precision("float32")
    encoder = restore.open_encoder(config)
    if encoder.backbone is not None:
        detail = ", a backbone that a program gave to the run"
        accepted = f"{', '.join(ARCHITECTURES)} of this package"
        refuse("backbone", name, accepted, detail=detail)
    state = state_dict(encoder.network.get_layer(name))
    write_arrays(output, state)
    print(f"wrote {output}: {len(state)} arrays\n{notes(encoder)}")


def module_name(layer: str) -> str:
    """torchvision's name of a layer of `networks.resnet`.

    stem -> conv1, stem_bn -> bn1; stage2_block1_conv3_bn -> layer2.0.bn3;
    stage2_block1_shortcut(_bn) -> layer2.0.downsample.0 (.1).

    Raises:
      ValueError: not a layer of such a ResNet.
    """
    if layer in ("stem", "stem_bn"):
        return "conv1" if layer == "stem" else "bn1"
    pattern = r"stage(\d)_block(\d+)_(shortcut|conv(\d))(_bn)?"
    match = re.fullmatch(pattern, layer)
    if match is None:
        raise ValueError(f"received layer {layer!r}, accepted: layers of a ResNet.")
    stage, block, part, index, bn = match.groups()
    prefix = f"layer{stage}.{int(block) - 1}"
    if part == "shortcut":
        return f"{prefix}.downsample.{1 if bn else 0}"
    return f"{prefix}.{'bn' if bn else 'conv'}{index}"


def layer_name(module: str) -> str | None:
    """The inverse of `module_name`; None for a module that has no such layer."""
    if module in ("conv1", "bn1"):
        return "stem" if module == "conv1" else "stem_bn"
    pattern = r"layer(\d)\.(\d+)\.(?:downsample\.([01])|(conv|bn)(\d))"
    match = re.fullmatch(pattern, module)
    if match is None:
        return None
    stage, block, shortcut, kind, index = match.groups()
    prefix = f"stage{stage}_block{int(block) + 1}"
    if shortcut is not None:
        return f"{prefix}_shortcut" + ("_bn" if shortcut == "1" else "")
    return f"{prefix}_conv{index}" + ("_bn" if kind == "bn" else "")


def from_state_dict(
    state: Mapping[str, np.ndarray],
) -> dict[tuple[str, str], np.ndarray]:
    """The inverse of `state_dict`: (layer, variable) -> array in Keras' layout.

    A prefix of all names is dropped, as `module.` or `backbone.`. An entry of no
    layer of ours keeps its name; empty if there is no `conv1.weight`.
    """
    first = [name for name in state if name.endswith("conv1.weight")]
    if not first:
        return {}
    # The shortest is that of the stem; the others are of blocks.
    prefix = min(first, key=len).removesuffix("conv1.weight")
    arrays = {}
    for name, array in state.items():
        module, _, entry = name.removeprefix(prefix).rpartition(".")
        if entry == "num_batches_tracked":
            continue
        layer = layer_name(module)
        if layer is None:
            arrays[name, entry] = array
        elif array.ndim == 4:
            arrays[layer, "kernel"] = array.transpose(2, 3, 1, 0)  # OIHW -> HWIO
        else:
            arrays[layer, VARIABLES.get(entry, entry)] = array
    return arrays


def state_dict(backbone: keras.Model) -> dict[str, np.ndarray]:
    """Weights of a ResNet of this package under torchvision's names and layout."""
    state = {}
    for layer in backbone.layers:
        for variable in layer.variables:
            name = module_name(layer.name)
            value = np.asarray(variable.numpy(), np.float32)
            if variable.name == "kernel":
                value = value.transpose(3, 2, 0, 1)  # HWIO -> OIHW
            state[f"{name}.{ENTRIES[variable.name]}"] = np.ascontiguousarray(value)
            if variable.name == "moving_mean":
                # Keras has no such count; PyTorch reads it only without a momentum.
                state[f"{name}.num_batches_tracked"] = np.array(0, np.int64)
    return state


def notes(encoder: Encoder) -> str:
    """What a user of the PyTorch model must know about its input and shape."""
    config, preprocessing = encoder.config.network, encoder.preprocessing
    size = encoder.image_size
    lines = [
        f"input: RGB {size} x {size} in [0, 1], minus {list(preprocessing.mean)}, "
        f"over {list(preprocessing.std)}, channels first",
        "output, with fc = Identity: the representation",
    ]
    if config.stem == "small":
        lines.append(
            "stem: model.conv1 = Conv2d(3, C, 3, 1, 1, bias=False); "
            "model.maxpool = Identity()"
        )
    if config.width != 1.0:
        lines.append(f"width: all channels times {config.width:g}")
    return "\n".join(lines)
