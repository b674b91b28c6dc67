"""flags.json: what a run was asked for, on which images, and what computed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, EvaluationConfig, refuse
from tf_dpred.data.source import Source
from tf_dpred.records import flags_json
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import devices, json_files

# Settings that a continued run may change: they decide how long it goes on (schedules
# follow `epochs`), what is watched and where things lie.
MAY_CHANGE = frozenset(
    {
        "background_checkpoints",
        "checkpoint_every",
        "data_dir",
        "epochs",
        "keep_best",
        "keep_checkpoints",
        "log_every",
        "max_bad_images",
        "profile",
        "remat",
        "steps_per_execution",
        "tpu",
        "worker_timeout",
        "workdir",
    }
) | {field.name for field in dataclasses.fields(EvaluationConfig)}


def write(
    workdir: Workdir,
    config: Config,
    source: Source,
    run: str | None = None,
    own: Mapping[str, Any] | None = None,
) -> None:
    """Records the settings, the run, what its images are, and what computes.

    Args:
      run: identity of the run, which its checkpoints carry as well.
      own: what a program gave it beside its settings, see `own`.
    """
    identity = {} if run is None else {"run": run}
    json_files.write(workdir.flags, {**identity, **record(config, source, own)})


def record(
    config: Config, source: Source, own: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What `write` writes, but for the run's identity."""
    return {
        "flags": config.to_dict(),
        "num_examples": source.num_examples,
        "images": source.fingerprint,
        **({"own": dict(own)} if own else {}),
        **_what_computes(),
    }


def settled(workdir: Workdir, config: Config) -> Config:
    """The settings of a run, with what it found by itself at its start.

    That is the precision where `config` says `auto`, the mean and std that it measured
    where it says `--normalize=data`, and the range and channels of its images: a run
    that is continued keeps them, on any device. Those that are not measured yet are
    left None.
    """
    recorded = (flags_json.read(workdir) or {}).get("flags", {})
    found: dict[str, Any] = {}
    if config.training.precision == "auto":
        here = devices.precision_of(config.training)
        found["precision"] = recorded.get("precision") or here
        began = ", as it began" if recorded else ""
        logging.info("--precision=auto: %s%s", found["precision"], began)
    if config.data.normalize == "data":
        names = [n for n in ("mean", "std") if getattr(config.data, n) is None]
        found |= {name: recorded.get(name) for name in names}
    if config.pixels.value_range in ("auto", "percentile"):
        found["value_range"] = recorded.get("value_range", config.pixels.value_range)
    if config.pixels.channels is None:
        found["channels"] = recorded.get("channels")
    return Config.from_dict({**config.to_dict(), **found}) if found else config


def check_settings(workdir: Workdir, config: Config) -> None:
    """Refuses to continue a run under settings that would make it another one.

    Raises:
      Refused: lists what differs from `flags.json`.
    """
    record = flags_json.read(workdir)
    if record is None:
        return
    # A setting that did not exist when the run began had its default.
    recorded = {**Config().to_dict(), **record["flags"]}
    differing = [
        f"{name}: {recorded[name]!r} -> {value!r}"
        for name, value in config.to_dict().items()
        if name not in MAY_CHANGE and recorded[name] != value
    ]
    if differing:
        refuse(
            "workdir",
            str(workdir.path),
            "the same settings, or a new workdir",
            detail=f", which holds a run with other settings ({'; '.join(differing)})",
        )


def check_images(workdir: Workdir, source: Source) -> None:
    """Refuses to continue a run on other images: its epochs would mix two data sets.

    Raises:
      Refused: their number or their fingerprint differs.
    """
    record = flags_json.read(workdir) or {}
    number = record.get("num_examples", source.num_examples)
    images = record.get("images", source.fingerprint)
    if (number, images) != (source.num_examples, source.fingerprint):
        refuse(
            "workdir",
            str(workdir.path),
            "the same images, or a new workdir",
            detail=f", which holds a run on {number} other images "
            f"({source.num_examples} now; a folder is told by the names in it)",
        )


def changes(workdir: Workdir, config: Config) -> list[str]:
    """What differs from the run's last start in versions, environment and devices.

    And in the training step, where a run of an early version had another one.

    The run can go on, but its numbers may be rounded in another way. What was not
    recorded at that start is not compared.

    Returns:
      A line for each difference: "tensorflow: 2.20.0 -> 2.21.0".
    """
    record = flags_json.read(workdir) or {}
    found = []
    if "run" not in record and not config.objective.symmetric_loss:
        found.append("--nosymmetric_loss: F of both views -> F of view 1 alone")
    for part, now in _what_computes().items():
        if part not in record:
            continue
        before = record[part]
        if isinstance(now, list):
            now, before = ({part: ", ".join(names)} for names in (now, before))
        found += [
            f"{name}: {before[name] or 'not set'} -> {now[name] or 'not set'}"
            for name in now.keys() & before.keys()
            if now[name] != before[name]
        ]
    return sorted(found)


def _what_computes() -> dict[str, Any]:
    return {
        "versions": devices.versions(),
        "environment": devices.environment(),
        "devices": [d.name for d in tf.config.list_logical_devices()],
    }
