"""Lists the image files below a folder that a run could not use, and why.

    python tools/check_images.py my_images

Decodes every image as a run would. Prints one line for each file that cannot be used
(path, tab, reason) and, to stderr, how many can. Exits with 0 if all can be used, 1 if
some cannot, 2 if there is no such folder or no image in it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_dpred.system import quiet

with quiet.start():
    import tensorflow as tf

    from tf_dpred.data import folder, image_files
    from tf_dpred.system.files import printable


def unusable(root: Path, files: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Decodes files in parallel -> (file, reason) of those that cannot be.

    Args:
      root: that the files are relative to.
      files: to look at.
    """

    def can_be_used(path: tf.Tensor) -> tf.Tensor:
        return tf.size(image_files.decode_or_empty(image_files.read(path))) > 0

    readable = [file for file in files if os.access(root / file, os.R_OK)]
    yield from ((f, "may not be read") for f in sorted(set(files) - set(readable)))
    if not readable:
        return
    paths = tf.data.Dataset.from_tensor_slices(
        [os.fsencode(root / f) for f in readable]
    )
    usable = paths.map(can_be_used, num_parallel_calls=tf.data.AUTOTUNE)
    start = shown = time.monotonic()
    for index, good in enumerate(usable.as_numpy_iterator()):
        reason = None if good else image_files.problem(root / readable[index])
        if reason is not None:
            yield readable[index], reason
        now = time.monotonic()
        if now - shown > 10:
            speed = (index + 1) / (now - start)
            print(f"{index + 1}/{len(files)} images, {speed:.0f}/s", file=sys.stderr)
            shown = now


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="images, in any sub-folders")
    root = parser.parse_args(arguments).folder
    try:
        files = folder.require_images(root)
    except ValueError as error:
        print(f"check_images: {error}", file=sys.stderr)
        return 2
    bad = 0
    for file, reason in unusable(root, files):
        print(f"{printable(file)}\t{reason}", flush=True)
        bad += 1
    other = folder.other_kinds(root)
    print(
        f"{len(files) - bad} images can be used, {bad} cannot"
        + (f"; not looked at: {other}" if other else ""),
        file=sys.stderr,
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
