"""tools/symmetric_predictor.py: what is trained alike, and where the two part."""

import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tools import symmetric_predictor as tool

SHORT = tool.Setting(steps=2)


def test_views__are_the_digits_moved_by_up_to_a_pixel():
    images = np.zeros((1, 8, 8))
    images[0, 4, 4] = 1.0
    places = set()
    for pair in tool.views(images.reshape(1, 64), 3, seed=0):
        for view in pair:
            assert view.shape == (128, 64) and view.dtype == np.float32
            # The light is .6 to 1.4, the noise .1.
            places |= set(np.argmax(view[view.max(axis=1) > 0.8], axis=1))
    assert places == {8 * row + column for row in (3, 4, 5) for column in (3, 4, 5)}


def test_views__depend_on_the_seed_alone():
    images = load_digits().data[:50] / 16
    first, again, other = (list(tool.views(images, 2, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", ["no decay", "EMA .996", "BatchNorm and ReLU"])
def test_train__keeps_the_symmetric_predictor_symmetric(name):
    setting = dataclasses.replace(tool.SETTINGS[name], steps=2)
    w = {
        kind: tool.train(setting, kind, seed=0).predictor.matrix.numpy()
        for kind in tool.PREDICTORS
    }
    np.testing.assert_array_equal(w["symmetric"], w["symmetric"].T)
    assert not np.array_equal(w["free"], w["free"].T)
    # They began alike, and the steps are small.
    assert np.abs(w["free"] - w["symmetric"]).max() < 0.1


def test_measure__of_a_start():
    """Random features tell most digits apart, and are near one point without BN."""
    std, right = tool.measure(tool.train(SHORT, "free", seed=0))
    assert 0.9 < right < 1 and 0 < std < 0.3


@pytest.mark.slow
def test_digits__the_symmetric_predictor_collapses_and_the_free_does_not():
    setting = tool.SETTINGS["ReLU, rate .1, decay 4e-3"]
    right = {
        kind: tool.measure(tool.train(setting, kind, seed=0))[1]
        for kind in tool.PREDICTORS
    }
    assert right["symmetric"] < 0.85 and right["free"] > 0.9


@pytest.mark.slow
def test_flow_table__no_setting_has_the_collapse():
    rows = tool.flow_table(1).splitlines()[2:]
    assert len(rows) == 12
    for row in rows:
        for cell in row.strip("|").split("|")[3:]:
            symmetric, free = map(float, cell.split(","))
            assert symmetric >= free
