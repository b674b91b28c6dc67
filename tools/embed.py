"""Representations of all images below a folder, by an export.

    python tools/embed.py runs/quickstart my_images features.npz

The first argument is a directory that --mode=export wrote (`.../export/660`), or a work
directory, whose newest export is taken. The file holds `files` (paths relative to the
folder), `representation` [N, r] and `projection` [N, d], float32. Files that cannot be
decoded are named and left out.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from tf_dpred.data.folder import EXTENSIONS  # noqa: E402
from tf_dpred.restore import newest_export  # noqa: E402

BATCH = 64


def image_files(folder: Path) -> list[str]:
    """Paths of the images below a folder, relative to it, sorted.

    Raises:
      ValueError: there is none.
    """
    found = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    )
    if not found:
        raise ValueError(
            f"received {str(folder)!r}, accepted: a folder with images "
            f"({', '.join(EXTENSIONS)})."
        )
    return found


def encode(
    signature, folder: Path, files: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
    """Encodes files in batches; yields those that could be, and their outputs.

    Args:
      signature: `encode_jpeg` of a loaded export.
      folder: that the paths are relative to.
      files: paths.
    """
    for start in range(0, len(files), BATCH):
        batch = list(files[start : start + BATCH])
        try:
            yield batch, _outputs(signature, folder, batch)
        except tf.errors.InvalidArgumentError:
            # One bad file fails its batch: find it.
            for file in batch:
                try:
                    yield [file], _outputs(signature, folder, [file])
                except tf.errors.InvalidArgumentError as error:
                    reason = [line for line in error.message.splitlines() if line][-1]
                    print(f"left out {file}: {reason.strip()}", file=sys.stderr)


def _outputs(signature, folder: Path, files: list[str]) -> dict[str, np.ndarray]:
    contents = tf.constant([(folder / file).read_bytes() for file in files])
    return {name: x.numpy() for name, x in signature(encoded=contents).items()}


def embed(export: Path, folder: Path) -> dict[str, np.ndarray]:
    """`files`, `representation` and `projection` of a folder's images.

    Raises:
      ValueError: no export, or no image that can be decoded.
    """
    files = image_files(folder)
    encoder = tf.saved_model.load(str(newest_export(export)))
    done, outputs, seen = [], [], 0
    start = shown = time.monotonic()
    for batch, found in encode(encoder.signatures["encode_jpeg"], folder, files):
        done += batch
        outputs.append(found)
        seen = files.index(batch[-1], seen) + 1
        now = time.monotonic()
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
