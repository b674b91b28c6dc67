"""Trained encoders, opened from a work directory or from an export."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from absl import logging

from tf_dpred.config import Config, NetworkConfig, refuse
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.networks import backbones
from tf_dpred.networks.encoder import network
from tf_dpred.records import checkpoints
from tf_dpred.records.state import named

# Of an export: its files and the keys of its card.
FORMAT_VERSION = 1
CARD = "model_card.json"
KERAS_FILE = "encoder.keras"
# What belongs to one data set, and means nothing for another.
_OF_THE_DATASET = (
    "data_dir",
    "split",
    "train_size",
    "eval_train_split",
    "eval_test_split",
)


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder in float32 with everything needed to feed it.

    Attributes:
      network: images [n, s, s, 3] in [0, 255] -> (representation [n, r], projection
        [n, d]); from an export, without projector: -> representation.
      config: of the pre-training.
      which: `online`, `target` or `untrained`.
      step: optimizer steps it was trained for.
    """

    network: keras.Model
    config: Config
    which: str
    step: int

    @property
    def preprocessing(self) -> Preprocessing:
        """Central crop, interpolation and normalisation of its images."""
        return Preprocessing.of_views(self.config.data.views)

    @property
    def image_size(self) -> int:
        return self.config.data.image_size

    @functools.cached_property
    def fingerprint(self) -> str:
        """Tells these weights, projector aside, from all others."""
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
        bare = self.bare()
        model = keras.models.clone_model(bare)
        model.set_weights(bare.get_weights())
        return model


def evaluation_config(given: Mapping[str, Any]) -> Config:
    """The settings of an encoder's own run, changed by those that are given.

    So `--mode=linear_eval --workdir=W` needs no other flag. Another `dataset` drops
    what was recorded of the old one (directory, splits). With `export_dir` and no
    `workdir`, results are written into the export.

    Args:
      given: flat name -> value, as on the command line.

    Raises:
      ValueError: no run or export there, or a given setting that contradicts the
        network that was trained.
    """
    recorded = _recorded(given)
    merged = dict(recorded)
    if given.get("export_dir") is not None:
        merged["workdir"] = str(newest_export(Path(given["export_dir"])))
    if given.get("dataset", recorded["dataset"]) != recorded["dataset"]:
        merged = {k: v for k, v in merged.items() if k not in _OF_THE_DATASET}
    config = Config.from_dict({**merged, **given})
    trained = Config.from_dict(recorded).to_dict()
    fixed = [field.name for field in dataclasses.fields(NetworkConfig)]
    for name in (*fixed, "image_size", "views", "view_strength"):
        if name in given and given[name] != trained[name]:
            refuse(name, given[name], f"{trained[name]!r}, as it was trained")
    return config


def open_encoder(config: Config) -> Encoder:
    """The encoder that `config` names; Keras' precision must be float32.

    Args:
      config: of `evaluation_config`: `workdir` or `export_dir`, and `encoder`.

    Raises:
      ValueError: nothing there, or not what it should be.
    """
    evaluation = config.evaluation
    if evaluation.export_dir is not None:
        return _open_export(Path(evaluation.export_dir), evaluation.encoder)
    recorded = Config.from_dict(_recorded(config.to_dict()))
    if evaluation.encoder == "untrained":
        return untrained(recorded)
    return _open_workdir(Path(config.training.workdir), recorded, evaluation.encoder)


def untrained(config: Config) -> Encoder:
    """The network that a pre-training starts from, its seed included."""
    keras.utils.set_random_seed(config.training.seed)
    return Encoder(_network(config, "online"), config, "untrained", 0)


def newest_export(path: Path) -> Path:
    """The newest numbered export of a work directory, an `export/`, or itself.

    Raises:
      ValueError: there is none.
    """
    if (path / CARD).exists():
        return path
    for parent in (path / "export", path):
        found = [p for p in parent.glob("[0-9]*") if (p / CARD).exists()]
        if found:
            return max(found, key=lambda p: int(p.name))
    raise ValueError(
        f"received {str(path)!r}, accepted: a directory written by --mode=export."
    )


def _recorded(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of the run that made the encoder."""
    if given.get("export_dir") is not None:
        try:
            return _card(Path(given["export_dir"]))["flags"]
        except ValueError as error:
            raise ValueError(f"--export_dir: {error}") from error
    workdir = given.get("workdir", Config().training.workdir)
    path = Path(workdir) / "flags.json"
    if not path.exists():
        refuse("workdir", workdir, "the work directory of a pre-training")
    return json.loads(path.read_text())["flags"]


def _card(path: Path) -> dict[str, Any]:
    card = json.loads((newest_export(path) / CARD).read_text())
    if card["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"received {str(path)!r} of format version {card['format_version']}, "
            f"accepted: {FORMAT_VERSION}."
        )
    return card


def _network(config: Config, name: str) -> keras.Model:
    preprocessing = Preprocessing.of_views(config.data.views)
    backbone = backbones.backbone(config.network, config.data.image_size)
    return network(
        backbone, config.network, preprocessing.mean, preprocessing.std, name
    )


def _open_workdir(workdir: Path, config: Config, which: str) -> Encoder:
    if which == "target" and not config.objective.ema:
        refuse("encoder", which, "online: this run has no EMA and so no target")
    found = checkpoints.load_latest(workdir / "checkpoints")
    if found is None:
        refuse("workdir", str(workdir), "a work directory that holds a checkpoint")
    path, arrays = found
    network = _network(config, which)
    for name, variable in named(which, network.variables).items():
        if name not in arrays or arrays[name].shape != tuple(variable.shape):
            refuse(
                "workdir",
                str(path),
                "a checkpoint of the run in flags.json",
                detail=f", which has no {name} of shape {tuple(variable.shape)}",
            )
        variable.assign(arrays[name])
    step = int(path.stem.rpartition("-")[2])
    logging.info("%s network of %s, step %d", which, workdir, step)
    return Encoder(network, config, which, step)


def _open_export(path: Path, which: str) -> Encoder:
    card = _card(path)
    path = newest_export(path)
    if which not in ("untrained", card["encoder"]):
        refuse("encoder", which, f"{card['encoder']}, which {path} holds, or untrained")
    config = Config.from_dict(card["flags"])
    if which == "untrained":
        return untrained(config)
    network = keras.saving.load_model(path / KERAS_FILE, safe_mode=True)
    logging.info("%s network of %s, step %d", which, path, card["step"])
    return Encoder(network, config, which, card["step"])
