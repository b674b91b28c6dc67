"""Makes a small copy of a folder of large photographs, once, to train on.

    python -m tf_dpred.main --mode=shrink_images --data_dir=my_photos --output=small
    python -m tf_dpred.main --recipe=folder --data_dir=small

Decoding a photograph of 24 million pixels takes a hundred times as long as the views of
224 that are made of it, and every epoch does it again. The copy holds a JPEG for each
image, upright, its short side `--short_side` (smaller images keep their size), in the
same sub-folders, as NAME.EXTENSION.jpg. What is there already is not made again, so an
interrupted start continues. Files that cannot be used are named and left out.
Of a list of files, `images.csv` beside the copies names them, with their labels and
splits; those that lie elsewhere than below the list are copied into `elsewhere`.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from pathlib import Path

import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import (
    contents,
    image_files,
    layout,
    places,
    remote,
    value_range,
)
from tf_dpred.data.decoders import file_of
from tf_dpred.data.listing import Found, Listing
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.places import require_images
from tf_dpred.data.remote import Base
from tf_dpred.system import json_files, pace
from tf_dpred.system.files import printable, whole

RECORD = "shrink_images.json"
LIST = "images.csv"
MAX_SIDE = 65_500
"""Of a JPEG, in libjpeg."""


def run(config: Config, files: FilesConfig) -> int:
    """Runs `--mode=shrink_images` from `--data_dir` to `--output`.

    Returns:
      0, or 1 if some files were left out.

    Raises:
      Refused: no images in the folder, or an output that cannot take the copies.
      OSError: a copy could not be written; the same command continues.
    """
    listing = require_images(config)
    target = _target(files.output, listing)
    remember(target, files)
    listing.log_losses()
    config = value_range.settled(
        config, value_range.samples(listing.root, listing.names, config.pixels)
    )
    counts = copy(listing.root, target, listing.names, files, Pixels.of(config))
    if listing.is_list:
        _write_list(target, listing)
    print("{} images: {} written, {} there before, {} left out".format(*counts))
    return 1 if counts[3] else 0


def _target(output: str | None, source: Found) -> Path:
    target = Path(output or "")
    listings = [p for p in places.parts_of(source) if isinstance(p, Listing)]
    folders = [part.root for part in listings]
    if (
        not output
        or (target.exists() and not target.is_dir())
        or any(target.resolve().is_relative_to(root.resolve()) for root in folders)
    ):
        refuse("output", output, f"a folder outside of {source.called}")
    return target


def _write_list(target: Path, source: Found) -> None:
    """Writes which copies there are, of what class and in which split."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(("path", "label", "split"))
    for name, split in places.splits(source).items():
        labels = layout.classes(name, split) or itertools.repeat(None)
        for file, label in zip(split.names, labels, strict=False):
            if (copied := _copy_of(target, file)).exists():
                lines.writerow((copied.relative_to(target), label, name))
    with whole(target / LIST) as written:
        written.write(os.fsencode(text.getvalue()))


def _copy_of(target: Path, name: str) -> Path:
    """Where the copy of an image goes: below `target`, whatever its name."""
    if os.path.isabs(name) or remote.is_remote(name) or ".." in Path(name).parts:
        parts = [part for part in Path(name).parts if part not in ("..", os.sep)]
        return target.joinpath("elsewhere", *parts[:-1], f"{parts[-1]}.jpg")
    return target / f"{name}.jpg"


def remember(target: Path, files: FilesConfig) -> None:
    """Writes the settings into the folder of the copies.

    Raises:
      Refused: it holds copies of other settings.
    """
    record = target / RECORD
    before = json_files.read(record, {"short_side": int, "quality": int}, "output")
    settings = {"short_side": files.short_side, "quality": files.quality}
    if before is None:
        target.mkdir(parents=True, exist_ok=True)
        json_files.write(record, settings)
        return
    for name, given in settings.items():
        if given != before[name]:
            refuse(
                name,
                given,
                f"{before[name]}, with which {target} was made, or another --output",
            )


def copy(
    source: Base,
    target: Path,
    names: list[str],
    files: FilesConfig,
    pixels: Pixels = image_files.USUAL,
) -> tuple[int, int, int, int]:
    """Writes the copies.

    Args:
      source: folder of the images.
      target: folder of the copies.
      names: of the images, relative to `source`.
      files: `short_side` and `quality` are read.
      pixels: how the values of the images become pixels.

    Returns:
      How many images there are, were written, were there before, and were left out.
    """
    wanted = [n for n in names if not _copy_of(target, n).exists()]
    readable = [
        name
        for name in wanted
        if contents.may_be_read(file_of(str(remote.join(source, name)))[0])
    ]
    for name in sorted(set(wanted) - set(readable)):
        logging.warning("left out %s: may not be read", printable(name))
    written = 0
    paths = [os.fsencode(source / name) for name in readable]
    jpegs = tf.data.Dataset.from_tensor_slices(paths or tf.constant([], tf.string)).map(
        lambda path: shrunk(path, files.short_side, files.quality, pixels),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    made = pace.logged(jpegs.as_numpy_iterator(), len(readable))
    for name, jpeg in zip(readable, made, strict=True):
        if not jpeg:
            reason = image_files.problem(source / name, pixels)
            if reason is None:
                # It was read this time, or it is its copy that cannot be made.
                encoded = os.fsencode(source / name)
                jpeg = shrunk(encoded, files.short_side, files.quality, pixels).numpy()
                reason = f"a copy of more than {MAX_SIDE:,} pixels in a row or column"
        if not jpeg:
            logging.warning("left out %s: %s", printable(name), reason)
            continue
        path = _copy_of(target, name)
        if path.exists():  # it was not when this began
            logging.warning(
                "left out %s: a file system that ignores case holds another's copy "
                "under that name",
                printable(name),
            )
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(jpeg)
        written += 1
    return len(names), written, len(names) - len(wanted), len(wanted) - written


def shrunk(
    path: tf.Tensor,
    short_side: int,
    quality: int,
    pixels: Pixels = image_files.USUAL,
) -> tf.Tensor:
    """The JPEG of an image file with its short side at most so long.

    Args:
      path: string scalar.
      short_side: in pixels.
      quality: of the JPEG, 1 to 100.
      pixels: how values become pixels.

    Returns:
      A string scalar; empty where the file cannot be used, or its copy would be larger
      than a JPEG can be.
    """
    image = image_files.decode_or_empty(
        image_files.read_or_empty(image_files.unless_special(path), pixels), pixels
    )

    def encoded() -> tf.Tensor:
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        scale = short_side / tf.reduce_min(size)

        def resized() -> tf.Tensor:
            wanted = tf.cast(tf.round(scale * size), tf.int32)
            return tf.cast(tf.round(tf.image.resize(image, wanted, "area")), tf.uint8)

        small = tf.cond(scale < 1.0, resized, lambda: image)
        return tf.cond(
            tf.reduce_max(tf.shape(small)) <= MAX_SIDE,
            lambda: tf.io.encode_jpeg(small, quality=quality),
            lambda: tf.constant(b""),
        )

    return tf.cond(tf.size(image) > 0, encoded, lambda: tf.constant(b""))
