"""`--mode=compile`: a run's training step as a program that needs no TensorFlow.

    python -m tf_dpred.main --mode=compile --recipe=quickstart --output=compiled
    python tools/pjrt_run.py compiled --workdir=runs/default

OUTPUT/
  program.json        what is what: names, shapes, dtypes, flags, versions, checksums
  step.stablehlo      state, images, draws -> state, logs
  forward.stablehlo   the online network's representation, for kNN
  state.npz           the state that the training starts from
  images.npz          all training images, uint8 [N, H, W, 3]
  knn.npz             labelled images, searched and classified; if there are any
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.callbacks.knn_monitor import KNNMonitor
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data.device_views import ViewsFromImages, ViewsFromIndices
from tf_dpred.data.random_views import NUM_DRAWS
from tf_dpred.records import provenance
from tf_dpred.records.state import training_state
from tf_dpred.step import stablehlo
from tf_dpred.step.stablehlo import Program
from tf_dpred.system import files, json_files
from tf_dpred.train import Pretraining

FORMAT_VERSION = 1
MANIFEST = "program.json"


def run(config: Config, given: FilesConfig) -> None:
    """Runs `--mode=compile`: of the state in `--workdir`, or of the start.

    Raises:
      Refused: an output that cannot be written, several devices, or images that are
        not of one size.
    """
    directory = _directory(given.output)
    training = Pretraining(config)
    try:
        write(training, directory)
    finally:
        training.lock.release()
    size = sum(path.stat().st_size for path in directory.iterdir())
    print(f"compiled into {directory} ({size / 1e6:.1f} MB)")


def _directory(output: str | None) -> Path:
    """The directory of `--output`: new, empty, or of an earlier `--mode=compile`."""
    path = Path(output or "")
    ours = (path / MANIFEST).is_file()
    if not output or (path.exists() and not ours and not _is_empty(path)):
        refuse("output", output, "a new directory, or one of --mode=compile")
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).unlink(missing_ok=True)  # until all of it is there
    except OSError as error:
        refuse("output", output, f"a directory that can be written ({error.strerror})")
    return path


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def write(training: Pretraining, directory: Path) -> None:
    """Writes the directory.

    Args:
      training: opened, with `--augment_on=device --cache=device`; not trained.
      directory: that exists.

    Raises:
      Refused: several devices.
      OSError: a file could not be written; the directory is without a manifest.
    """
    config = training.config
    if training.strategy.num_replicas_in_sync > 1:
        refuse(
            "strategy",
            config.training.strategy,
            "one with --mode=compile; tools/pjrt_run.py divides the batch over devices",
        )
    logging.info("compiling the step and the forward pass")
    programs = {"step": step(training), "forward": forward(training)}
    for name, program in programs.items():
        with files.whole(directory / f"{name}.stablehlo") as file:
            file.write(program.bytecode)
    state = {name: value.numpy() for name, value in _values(programs).items()}
    files.write_arrays(directory / "state.npz", state)
    images = {"images": _held(training).stored.numpy()}
    _write_compressed(directory, "images", images)
    labelled = _labelled(training)
    if labelled:
        _write_compressed(directory, "knn", labelled)
    json_files.write(directory / MANIFEST, _manifest(training, directory, programs))


def _held(training: Pretraining) -> ViewsFromIndices:
    """The images of `--cache=device`, and what is made of them."""
    held = training.feed.make_views
    if not isinstance(held, ViewsFromIndices):
        refuse("cache", training.config.data.cache, "device with --mode=compile")
    return held


def step(training: Pretraining) -> Program:
    """The training step: images and draws -> the program's logs, and the new state."""
    config, model = training.config, training.model
    held = _held(training)
    emas = [c for c in training.callbacks.in_order if isinstance(c, TargetEMA)]
    for ema in emas:
        ema.set_model(model)
    # The images themselves are the program's input, not their indices.
    model.make_views = ViewsFromImages(held.pair, held.size)
    model.set_projections(compiled=True)
    batch, image = config.training.batch_size, held.stored.shape[1:]
    draws = tf.TensorSpec([batch, NUM_DRAWS], tf.float32)
    inputs = {
        "images": tf.TensorSpec([batch, *image], tf.uint8),
        "draws1": draws,
        "draws2": draws,
    }

    def one_step(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        done = tf.cast(model.optimizer.iterations.value, tf.float32)
        logs = model.train_step(tensors)
        # The rate of the next step and the tau of this one, as the program shows them.
        logs["lr"] = tf.convert_to_tensor(model.optimizer.learning_rate)
        for ema in emas:
            logs["tau"] = tf.convert_to_tensor(ema.schedule(done), tf.float32)
        return {f"logs/{name}": value for name, value in logs.items()}

    return stablehlo.export(one_step, inputs, training_state(model), updates=True)


def forward(training: Pretraining) -> Program:
    """The online network in inference: images -> representation."""
    config, model = training.config, training.model
    size = config.data.image_size
    shape = [config.training.batch_size, size, size, 3]
    return stablehlo.export(
        lambda images: {"representation": model(images, training=False)},
        {"images": tf.TensorSpec(shape, tf.uint8)},
        training_state(model),
        updates=False,
    )


def _values(programs: Mapping[str, Program]) -> dict[str, tf.Tensor]:
    """The first value of each argument that is no input; two programs share names."""
    found: dict[str, tf.Tensor] = {}
    for name, program in programs.items():
        for argument, value in program.values.items():
            if argument.startswith("unsaved/") and name != "step":
                raise ValueError(f"Invalid {name}: it reads {argument}.")
            found[argument] = value
    return found


def _labelled(training: Pretraining) -> dict[str, np.ndarray]:
    """The kNN monitor's images, as the network gets them, and their labels."""
    found = {}
    for monitor in training.callbacks.in_order:
        if isinstance(monitor, KNNMonitor):
            for name, batches in (("bank", monitor.bank), ("test", monitor.test)):
                images, labels = zip(*batches.as_numpy_iterator(), strict=True)
                found[name] = np.concatenate(images)
                found[f"{name}_labels"] = np.concatenate(labels)
    return found


def _write_compressed(directory: Path, name: str, arrays: dict[str, Any]) -> None:
    with files.whole(directory / f"{name}.npz") as file:
        np.savez_compressed(file, **arrays)


def _manifest(
    training: Pretraining, directory: Path, programs: Mapping[str, Program]
) -> dict[str, Any]:
    config, model = training.config, training.model
    names = {id(v): name for name, v in training_state(model).items()}
    # What an epoch's line says beside the logs of its last step.
    shown = {}
    if config.training.on_nonfinite == "skip":
        shown["skipped_updates"] = names[id(model.finite.count)]
    if model.loss_scale is not None:
        shown["loss_scale"] = names[id(model.loss_scale.scale)]
        shown["dropped_steps"] = names[id(model.loss_scale.dropped)]
    named = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return {
        "format_version": FORMAT_VERSION,
        "programs": {
            name: {"arguments": program.arguments, "results": program.results}
            for name, program in programs.items()
        },
        "saved": sorted(names.values()),
        "counter": names[id(model.optimizer.iterations)],
        "not_finite": names[id(model.finite.first_step)],
        "shown": shown,
        "steps_per_epoch": training.steps_per_epoch,
        "num_classes": training.source.num_classes,
        "may_change": sorted(provenance.MAY_CHANGE),
        "record": provenance.record(config, training.source, training.own),
        "sha256": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in named
        },
    }
