"""Pictures made of tiles."""

import numpy as np

from tf_dpred.reports import tiles


def shades(count, side=6):
    tiles = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.tile(tiles, (1, side, side, 3))


def test_rows__places_and_white_between():
    picture = tiles.rows(shades(10), columns=4)
    step, gap = 6 + tiles.GAP, tiles.GAP
    assert picture.shape == (3 * step + gap, 4 * step + gap, 3)
    centers = picture[gap + 3 :: step, gap + 3 :: step, 0]
    assert centers.ravel().tolist() == [*range(10), 255, 255]
    assert (picture[: tiles.GAP] == 255).all()


def test_rows__fewer_tiles_than_columns():
    assert tiles.rows(shades(2)).shape[1] == 2 * (6 + tiles.GAP) + tiles.GAP


def test_square__row_by_row():
    picture = tiles.square(shades(5) + 1)
    assert picture.shape == (18, 18, 3)
    assert picture[3::6, 3::6, 0].ravel().tolist() == [1, 2, 3, 4, 5, 0, 0, 0, 0]


def test_framed__colours():
    picture = tiles.framed(list(shades(3)), [None, True, np.False_])
    step = 6 + 3 * tiles.GAP
    assert picture.shape == (6 + 2 * tiles.GAP, 3 * step - tiles.GAP, 3)
    corners = [tuple(picture[0, i * step]) for i in range(3)]
    assert corners == [tiles.NEUTRAL, tiles.RIGHT, tiles.WRONG]
    assert picture[tiles.GAP + 1, step + tiles.GAP + 1].tolist() == [1, 1, 1]
