"""Representations of all images below a folder.

    python -m tf_dpred.main --mode=embed --workdir=runs/quickstart \\
        --data_dir=my_images --output=features/

What is written is described in `embeddings`: the names of the files, relative to the
folder, `representation` [N, r] and `projection` [N, d], float32, and a hash of the
weights. Files that cannot be used are named and left out. The same command continues
after a kill.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import image_files, value_range
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.places import require_images
from tf_dpred.data.remote import Base
from tf_dpred.encoders import export, restore, settings
from tf_dpred.encoders.feature_store import Store, Target
from tf_dpred.records import checkpoints, flags_json
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import devices, pace
from tf_dpred.system.files import printable

BATCH = 64
SAVED_EVERY = 16 * BATCH
"""Files after which features are put on the disk, where a later process continues."""


@dataclasses.dataclass(frozen=True)
class FileEncoder:
    """Encodes image files.

    Attributes:
      model: owner of the signature's variables, which the signature does not keep.
      signature: a batch [n] of encoded images -> `representation` [n, r] and
        `projection` [n, d].
      weights: a hash of its weights; "" where an early version exported them.
      pixels: how the signature makes pixels of values.
    """

    model: tf.Module
    signature: Callable[..., dict[str, tf.Tensor]]
    weights: str
    pixels: Pixels = image_files.USUAL

    def __call__(
        self, paths: Sequence[str | os.PathLike[str]]
    ) -> dict[str, np.ndarray]:
        """Reads and encodes files.

        Args:
          paths: n files.

        Returns:
          `representation` [n, r] and `projection` [n, d], float32.

        Raises:
          tf.errors.OpError: one of them cannot be read or decoded.
        """
        known = image_files.unless_special(tf.constant([os.fsencode(p) for p in paths]))
        contents = [image_files.read(path, self.pixels) for path in known]
        outputs = self.signature(encoded=tf.stack(contents))
        return {name: value.numpy() for name, value in outputs.items()}


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=embed`: the images of `--data_dir` into `--output`.

    Raises:
      Refused: no usable image, no encoder, or an output that cannot be written.
      OSError: the output could not be written.
    """
    listing = require_images(config)
    target = Target.of(files.output)
    listing.log_losses()
    names = listing.names
    value_range.warn_of_narrow(
        config.pixels,
        value_range.look(value_range.samples(listing.root, names, config.pixels)),
    )
    encoder = open_file_encoder(config)
    with target.open(encoder.weights, names) as store:
        verb = "kept" if store.is_complete else "wrote"
        write(store, encoder, listing.root, names)
        if not store.rows:
            target.discard()
            accepted = "a folder with an image that can be used"
            refuse("data_dir", str(listing.root), accepted)
        target.finish(store)
    print(
        f"{verb} {target.path}: {store.rows} of {len(names)} images, representations "
        f"of length {store.widths['representation']}"
    )


def open_file_encoder(config: Config) -> FileEncoder:
    """Opens the encoder that `config` names, to encode files.

    It is the newest export of `--export_dir`, or the network of the checkpoint of
    `--workdir` that `--checkpoint` names; for the latest one, an export of that step is
    taken where there is one.

    Args:
      config: of `settings.of_encoder`.

    Raises:
      Refused: there is none.
    """
    devices.prepare(config.training, "float32")
    path = _export_to_use(config)
    if path is not None:
        logging.info("%s network of %s", config.evaluation.encoder, path)
        model = tf.saved_model.load(str(path))
        weights = settings.read_card(path).get("weights", "")
        signature = model.signatures["encode_jpeg"]
        return FileEncoder(model, signature, weights, Pixels.of(config))
    found = restore.open_encoder(config)
    servable = export.Servable.of(found)
    signature = servable.signatures()["encode_jpeg"]
    return FileEncoder(servable, signature, found.fingerprint, Pixels.of(config))


def _export_to_use(config: Config) -> Path | None:
    which, export_dir = config.evaluation.encoder, config.evaluation.export_dir
    if config.evaluation.checkpoint != "last":
        return None
    path = settings.find_export(Path(export_dir or config.training.workdir))
    if path is None:
        return None
    card = settings.read_card(path)
    # The SavedModel may be one that did not work, and be left out.
    if card["encoder"] != which or not (path / "saved_model.pb").exists():
        return None
    if export_dir:
        return path
    workdir = Workdir(config.training.workdir)
    record = flags_json.read(workdir) or {}
    if card.get("run") not in (None, record.get("run")):
        logging.warning("%s is of the run %s: not used", path, card["run"])
        return None
    saved = checkpoints.list_all(workdir.checkpoints)
    is_latest = not saved or checkpoints.step_of(saved[-1]) == card["step"]
    return path if is_latest else None


def write(store: Store, encode: FileEncoder, root: Base, names: list[str]) -> None:
    """Adds to a store what it lacks of the features of files.

    Args:
      store: of these names.
      encode: of `open_file_encoder`.
      root: folder that the names are relative to.
      names: of files; those that cannot be used are left out.

    Raises:
      OSError: the disk is full, or the like.
    """
    left = range(store.done, len(names), BATCH)
    for start in pace.logged(left, len(names) - store.done, each=BATCH):
        for part, outputs in embed(encode, root, names[start : start + BATCH]):
            store.append(part, outputs)
        done = min(start + BATCH, len(names))
        if done % SAVED_EVERY == 0 or done == len(names):
            store.save(done)


def embed(
    encode: FileEncoder, root: Base, names: list[str]
) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """Encodes image files, in batches; file by file where one cannot be used.

    Args:
      encode: of `open_file_encoder`.
      root: folder that the names are relative to.
      names: of files.

    Yields:
      The names of n files that could be used, in the same order; `representation`
      [n, r] and `projection` [n, d] of these, float32.
    """
    for start in range(0, len(names), BATCH):
        yield from _encoded(encode, root, names[start : start + BATCH])


def _encoded(
    encode: FileEncoder, root: Base, names: list[str]
) -> list[tuple[list[str], dict[str, np.ndarray]]]:
    """Encodes a batch; file by file if one of them cannot be used."""
    try:
        return [(names, encode([root / name for name in names]))]
    except tf.errors.OpError as error:
        if not (
            isinstance(error, tf.errors.InvalidArgumentError)  # cannot be decoded
            or image_files.is_of_the_system(error)
        ):
            raise
        if len(names) == 1:
            path = root / names[0]
            reason = image_files.problem(path, encode.pixels)
            reason = reason or image_files.reason_of(error)
            logging.warning("left out %s: %s", printable(names[0]), reason)
            return []
    return [pair for name in names for pair in _encoded(encode, root, [name])]
