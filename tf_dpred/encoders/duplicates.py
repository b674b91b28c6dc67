"""Near duplicates among the images of a folder: groups in a table, and a picture.

    python -m tf_dpred.main --mode=duplicates --features=features/ \\
        --data_dir=my_images --output=found

The encoder proposes: each image's nearest by their representations (`--neighbours` of
them). The pixels decide: copies that were compressed, resized or slightly cropped are
near duplicates, images that only show alike things are not, see `likeness`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.remote import Base
from tf_dpred.encoders import index, likeness, search, sheets
from tf_dpred.encoders.embeddings import Embeddings
from tf_dpred.encoders.index import Nearest
from tf_dpred.system.files import output_folder, whole

TABLE, PICTURE = "duplicates.csv", "duplicates.png"
GROUPS_DRAWN, IMAGES_DRAWN = 40, 8
QUERIES = 8192
"""Images whose neighbours are looked for at a time."""

Pair = tuple[int, int, float]


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=duplicates`: writes a table and a picture into `--output`.

    Raises:
      Refused: a file that is missing or is not what it should be.
      OSError: the output could not be written.
    """
    output, searched, root = opened(config, files)
    nearest = index.opened(searched, files.index)
    pairs = candidates(searched.representation, nearest, files.neighbours)
    pixels = Pixels.of(config)
    thumbs = likeness.thumbnails(root, searched.files, output, pixels)
    alike = likeness.of_pairs(thumbs, pairs)
    chosen = alike >= files.likeness
    found = groups(pairs[chosen], alike[chosen])
    _write_table(output / TABLE, searched.files, found)
    if found:
        drawn = [
            [root / searched.files[row] for row, _, _ in group[:IMAGES_DRAWN]]
            for group in found[:GROUPS_DRAWN]
        ]
        sheets.write(drawn, output / PICTURE, pixels)
    else:
        (output / PICTURE).unlink(missing_ok=True)
    count = sum(map(len, found))
    print(
        f"wrote {output / TABLE}: {len(found)} groups of near duplicates, {count} of "
        f"{len(searched.files)} images"
    )


def opened(config: Config, files: FilesConfig) -> tuple[Path, Embeddings, Base]:
    """The folder of `--output`, the features, and the folder of their images.

    Raises:
      Refused: one of them is missing or is not what it should be, or the folder does
        not hold the first of the images.
    """
    if not files.output:
        accepted = "the name of a folder for a table and a picture"
        refuse("output", files.output, accepted)
    output = Path(files.output)
    searched = Embeddings.read(files.features)
    root = search.data_folder(config.data.data_dir)
    output_folder("output", output)
    if isinstance(root, Path) and not (root / searched.files[0]).is_file():
        accepted = f"the folder of {searched.path}, with {searched.files[0]}"
        refuse("data_dir", str(root), accepted)
    return output, searched, root


def candidates(rows: np.ndarray, nearest: Nearest, count: int) -> np.ndarray:
    """Pairs of an image and one of its nearest.

    Args:
      rows: representations [N, r].
      nearest: of `index.opened`.
      count: neighbours of each image.

    Returns:
      [P, 2] rows, the smaller one first; each pair once, in order.
    """
    found = []
    for start in range(0, len(rows), QUERIES):
        _, near = nearest(rows[start : start + QUERIES], count + 1)
        this = np.arange(start, start + len(near))[:, np.newaxis]
        pairs = np.stack([np.minimum(this, near), np.maximum(this, near)], axis=-1)
        pairs = pairs.reshape(-1, 2)
        found.append(pairs[(pairs[:, 0] >= 0) & (pairs[:, 0] < pairs[:, 1])])
    return np.unique(np.concatenate(found), axis=0)


def groups(pairs: np.ndarray, alike: np.ndarray) -> list[list[Pair]]:
    """Images that are alike, or have another in between that is like both.

    Args:
      pairs: rows [P, 2].
      alike: their likeness [P].

    Returns:
      Groups, the largest first, then those with the smallest row. Each has (row, the
      row it is most like, likeness), by row.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members = np.unique(pairs)
    place = np.searchsorted(members, pairs)
    graph = coo_array(
        (np.ones(len(pairs)), (place[:, 0], place[:, 1])), shape=[len(members)] * 2
    )
    _, labels = connected_components(graph, directed=False)
    most: dict[int, tuple[int, float]] = {}
    for (first, second), value in zip(pairs.tolist(), alike.tolist(), strict=True):
        for this, other in ((first, second), (second, first)):
            if this not in most or value > most[this][1]:
                most[this] = other, value
    found: dict[int, list[Pair]] = {}
    for row, label in zip(members.tolist(), labels.tolist(), strict=True):
        found.setdefault(label, []).append((row, *most[row]))
    return sorted(found.values(), key=lambda group: (-len(group), group[0][0]))


def _write_table(path: Path, names, found: list[list[Pair]]) -> None:
    lines = [("group", "file", "most_like", "likeness")]
    for number, group in enumerate(found, 1):
        lines += [
            (str(number), names[row], names[other], f"{value:.4f}")
            for row, other, value in group
        ]
    write_table(path, lines)


def write_table(path: Path, lines: Sequence[Sequence[str]]) -> None:
    """Writes CSV by `files.whole`; names keep their bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    with whole(path) as file:
        file.write(text.getvalue().encode(errors="surrogateescape"))
