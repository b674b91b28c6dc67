"""Whether a run may begin, or go on, in a work directory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, refuse
from tf_dpred.data.source import Source
from tf_dpred.records import checkpoints, provenance
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import json_files, replicas
from tf_dpred.system.devices import Place


def check_is_latest(workdir: Workdir, step: int) -> None:
    """Checks that nobody trained here since this run was made or trained before.

    Raises:
      Refused: there is a checkpoint newer than `step`.
    """
    paths = checkpoints.list_all(workdir.checkpoints)
    if paths and checkpoints.step_of(paths[-1]) > step:
        refuse(
            "workdir",
            str(workdir.path),
            "a new Pretraining, which continues from there",
            detail=f" with {paths[-1].name}, which is newer than this run's step "
            f"{step}",
        )


def check_nothing_is_lost(workdir: Workdir) -> None:
    """Checks that a directory without checkpoints is not a copy that lacks them.

    Where a run had epochs but no result, it begins anew with a warning.

    Raises:
      Refused: a run ended here.
    """
    result = json_files.read(workdir.result, {"step?": int})
    if result is not None:
        refuse(
            "workdir",
            str(workdir.path),
            "one with its checkpoints, or a new workdir",
            detail=f", whose run ended at step {result.get('step', 0)} and whose "
            "checkpoints are missing",
        )
    before = json_files.read_lines(workdir.epochs, {"step": int})
    if lost := max((entry["step"] for entry in before), default=0):
        logging.warning(
            "%s has no checkpoint, though %s goes up to step %d: the run begins anew",
            workdir.path,
            workdir.epochs.name,
            lost,
        )


def name_lost_epochs(
    workdir: Workdir, entries: Sequence[dict[str, Any]], done: int
) -> None:
    """Warns of epochs that were trained and whose metrics are gone.

    A checkpoint has no curves: what a damaged or removed file lacks is lost.

    Args:
      workdir: of the run.
      entries: of epochs.jsonl.
      done: epochs up to the checkpoint.
    """
    known = {entry["epoch"] for entry in entries}
    lost = [str(epoch) for epoch in range(1, done + 1) if epoch not in known]
    if lost:
        logging.warning(
            "%s lacks epochs that were trained, whose metrics are lost: %s",
            workdir.epochs,
            ", ".join(lost),
        )


def check_workers_agree(
    strategy: tf.distribute.Strategy,
    place: Place,
    config: Config,
    step: int,
    source: Source,
    own: dict[str, Any],
) -> None:
    """Checks that all workers train one run: from one step, with the same settings.

    Args:
      strategy, place: of this worker.
      config: of the run.
      step: that this worker continues from.
      source: its images.
      own: what a program gave it, see `records.own`.

    Raises:
      Refused: another worker has something else.
    """
    settings = config.to_dict()
    names = settings.keys() - provenance.MAY_CHANGE
    # Callbacks only watch: one worker alone may have some.
    decisive = {name: value for name, value in own.items() if name != "callbacks"}
    known = [{name: settings[name] for name in names}, source.fingerprint, decisive]
    text = json.dumps(known, sort_keys=True)
    number = int(hashlib.sha256(text.encode()).hexdigest()[:10], 16)
    if not replicas.agree(strategy, [step, number]):
        refuse(
            "workdir",
            config.training.workdir,
            "one directory that all of them share, and the same flags",
            detail=f" at step {step} on worker {place.index}, and another step, other "
            "settings or other images on another worker",
        )


def check_steps_per_execution(config: Config, step: int, steps_per_epoch: int) -> None:
    """Checks that a call of several steps never runs over the end of an epoch.

    Raises:
      Refused: it would.
    """
    steps = config.training.steps_per_execution
    left = -step % steps_per_epoch
    if steps_per_epoch % steps or left % steps:
        refuse(
            "steps_per_execution",
            steps,
            f"a divisor of the {steps_per_epoch} steps of an epoch"
            + (f", and of the {left} that are left of this one" if left else ""),
        )
