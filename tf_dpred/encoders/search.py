"""A picture of an image's nearest neighbours in a folder.

    python tools/neighbours.py runs/quickstart features.npz my_images query.jpg out.png

`features.npz` is what tools/embed.py wrote for the folder. The query is at the left;
then come the images with the most similar representations (cosine), best first.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_dpred.system import quiet

with quiet.start():
    import tensorflow as tf

    from tf_dpred.data import image_files
    from tf_dpred.encoders.settings import newest_export
    from tf_dpred.evaluation import knn
    from tf_dpred.system.files import printable

SIDE, GAP = 128, 8


def neighbours(
    export: Path, features: dict[str, np.ndarray], query: Path, count: int
) -> list[tuple[str, float]]:
    """(file, cosine similarity) of the `count` most similar images, best first.

    The query itself, where the folder holds it, is one of them.
    """
    encoder = tf.saved_model.load(str(newest_export(export)))
    encoded = image_files.read(os.fsencode(query))[None]
    found = encoder.signatures["encode_jpeg"](encoded=encoded)["representation"]
    similarity, rows = knn.nearest(features["representation"], found.numpy(), count)
    files = features["files"][rows[0]]
    return [(str(f), float(s)) for f, s in zip(files, similarity[0], strict=True)]


def strip(files: Sequence[Path]) -> np.ndarray:
    """Images side by side, uint8 [h, w, 3], white between; the first set apart."""
    picture = np.full((SIDE + 2 * GAP, GAP, 3), 255, np.uint8)
    for index, file in enumerate(files):
        image = image_files.decode(image_files.read(os.fsencode(file)))
        tile = tf.image.resize_with_pad(image, SIDE, SIDE, antialias=True)
        tile = tf.cast(tf.clip_by_value(tf.round(tile), 0, 255), tf.uint8).numpy()
        right = 4 * GAP if index == 0 else GAP
        framed = np.pad(
            tile, ((GAP, GAP), (0, right), (0, 0)), constant_values=np.uint8(255)
        )
        picture = np.concatenate([picture, framed], axis=1)
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path, help="export or work directory")
    parser.add_argument("features", type=Path, help="npz of tools/embed.py")
    parser.add_argument("folder", type=Path, help="that the features are of")
    parser.add_argument("query", type=Path, help="an image file")
    parser.add_argument("output", type=Path, help="png file to write")
    parser.add_argument("--count", type=int, default=8, help="neighbours shown")
    given = parser.parse_args(arguments)
    try:
        with np.load(given.features, allow_pickle=False) as features:
            found = neighbours(given.export, features, given.query, given.count)
        files = [given.query, *(given.folder / file for file, _ in found)]
        picture = strip(files)
    except (OSError, ValueError, tf.errors.OpError) as error:
        sys.exit(f"neighbours: {' '.join(str(error).split())}")
    given.output.write_bytes(tf.io.encode_png(picture).numpy())
    for file, similarity in found:
        print(f"{similarity:.4f}  {printable(file)}")


if __name__ == "__main__":
    main()
