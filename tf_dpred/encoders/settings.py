"""The settings of a trained encoder: read before TensorFlow and Keras are imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_dpred.config import (
    Config,
    NetworkConfig,
    PixelConfig,
    SecondViewConfig,
    ViewConfig,
    expand_paths,
    refuse,
)
from tf_dpred.records import flags_json
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import json_files

# The format of an export, its model card, and what is read of that.
EXPORT_VERSION = 1
CARD = "model_card.json"
_CARD_SHAPE = {
    "encoder": str,
    "step": int,
    "flags": {str: Any},
    "weights?": str,
    "run?": (str, None),
    "own?": {str: Any},
}
# Settings that mean nothing on another machine.
_OF_THE_MACHINE = ("strategy", "tpu", "logical_cpus")
# Stands after the name of images that a program gave to a run, which no data set has.
BY_A_PROGRAM = " (given by a program)"
# Settings that mean nothing for another data set.
_OF_THE_DATASET = (
    "data_dir",
    "columns",
    "split",
    "train_size",
    "eval_train_split",
    "eval_test_split",
)


def of_encoder(given: Mapping[str, Any]) -> Config:
    """The settings of an encoder's own run, changed by those that are given.

    So `--mode=linear_eval --workdir=W` needs no other flag. Another `dataset` drops
    what was recorded of the old one (directory, splits). Images that a program gave to
    the run cannot be opened: `dataset` then says so, unless it is given. With
    `export_dir` and no `workdir`, results are written into the export.

    Args:
      given: flat name -> value, as on the command line.

    Raises:
      Refused: no run or export there, or a given setting that contradicts the
        network that was trained.
    """
    given = expand_paths(given)
    trained = recorded(given)
    # Where it was trained says nothing about where it is used.
    merged = {k: v for k, v in trained.items() if k not in _OF_THE_MACHINE}
    if given.get("export_dir") is not None:
        merged["workdir"] = str(newest_export(Path(given["export_dir"])))
    merged = _changed(merged, given, own(given).get("source"))
    # What the run found by itself stands in its record.
    if (given.get("channels"), trained["channels"]) == (3, None):
        given = {k: v for k, v in given.items() if k != "channels"}
    if given.get("value_range") in ("auto", "percentile"):
        given = {k: v for k, v in given.items() if k != "value_range"}
    config = Config.from_dict({**merged, **given})
    sections = (NetworkConfig, PixelConfig, ViewConfig, SecondViewConfig)
    fixed = [field.name for kind in sections for field in dataclasses.fields(kind)]
    of_images = ("image_size", "views", "view_strength", "normalize", "mean", "std")
    for name in (*fixed, *of_images):
        if name in given and given[name] != trained[name]:
            refuse(name, given[name], f"{trained[name]!r}, as it was trained")
    return config


def of_directory(given: Mapping[str, Any]) -> Config:
    """The settings of the run in a given `workdir`, changed by those that are given.

    Those given alone where no directory is named, or it holds no run yet.

    Args:
      given: flat name -> value, as on the command line.

    Raises:
      Refused: see `recorded`.
    """
    given = expand_paths(given)
    name = given.get("workdir")
    if name is None or not Workdir(name).flags.exists():
        return Config.from_dict(given)
    return Config.from_dict({**_changed(recorded({"workdir": name}), given), **given})


def _changed(
    trained: dict[str, Any], given: Mapping[str, Any], by_a_program: str | None = None
) -> dict[str, Any]:
    """Those of a run's settings that also hold with the given data set.

    Args:
      trained: of the run.
      given: on the command line.
      by_a_program: name of the images where a program gave them to the run.
    """
    same = given.get("dataset", trained["dataset"]) == trained["dataset"]
    if same and by_a_program is None:
        moved = given.get("data_dir", trained["data_dir"]) != trained["data_dir"]
        # Other images may be in no list, or in one of other columns.
        return {**trained, "columns": None} if moved else trained
    kept = {k: v for k, v in trained.items() if k not in _OF_THE_DATASET}
    if by_a_program is not None:
        kept["dataset"] = by_a_program + BY_A_PROGRAM
    return kept


def recorded(given: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of the run that made an encoder, by name.

    Args:
      given: `export_dir` or `workdir`, which are looked at in this order.

    Raises:
      Refused: no run or export there, or one that this version does not know.
    """
    name, path, record = _record(given)
    found = record["flags"]
    # A setting that the run did not know yet had its default.
    defaults = Config().to_dict()
    if unknown := sorted(found.keys() - defaults.keys()):
        refuse(
            name,
            str(path),
            "one of this version of tf_dpred or of an earlier one",
            detail=f" with unknown settings ({', '.join(unknown)})",
        )
    return defaults | found


def own(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a program gave to the run, by kind, see `records.own`; as `recorded`."""
    return _record(given)[2].get("own", {})


def _record(given: Mapping[str, Any]) -> tuple[str, Path, dict[str, Any]]:
    """The flag that names an encoder, its directory, and its flags.json or card."""
    if given.get("export_dir") is not None:
        path = newest_export(Path(given["export_dir"]))
        return "export_dir", path, read_card(path)
    path = Path(given.get("workdir", Config().training.workdir))
    record = flags_json.read(Workdir(path))
    if record is None:
        refuse("workdir", str(path), "the work directory of a pre-training")
    return "workdir", path, record


def newest_export(path: Path) -> Path:
    """As `find_export`, but there must be an export.

    Raises:
      Refused: there is none.
    """
    found = find_export(path)
    if found is None:
        refuse("export_dir", str(path), "a directory written by --mode=export")
    return found


def find_export(path: Path) -> Path | None:
    """The newest export below a work directory or an `export/`, or `path` itself."""
    if (path / CARD).exists():
        return path
    for parent in (Workdir(path).export, path):
        # A user's copy has another name: "12 copy", "12.old".
        numbered = [p for p in parent.glob("[0-9]*") if p.name.isdecimal()]
        if found := [p for p in numbered if (p / CARD).exists()]:
            return max(found, key=lambda p: int(p.name))
    return None


def read_card(directory: Path) -> dict[str, Any]:
    """The model card of an export, as `card.describe` made it.

    Raises:
      Refused: it is damaged, or of a format that this version does not know.
    """
    path = directory / CARD
    card = json_files.read(path, json_files.OBJECT, "export_dir") or {}
    version = card.get("format_version")
    if version != EXPORT_VERSION:
        refuse(
            "export_dir",
            str(directory),
            str(EXPORT_VERSION),
            detail=f" of format version {version}",
        )
    json_files.read(path, _CARD_SHAPE, "export_dir")
    return card
