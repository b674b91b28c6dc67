"""The images of a folder that are like no others: a table, and a picture.

    python -m tf_dpred.main --mode=outliers --features=features/ \\
        --data_dir=my_images --output=found

All images in the order of their Mahalanobis distance: how far a representation is from
the mean, in units of how much the representations vary in that direction (Lee et al.,
arXiv 1807.03888, with one class; of length 1, as for a cosine, which does it good, see
arXiv 2505.18032). No pairs are compared, so a million images take
little longer than to read their features twice.
"""

from __future__ import annotations

import numpy as np

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data.pixels import Pixels
from tf_dpred.encoders import sheets
from tf_dpred.encoders.duplicates import opened, write_table
from tf_dpred.evaluation import knn

TABLE, PICTURE = "outliers.csv", "outliers.png"
DRAWN, COLUMNS = 64, 8
BLOCK = 8192
"""Rows that are looked at together."""
RIDGE = 1e-4
"""Of the mean variance, added to each: no direction counts as one without variance."""
FAR = 5.0
"""Deviations above the median from which on an image is counted as an outlier."""


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=outliers`: writes a table and a picture into `--output`.

    Raises:
      Refused: a file that is missing or is not what it should be.
      OSError: the output could not be written.
    """
    output, searched, root = opened(config, files)
    far = distances(searched.representation)
    above = deviations(far)
    order = np.argsort(-far, kind="stable")
    lines = [("rank", "file", "distance", "deviations")]
    lines += [
        (str(rank), searched.files[row], f"{far[row]:.6f}", f"{above[row]:.2f}")
        for rank, row in enumerate(order, 1)
    ]
    write_table(output / TABLE, lines)
    shown = [root / searched.files[row] for row in order[:DRAWN]]
    rows = [shown[first : first + COLUMNS] for first in range(0, len(shown), COLUMNS)]
    sheets.write(rows, output / PICTURE, Pixels.of(config))
    print(
        f"wrote {output / TABLE}: {int(np.sum(above > FAR))} of {len(far)} images are "
        f"more than {FAR:g} deviations above the median distance"
    )


def distances(rows: np.ndarray) -> np.ndarray:
    """The Mahalanobis distance of each row from all.

    Args:
      rows: representations [N, r]; they may be a memory-mapped file.

    Returns:
      [N] float64, sqrt((x - m)' C^-1 (x - m)) of the rows of length 1, with their mean
      m and covariance C.
    """
    starts = range(0, len(rows), BLOCK)
    blocks = [slice(start, start + BLOCK) for start in starts]

    def unit(block: slice) -> np.ndarray:
        return knn.unit_rows(rows[block]).astype(np.float64)

    mean = sum(unit(block).sum(axis=0) for block in blocks) / len(rows)
    covariance = np.zeros([rows.shape[1]] * 2)
    for block in blocks:
        centred = unit(block) - mean
        covariance += centred.T @ centred / len(rows)
    variance = max(np.trace(covariance) / len(covariance), 1e-12)
    covariance += RIDGE * variance * np.eye(len(covariance))
    half = np.linalg.cholesky(np.linalg.inv(covariance))
    lengths = [np.linalg.norm((unit(b) - mean) @ half, axis=1) for b in blocks]
    return np.concatenate(lengths)


def deviations(distance: np.ndarray) -> np.ndarray:
    """Distances [N] above their median, in robust standard deviations.

    One is 1.4826 times the median absolute deviation, as for a normal distribution.
    """
    above = distance - np.median(distance)
    scale = 1.4826 * np.median(np.abs(above))
    return above / max(scale, 1e-12)
