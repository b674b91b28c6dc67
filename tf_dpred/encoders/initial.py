"""Weights of another training, from which both networks of a run start (`--init`)."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from tf_dpred.config import Config, applications, refuse
from tf_dpred.encoders import restore, torch
from tf_dpred.networks import backbones
from tf_dpred.networks.encoder import backbone_weights, weights_by_layer
from tf_dpred.networks.resnet import ARCHITECTURES
from tf_dpred.records import checkpoints
from tf_dpred.records.workdir import Workdir

ACCEPTED = (
    "a .keras, .h5 or .weights.h5 file of a Keras model, a .pth, .pt or .npz file of a "
    "torchvision ResNet, a work directory, an export, imagenet, or imagenet:FILE"
)
# A network to which less of its backbone is given than this does not start from it.
LEAST_SHARE = 0.5
# Layers that a message names, of each kind.
NAMED = 8

# PyTorch and TensorFlow in one process may crash.
_IN_TORCH = """
import sys, numpy, torch
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
for name in ("state_dict", "model"):
    state = state.get(name, state)
arrays = {k: v.float().numpy() for k, v in state.items() if hasattr(v, "numpy")}
numpy.savez(sys.argv[2], **arrays)
"""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Arrays that were read, by (layer, variable), in the order of their network.

    Attributes:
      origin: what was read, for messages.
      arrays: such as ("stage1_block1_conv1", "kernel") -> [3, 3, 64, 64].
    """

    origin: str
    arrays: Mapping[tuple[str, str], np.ndarray]

    def assign(self, network: keras.Model) -> None:
        """Gives the network what fits it, and logs all that does not.

        A variable takes the array of its layer's and its own name. Where Keras numbered
        the layers of a backbone, it takes the array of its place instead.

        Args:
          network: of `networks.encoder.join`.

        Raises:
          Refused: less than half of the backbone's variables get an array.
        """
        own = weights_by_layer(*network.layers)
        inner = backbone_weights(network)
        arrays = self._by_place(inner) or self.arrays
        fitting = {
            key
            for key, variable in own.items()
            if key in arrays and arrays[key].shape == tuple(variable.shape)
        }
        found = len(fitting & inner.keys())
        if found < LEAST_SHARE * len(inner):
            refuse(
                "init",
                self.origin,
                "weights of a backbone like that of this run",
                detail=f", which has {found} of the {len(inner)} arrays of this one "
                f"(without {_layers(inner.keys() - fitting)})",
            )
        for key in fitting:
            own[key].assign(arrays[key])
        logging.info(
            "%s starts from %s: %d of %d arrays of the backbone, %d of %d behind it",
            network.name,
            self.origin,
            found,
            len(inner),
            len(fitting) - found,
            len(own) - len(inner),
        )
        if new := inner.keys() - fitting:
            logging.warning("--init: not found, so random: %s", _layers(new))
        if left := arrays.keys() - fitting:
            logging.info("--init: not used: %s", _layers(left))

    def _by_place(self, inner) -> Mapping[tuple[str, str], np.ndarray] | None:
        """The arrays by the names of `inner`, if both are alike but for the names."""
        if inner.keys() <= self.arrays.keys():
            return None

        def kinds(arrays: Iterable) -> list[tuple[str, tuple[int, ...]]]:
            # Keras numbers the layers inside of a layer as well.
            return [
                (key[1].rpartition("/")[2], tuple(array.shape)) for key, array in arrays
            ]

        given = list(self.arrays.items())
        same, behind = given[: len(inner)], given[len(inner) :]
        if kinds(same) != kinds(inner.items()):
            return None
        renamed = zip(inner, (array for _, array in same), strict=True)
        return dict(behind) | dict(renamed)


def of_run(
    config: Config, workdir: Workdir, *, has_backbone: bool = False
) -> Weights | None:
    """What a run starts from; None without `--init`, and where it is continued.

    Args:
      config: of the run.
      workdir: of the run.
      has_backbone: a program gave it a backbone, which may be trained.

    Raises:
      Refused: see `read`.
    """
    if checkpoints.list_all(workdir.checkpoints):
        return None
    if config.network.init is None:
        if config.optimizer.projector_only_epochs and not has_backbone:
            logging.warning(
                "--projector_only_epochs without --init: there is nothing to protect, "
                "the backbone starts at random"
            )
        return None
    return read(config)


def read(config: Config) -> Weights:
    """Reads what `config.network.init` names.

    Raises:
      Refused: it cannot be read, or is of no kind that is known.
    """
    origin = config.network.init
    assert origin is not None  # the caller's condition
    if applications.is_imagenet(origin):
        return Weights(origin, _of_imagenet(config))
    path = Path(origin)
    if path.is_dir():
        found = restore.open_directory(path, "init", ACCEPTED)
        return Weights(origin, _arrays(found.network))
    if not path.is_file():
        refuse("init", origin, ACCEPTED)
    if path.suffix in (".pth", ".pt", ".npz"):
        return Weights(origin, _of_torchvision(path, config))
    if path.suffix in (".keras", ".h5"):
        return Weights(origin, _of_keras(path, config))
    refuse("init", origin, ACCEPTED)


def _arrays(model: keras.Model) -> dict[tuple[str, str], np.ndarray]:
    return {
        key: variable.numpy()
        for key, variable in weights_by_layer(*model.layers).items()
    }


def _of_keras(path: Path, config: Config) -> dict[tuple[str, str], np.ndarray]:
    try:
        if path.suffix == ".keras":
            return _arrays(keras.saving.load_model(path, compile=False, safe_mode=True))
        model = backbones.backbone(
            config.network, config.data.image_size, config.pixels.count
        )
        with _nothing_skipped():
            model.load_weights(path)
        return _arrays(model)
    except (
        ValueError,
        TypeError,
        KeyError,
        OSError,
        zipfile.BadZipFile,
        UserWarning,
    ) as error:
        reason = " ".join(str(error).split())
        refuse("init", str(path), f"a whole Keras file that fits ({reason:.300})")


@contextlib.contextmanager
def _nothing_skipped() -> Iterator[None]:
    """Makes Keras raise where it would only warn of weights that a file lacks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="(?s).*freshly-initialized")
        # For any size of images, which the weights fit as well.
        warnings.filterwarnings("ignore", message="`input_shape` is undefined")
        yield


def _of_imagenet(config: Config) -> dict[tuple[str, str], np.ndarray]:
    """The weights of `keras.applications`, from its file or fetched by Keras.

    They see the images that they were trained on: `Preprocessing.of` normalises for
    them, and what differs beside that is done to the kernel of the first convolution.
    """
    name, origin = config.network.backbone, str(config.network.init)
    file = origin.partition(":")[2]
    if file and not Path(file).is_file():
        refuse("init", origin, "imagenet:FILE of a file with these weights")
    backbones.check_name(name)
    try:
        with _nothing_skipped():
            model = backbones.of_application(name, file or applications.IMAGENET)
    # What h5py raises for another file is ValueError or OSError; what Keras raises
    # where there is no network is a bare Exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        accepted = f"the weights of {name} without its top, as imagenet:FILE"
        refuse("init", origin, accepted, detail=f" that cannot be had ({reason:.300})")
    arrays = _arrays(model)
    first = next(key for key, array in arrays.items() if array.ndim == 4)
    arrays[first] = arrays[first] * backbones.stem_scale(name)
    normalization = applications.normalization(name)
    if normalization is not None and normalization.bgr:
        arrays[first] = arrays[first][:, :, ::-1]
    return arrays


def _of_torchvision(path: Path, config: Config) -> dict[tuple[str, str], np.ndarray]:
    name = config.network.backbone
    if name not in ARCHITECTURES:
        accepted = f"a Keras file for this backbone, or {', '.join(ARCHITECTURES)}"
        refuse("init", str(path), accepted, detail=f" with --backbone={name}")
    state = _npz(path) if path.suffix == ".npz" else _torch_state(path)
    arrays = torch.from_state_dict(state)
    if not arrays:
        names = ", ".join(list(state)[:3])
        detail = f" with entries such as {names}"
        refuse("init", str(path), "a torchvision ResNet's state dict", detail=detail)
    return arrays


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        return dict(np.load(path))
    except (ValueError, OSError, EOFError, zipfile.BadZipFile):
        # NumPy advises to load the file "unsafely", which nobody should.
        refuse("init", str(path), "a whole npz file")


def _torch_state(path: Path) -> dict[str, np.ndarray]:
    if importlib.util.find_spec("torch") is None:
        accepted = "an npz file of its arrays, or with PyTorch: pip install torch"
        refuse("init", str(path), accepted)
    with tempfile.TemporaryDirectory() as directory:
        arrays = Path(directory) / "state.npz"
        done = subprocess.run(
            [sys.executable, "-c", _IN_TORCH, path, arrays],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            # PyTorch too advises to run what the file may contain.
            accepted = "a state dict that torch.load reads with weights_only=True"
            refuse("init", str(path), accepted)
        return _npz(arrays)


def _layers(keys: Iterable[tuple[Any, ...]]) -> str:
    """The layers of some arrays, in short."""
    names = sorted({key[0] for key in keys}, key=_natural)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _natural(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
