"""Representations of all images below a folder, by an export.

    python tools/embed.py runs/quickstart my_images features.npz

The first argument is a directory that --mode=export wrote (`.../export/1760`), or a
work directory, whose newest export is taken. The file holds `files` (relative to the
folder), `representation` [N, r] and `projection` [N, d], float32. Files that cannot be
decoded are named and left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_dpred.system import quiet

with quiet.start():
    import tensorflow as tf

    from tf_dpred.data import folder as image_folder
    from tf_dpred.data import image_files
    from tf_dpred.encoders.settings import newest_export
    from tf_dpred.system.files import printable

BATCH = 64


def encode(
    signature, folder: Path, files: list[str]
) -> list[tuple[list[str], dict[str, np.ndarray]]]:
    """Encodes a batch; one by one where a file of it cannot be decoded.

    Args:
      signature: `encode_jpeg` of a loaded export.
      folder: that the paths are relative to.
      files: paths.

    Returns:
      (files, outputs) pairs of what could be encoded.
    """
    try:
        return [(files, _outputs(signature, folder, files))]
    except tf.errors.InvalidArgumentError as error:
        if len(files) == 1:
            reason = image_files.reason_of(error)
            print(f"left out {printable(files[0])}: {reason}", file=sys.stderr)
            return []
    return [pair for file in files for pair in encode(signature, folder, [file])]


def _outputs(signature, folder: Path, files: list[str]) -> dict[str, np.ndarray]:
    contents = tf.stack([image_files.read(os.fsencode(folder / f)) for f in files])
    return {name: x.numpy() for name, x in signature(encoded=contents).items()}


def embed(export: Path, folder: Path) -> dict[str, np.ndarray]:
    """`files`, `representation` and `projection` of a folder's images.

    Raises:
      ValueError: no export, or no image that can be decoded.
    """
    files = image_folder.require_images(folder)
    encoder = tf.saved_model.load(str(newest_export(export)))
    signature = encoder.signatures["encode_jpeg"]
    done, outputs = [], []
    start = shown = time.monotonic()
    for first in range(0, len(files), BATCH):
        for kept, found in encode(signature, folder, files[first : first + BATCH]):
            done += kept
            outputs.append(found)
        seen, now = min(first + BATCH, len(files)), time.monotonic()
        if now - shown > 1 or seen == len(files):
            speed = seen / (now - start)
            print(f"{seen}/{len(files)} images, {speed:.0f}/s", file=sys.stderr)
            shown = now
    if not done:
        raise ValueError(f"no image in {folder} could be decoded.")
    arrays = {name: np.concatenate([o[name] for o in outputs]) for name in outputs[0]}
    return {"files": np.array(done), **arrays}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path, help="export or work directory")
    parser.add_argument("folder", type=Path, help="images, in any sub-folders")
    parser.add_argument("output", type=Path, help="npz file to write")
    given = parser.parse_args(arguments)
    try:
        arrays = embed(given.export, given.folder)
    except ValueError as error:
        sys.exit(f"embed: {error}")
    np.savez(given.output, **arrays)
    shape = arrays["representation"].shape
    print(f"wrote {given.output}: {shape[0]} representations of length {shape[1]}")


if __name__ == "__main__":
    main()
