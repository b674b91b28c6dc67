"""Lists the image files below a folder that a run could not use, and why.

    python -m tf_dpred.main --mode=check_images --data_dir=my_images

Decodes every image as a run would. Prints one line for each file that cannot be used
(path, tab, reason) and logs how many can.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import contents, image_files, remote, value_range
from tf_dpred.data.decoders import file_of
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.places import require_images
from tf_dpred.data.remote import Base
from tf_dpred.system import pace
from tf_dpred.system.files import printable


def run(config: Config, files: FilesConfig) -> int:
    """Runs `--mode=check_images` on `--data_dir`.

    Returns:
      0 if all files can be used, 1 if some cannot.

    Raises:
      Refused: there is no such folder, or no image in it.
    """
    listing = require_images(config)
    root, names = listing.root, listing.names
    listing.log_opacity()
    config = value_range.settled(
        config, value_range.samples(root, names, config.pixels)
    )
    bad = 0
    for name, reason in unusable(root, names, Pixels.of(config)):
        bad += 1
        print(f"{printable(name)}\t{reason}", flush=True)
    other = listing.left_out()
    logging.info(
        "%d images can be used, %d cannot%s",
        len(names) - bad,
        bad,
        f"; not looked at: {other}" if other else "",
    )
    return 1 if bad else 0


def unusable(
    root: Base, files: Sequence[str], pixels: Pixels = image_files.USUAL
) -> Iterator[tuple[str, str]]:
    """Decodes files in parallel -> (file, reason) of those that cannot be.

    Args:
      root: that the files are relative to.
      files: to look at.
      pixels: how their values become pixels.
    """

    def can_be_used(path: tf.Tensor) -> tf.Tensor:
        content = image_files.read_or_empty(image_files.unless_special(path), pixels)
        return tf.size(image_files.decode_or_empty(content, pixels)) > 0

    readable = [
        f for f in files if contents.may_be_read(file_of(str(remote.join(root, f)))[0])
    ]
    for file in sorted(set(files) - set(readable)):
        there = os.path.lexists(file_of(str(root / file))[0])
        yield file, "may not be read" if there else "there is no such file"
    if not readable:
        return
    paths = tf.data.Dataset.from_tensor_slices(
        [os.fsencode(root / f) for f in readable]
    )
    usable = paths.map(can_be_used, num_parallel_calls=tf.data.AUTOTUNE)
    found = pace.logged(usable.as_numpy_iterator(), len(readable))
    for file, good in zip(readable, found, strict=True):
        reason = None if good else image_files.problem(root / file, pixels)
        if reason is not None:
            yield file, reason
