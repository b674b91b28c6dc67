"""A picture of an image's nearest neighbours in a folder.

    python -m tf_dpred.main --mode=neighbours --workdir=runs/quickstart \\
        --features=features.npz --data_dir=my_images --query=my_images/0.jpg \\
        --output=out.png

`features.npz` is what --mode=embed wrote for the folder. The query is at the left;
then come the images with the most similar representations (cosine), best first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import image_files, places
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.remote import Base
from tf_dpred.encoders import embed
from tf_dpred.encoders.embeddings import Embeddings
from tf_dpred.evaluation import knn
from tf_dpred.system.files import output_file, printable, whole

SIDE, GAP = 128, 8


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=neighbours`: prints similarities, and draws into `--output`.

    Raises:
      Refused: a file or encoder that is missing or is not what it should be.
      OSError: the output could not be written.
    """
    output = output_file(files.output, "a png file")
    query = _query(files.query, Pixels.of(config))
    searched = Embeddings.read(files.features)
    root = _folder(config.data.data_dir)
    encoder = embed.open_file_encoder(config)
    asked = encoder([query])["representation"]
    searched.check_is_of(asked.shape[1], encoder.weights)
    found = neighbours(searched, asked, files.neighbours)
    for name, _ in found:
        if (reason := image_files.problem(root / name, encoder.pixels)) is not None:
            refuse(
                "data_dir",
                str(root),
                f"the folder of {files.features}",
                detail=f" without a usable {printable(name)} ({reason})",
            )
    shown = [query, *(root / name for name, _ in found)]
    picture = strip(shown, encoder.pixels)
    with whole(output) as file:
        file.write(tf.io.encode_png(picture).numpy())
    for name, similarity in found:
        print(f"{similarity:.4f}  {printable(name)}")


def _query(name: str | None, pixels: Pixels) -> str:
    if name is None:
        refuse("query", name, "an image file")
    if (reason := image_files.problem(name, pixels)) is not None:
        refuse("query", name, "an image file", detail=f" ({reason})")
    return name


def _folder(data_dir: str | None) -> Base:
    if (root := places.root_of(data_dir)) is None:
        refuse("data_dir", data_dir, "the folder whose images --features describes")
    return root


def neighbours(
    searched: Embeddings, asked: np.ndarray, count: int
) -> list[tuple[str, float]]:
    """The images most similar to one, which is among them if the folder holds it.

    Args:
      searched: N images.
      asked: [1, r], the representation of the one.
      count: how many, at least 1; if it is above N, there are N.

    Returns:
      (name, cosine similarity), best first.
    """
    similarity, rows = knn.nearest(searched.representation, asked, count)
    return [
        (searched.files[row], float(s))
        for row, s in zip(rows[0], similarity[0], strict=True)
    ]


def strip(
    files: Sequence[str | os.PathLike[str]], pixels: Pixels = image_files.USUAL
) -> np.ndarray:
    """Images side by side, uint8 [h, w, 3], white between; the first set apart."""
    picture = np.full((SIDE + 2 * GAP, GAP, 3), 255, np.uint8)
    for index, file in enumerate(files):
        image = image_files.decode(image_files.read(os.fsencode(file)), pixels)
        tile = tf.image.resize_with_pad(image, SIDE, SIDE, antialias=True)
        tile = tf.cast(tf.clip_by_value(tf.round(tile), 0, 255), tf.uint8).numpy()
        right = 4 * GAP if index == 0 else GAP
        framed = np.pad(
            tile, ((GAP, GAP), (0, right), (0, 0)), constant_values=np.uint8(255)
        )
        picture = np.concatenate([picture, framed], axis=1)
    return picture
