"""The images of a folder that are most like others: a list, a picture or JSON.

    python -m tf_dpred.main --mode=search --workdir=runs/quickstart \\
        --features=features.npz --data_dir=my_images --query=my_images/0.jpg \\
        --output=out.png

`features.npz` is what --mode=embed wrote for the folder. The query is at the left;
then come the images with the most similar representations (cosine), best first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import image_files, places
from tf_dpred.data.listing import Listing
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.remote import Base, Root, is_remote, join
from tf_dpred.encoders import embed, index, sheets
from tf_dpred.encoders.embeddings import Embeddings
from tf_dpred.encoders.index import Nearest
from tf_dpred.system.files import output_file, printable, whole

DRAWN = 32
"""Queries in a picture."""

Found = list[tuple[str, float]]


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=search`: prints similarities, and writes `--output`.

    Raises:
      Refused: a file or encoder that is missing or is not what it should be.
      OSError: the output could not be written.
    """
    output = output_file(files.output, "a png file, or a .json file,")
    asked = _queries(files.query, Pixels.of(config))
    searched = Embeddings.read(files.features)
    draws = output.suffix != ".json"
    root = data_folder(config.data.data_dir) if draws else None
    encoder = embed.open_file_encoder(config)
    parts = list(embed.embed(encoder, asked.root, asked.names))
    queries = [join(asked.root, name) for names, _ in parts for name in names]
    if not queries:
        refuse("query", files.query, "a folder with an image that can be used")
    representation = np.concatenate([outputs["representation"] for _, outputs in parts])
    searched.check_is_of(representation.shape[1], encoder.weights)
    nearest = index.opened(searched, files.index)
    found = neighbours(searched, nearest, representation, files.neighbours)
    if root is None:
        _write_json(output, searched, files.index, queries, found)
    else:
        pixels = encoder.pixels
        _check_are_there(root, found[0], files.features, pixels)
        _draw(output, root, queries, found, pixels)
    for query, names in zip(queries, found, strict=True):
        if len(queries) > 1:
            print(f"{printable(query)}:")
        for name, similarity in names:
            print(f"{similarity:.4f}  {printable(name)}")


class _Asked(NamedTuple):
    """The images that are searched for: names, relative to a folder `root`."""

    root: Base
    names: list[str]


def _queries(name: str | None, pixels: Pixels) -> _Asked:
    accepted = "an image file"
    if name is None:
        refuse("query", name, accepted)
    if Path(name).is_dir():
        names = Listing(Path(name)).files
        if not names:
            refuse("query", name, "a folder with images, or an image file")
        return _Asked(Path(name), names)
    if (reason := image_files.problem(name, pixels)) is not None:
        refuse("query", name, accepted, detail=f" ({reason})")
    parent, _, file = name.rpartition("/")
    root = Root(parent) if is_remote(name) else Path(name).parent
    return _Asked(root, [file])


def data_folder(data_dir: str | None) -> Base:
    """The folder `--data_dir` of the images that `--features` describes.

    Raises:
      Refused: there is none.
    """
    if (root := places.root_of(data_dir)) is None:
        refuse("data_dir", data_dir, "the folder whose images --features describes")
    return root


def neighbours(
    searched: Embeddings, nearest: Nearest, asked: np.ndarray, count: int
) -> list[Found]:
    """The images most similar to each query, which is among them if it is searched.

    Args:
      searched: N images.
      nearest: of `index.opened`.
      asked: [Q, r], representations of the queries.
      count: how many, at least 1; if it is above N, there are N.

    Returns:
      (name, cosine similarity) of each query, best first.
    """
    return [
        [
            (searched.files[row], float(cosine))
            for cosine, row in zip(cosines, rows, strict=True)
            if row >= 0
        ]
        for cosines, rows in zip(*nearest(asked, count), strict=True)
    ]


def _check_are_there(
    root: Base, found: Found, features: str | None, pixels: Pixels
) -> None:
    for name, _ in found:
        if (reason := image_files.problem(root / name, pixels)) is not None:
            refuse(
                "data_dir",
                str(root),
                f"the folder of {features}",
                detail=f" without a usable {printable(name)} ({reason})",
            )


def _draw(
    output: Path,
    root: Base,
    queries: list[str],
    found: list[Found],
    pixels: Pixels,
) -> None:
    if len(queries) > DRAWN:
        logging.warning("drew the first %d of %d queries", DRAWN, len(queries))
    rows = [
        [query, *(join(root, name) for name, _ in names)]
        for query, names in zip(queries[:DRAWN], found, strict=False)
    ]
    sheets.write(rows, output, pixels, first_apart=True)


def _write_json(
    output: Path,
    searched: Embeddings,
    kind: str,
    queries: list[str],
    found: list[Found],
) -> None:
    """Names are as --features has them; a byte that is no UTF-8 is an escape."""
    answers = [
        {
            "query": query,
            "neighbours": [{"file": n, "similarity": round(s, 6)} for n, s in names],
        }
        for query, names in zip(queries, found, strict=True)
    ]
    value = {
        "features": str(searched.path),
        "weights": searched.weights,
        "index": kind,
        "queries": answers,
    }
    with whole(output) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())
