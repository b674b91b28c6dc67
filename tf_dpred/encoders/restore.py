"""Trained encoders, opened from a work directory or from an export."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import zipfile
from pathlib import Path

import keras
from absl import logging

from tf_dpred.config import Config, refuse
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.encoders import settings
from tf_dpred.encoders.formats import KERAS_FILE
from tf_dpred.networks import backbones, given
from tf_dpred.networks.encoder import network
from tf_dpred.networks.given import Backbone
from tf_dpred.records import checkpoints, flags_json, own
from tf_dpred.records.state import named
from tf_dpred.records.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder in float32 with everything needed to feed it.

    Attributes:
      network: images [n, s, s, 3] in [0, 255] -> (representation [n, r], projection
        [n, d]); from an export, without projector: -> representation.
      config: of the pre-training.
      which: `online`, `target` or `untrained`.
      step: optimizer steps it was trained for.
      backbone: makes the backbone that a program gave to the run; None: the settings'.
    """

    network: keras.Model
    config: Config
    which: str
    step: int
    backbone: Backbone | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """Central crop, interpolation and normalisation of its images."""
        return Preprocessing.of(self.config)

    @property
    def image_size(self) -> int:
        return self.config.data.image_size

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the weights without the projector."""
        digest = hashlib.sha256()
        for value in self.bare().get_weights():
            digest.update(value.tobytes())
        return digest.hexdigest()[:16]

    def bare(self) -> keras.Model:
        """Images -> representation, sharing the network's weights."""
        network = self.network
        return keras.Model(network.inputs, network.outputs[0], name="encoder")

    def copy(self) -> keras.Model:
        """A new model images -> representation with equal weights."""
        return backbones.with_own_layers(self.bare())


def open_encoder(config: Config, backbone: Backbone | None = None) -> Encoder:
    """The encoder that `config` names; Keras' precision must be float32.

    Args:
      config: of `settings.of_encoder`: `workdir` or `export_dir`, and `encoder`.
      backbone: that of the run, where it was given one that could not be stored.

    Raises:
      Refused: there is no such encoder, or its files are damaged.
    """
    evaluation = config.evaluation
    recorded = Config.from_dict(settings.recorded(config.to_dict()))
    if backbone is None:
        backbone = _own_backbone(config)
    if evaluation.encoder == "untrained":
        return untrained(recorded, backbone)
    if evaluation.export_dir is not None:
        path = settings.newest_export(Path(evaluation.export_dir))
        return _open_export(path, recorded, evaluation.encoder, backbone)
    workdir = Path(config.training.workdir)
    return _open_workdir(
        workdir, recorded, evaluation.encoder, backbone, evaluation.checkpoint
    )


def open_directory(path: Path, flag: str, accepted: str) -> Encoder:
    """The encoder of another run's work directory, or of an export.

    Args:
      path: of the directory.
      flag, accepted: for the refusal of a directory that is neither.

    Raises:
      Refused: see `open_encoder`.
    """
    is_run = Workdir(path).flags.exists()
    if not is_run and settings.find_export(path) is None:
        refuse(flag, str(path), accepted)
    place = "workdir" if is_run else "export_dir"
    return open_encoder(settings.of_encoder({place: str(path)}))


def _own_backbone(config: Config) -> Backbone | None:
    """Loads the backbone that a program gave to the run; None where none did."""
    if "backbone" not in settings.own(config.to_dict()):
        return None
    if (path := config.evaluation.export_dir) is None:
        return lambda: own.stored_backbone(Workdir(config.training.workdir))
    return lambda: refuse(
        "export_dir",
        path,
        "its work directory, --workdir, which holds the backbone untrained",
        detail=", of a backbone that a program gave to the run",
    )


def untrained(config: Config, backbone: Backbone | None = None) -> Encoder:
    """The network that a pre-training starts from, its seed and `--init` included.

    Args:
      config: of the run.
      backbone: that a program gave to it; None: the settings'.

    Raises:
      Refused: what `--init` names is not there any more.
    """
    # Weights to start from may lie in a work directory, which this module opens.
    from tf_dpred.encoders import initial

    keras.utils.set_random_seed(config.training.seed)
    network = new_network(config, "online", backbone)
    if config.network.init is not None:
        initial.read(config).assign(network)
    return Encoder(network, config, "untrained", 0, backbone)


def new_network(
    config: Config, name: str, backbone: Backbone | None = None
) -> keras.Model:
    """A network of a run as it starts, see `encoder.network`.

    Args:
      config: of the run.
      name: `online` or `target`.
      backbone: a Keras model to use instead of `config.network.backbone`, or a function
        that makes one; see `given`.
    """
    size, channels = config.data.image_size, config.pixels.count
    if backbone is None:
        made = backbones.backbone(config.network, size, channels)
    else:
        made = given.built(backbone, size, channels)
    images = Preprocessing.of(config)
    return network(made, config.network, images.mean, images.std, name)


def _open_workdir(
    workdir: Path,
    config: Config,
    which: str,
    backbone: Backbone | None,
    checkpoint: str,
) -> Encoder:
    if which == "target" and not config.objective.ema:
        refuse("encoder", which, "online: this run has no EMA and so no target")
    path, arrays = checkpoints.find(Workdir(workdir).checkpoints, checkpoint)
    record = flags_json.read(Workdir(workdir)) or {}
    checkpoints.check_is_of(path, record.get("run"))
    network = new_network(config, which, backbone)
    for name, variable in named(which, network.variables).items():
        if name not in arrays or arrays[name].shape != tuple(variable.shape):
            refuse(
                "workdir",
                str(path),
                "a checkpoint of the run in flags.json",
                detail=f", which has no {name} of shape {tuple(variable.shape)}",
            )
        variable.assign(arrays[name])
    step = checkpoints.step_of(path)
    logging.info("%s network of %s, step %d", which, workdir, step)
    return Encoder(network, config, which, step, backbone)


def _open_export(
    path: Path, config: Config, which: str, backbone: Backbone | None
) -> Encoder:
    card = settings.read_card(path)
    if which != card["encoder"]:
        refuse("encoder", which, f"{card['encoder']}, which {path} holds, or untrained")
    try:
        network = keras.saving.load_model(path / KERAS_FILE, safe_mode=True)
    except (ValueError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        detail = f" with a {KERAS_FILE} that cannot be loaded ({reason})"
        refuse("export_dir", str(path), "an export that is whole", detail=detail)
    logging.info("%s network of %s, step %d", which, path, card["step"])
    return Encoder(network, config, which, card["step"], backbone)
