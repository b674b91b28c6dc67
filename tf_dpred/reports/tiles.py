"""Pictures made of pictures: grids of tiles, uint8 [h, w, 3]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

COLUMNS, GAP = 8, 4
# The field around a tile: Okabe and Ito's bluish green and vermilion, or white.
RIGHT, WRONG, NEUTRAL = (0, 158, 115), (213, 94, 0), (255, 255, 255)


def rows(tiles: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Tiles [n, h, w, 3] in rows of `columns`, white between them."""
    count, height, width = tiles.shape[:3]
    columns = min(count, columns)
    lines = -(-count // columns)
    shape = (lines * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3)
    picture = np.full(shape, 255, np.uint8)
    for index, tile in enumerate(tiles):
        line, column = divmod(index, columns)
        top, left = GAP + line * (height + GAP), GAP + column * (width + GAP)
        picture[top : top + height, left : left + width] = tile
    return picture


def square(tiles: np.ndarray) -> np.ndarray:
    """Tiles [n, s, s, 3] in a square without gaps, row by row; the rest is black."""
    count, side = tiles.shape[:2]
    columns = math.ceil(math.sqrt(count))
    picture = np.zeros((columns * side, columns * side, 3), np.uint8)
    for index, tile in enumerate(tiles):
        line, column = divmod(index, columns)
        top, left = line * side, column * side
        picture[top : top + side, left : left + side] = tile
    return picture


def framed(tiles: Sequence[np.ndarray], right: Sequence[bool | None]) -> np.ndarray:
    """Tiles of one size side by side, framed by whether they are right.

    Args:
      tiles: [s, s, 3] each.
      right: True, False, or None for no colour.
    """
    colours = {True: RIGHT, False: WRONG, None: NEUTRAL}
    side = tiles[0].shape[0]
    line = []
    for tile, answer in zip(tiles, right, strict=True):
        field = np.empty((side + 2 * GAP, side + 2 * GAP, 3), np.uint8)
        field[:] = colours[None if answer is None else bool(answer)]
        field[GAP:-GAP, GAP:-GAP] = tile
        line.append(field)
        line.append(np.full((side + 2 * GAP, GAP, 3), 255, np.uint8))
    return np.concatenate(line[:-1], axis=1)
