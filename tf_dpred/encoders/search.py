"""A picture of an image's nearest neighbours in a folder.

    python -m tf_dpred.main --mode=neighbours --workdir=runs/quickstart \\
        --features=features.npz --data_dir=my_images --query=my_images/0.jpg \\
        --output=out.png

`features.npz` is what --mode=embed wrote for the folder. The query is at the left;
then come the images with the most similar representations (cosine), best first.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import image_files
from tf_dpred.encoders import embed
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
    query = _query(files.query)
    names, representation = read_features(files.features)
    root = _folder(config.data.data_dir)
    encoder = embed.open_file_encoder(config)
    asked = encoder([query])["representation"]
    if asked.shape[1] != representation.shape[1]:
        refuse(
            "features",
            files.features,
            f"those of this encoder, of length {asked.shape[1]}",
            detail=f" with representations of length {representation.shape[1]}",
        )
    others = weights_of(files.features)
    if others and encoder.weights and others != encoder.weights:
        refuse(
            "features",
            files.features,
            f"those of this encoder, {encoder.weights}",
            detail=f" of an encoder with other weights, {others}",
        )
    found = neighbours(names, representation, asked, files.neighbours)
    for name, _ in found:
        if (reason := image_files.problem(root / name)) is not None:
            refuse(
                "data_dir",
                str(root),
                f"the folder of {files.features}",
                detail=f" without a usable {printable(name)} ({reason})",
            )
    picture = strip([query, *(root / name for name, _ in found)])
    with whole(output) as file:
        file.write(tf.io.encode_png(picture).numpy())
    for name, similarity in found:
        print(f"{similarity:.4f}  {printable(name)}")


def _query(name: str | None) -> Path:
    if name is None:
        refuse("query", name, "an image file")
    if (reason := image_files.problem(name)) is not None:
        refuse("query", name, "an image file", detail=f" ({reason})")
    return Path(name)


def _folder(data_dir: str | None) -> Path:
    if data_dir is None or not Path(data_dir).is_dir():
        refuse("data_dir", data_dir, "the folder whose images --features describes")
    return Path(data_dir)


def read_features(name: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Reads what --mode=embed wrote.

    Args:
      name: the value of `--features`.

    Returns:
      Names [N] of the files, and their representations [N, r].

    Raises:
      Refused: no such file, or not one of --mode=embed.
    """
    accepted = "a file that --mode=embed wrote"
    # To read from a pipe of that name would wait for ever.
    if name is None or (Path(name).exists() and not Path(name).is_file()):
        refuse("features", name, accepted)
    try:
        # Not np.load, which takes files of other kinds as well.
        with zipfile.ZipFile(name) as archive:
            files, representation = (
                np.lib.format.read_array(archive.open(f"{key}.npy"))
                for key in ("files", "representation")
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        refuse("features", name, accepted, detail=f" ({error})")
    shape = representation.shape
    if len(shape) != 2 or not shape[0] or files.shape != shape[:1]:
        shapes = f" with {files.shape} files and {shape} representations"
        refuse("features", name, accepted, detail=shapes)
    return files, representation


def weights_of(name: str | None) -> str:
    """The hash of the encoder of a file that `read_features` takes; "" if unknown."""
    if name is None:
        return ""
    with np.load(name, allow_pickle=False) as file:
        return str(file["weights"]) if "weights" in file.files else ""


def neighbours(
    names: np.ndarray, representation: np.ndarray, asked: np.ndarray, count: int
) -> list[tuple[str, float]]:
    """The images most similar to one, which is among them if the folder holds it.

    Args:
      names: [N] of files.
      representation: [N, r] of these.
      asked: [1, r], the representation of the one.
      count: how many, at least 1; if it is above N, there are N.

    Returns:
      (name, cosine similarity), best first.
    """
    similarity, rows = knn.nearest(representation, asked, count)
    files = names[rows[0]]
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
