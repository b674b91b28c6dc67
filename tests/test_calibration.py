"""Rank correlations of measures with labels, on runs made by hand."""

import json

import numpy as np
import pytest

from tf_dpred.errors import Refused
from tools import calibration, coloured_digits
from tools.calibration import Run

UP, DOWN = (0.2, 0.9), (0.8, 0.1)


def run(name, knn, measure, probe=None):
    epochs = [
        {"knn": k, "view_top1": m, "view_alignment": 1 - m}
        for k, m in zip(knn, measure, strict=True)
    ]
    return Run(name, epochs, probe)


RUNS = [
    run("a", (0.3, 0.5), (0.1, 0.4), 0.52),
    run("b", (0.3, 0.6), (0.1, 0.3), 0.61),
    run("c", (0.3, 0.2), (0.1, 0.2), 0.25),
    run("d", (0.3, 0.31), (0.1, 0.0), 0.33),
]


@pytest.mark.parametrize("name", ["view_top1", "view_alignment"])
def test_over_ends__spearman_by_hand(name):
    # Ranks of the measure 4, 3, 2, 1 and of kNN 3, 4, 1, 2: 1 - 6 * 4 / (4 * 15).
    assert calibration.over_ends(RUNS, name) == pytest.approx(0.6)
    assert calibration.over_probes(RUNS, name) == pytest.approx(0.6)


def test_over_points__counts_each_epoch():
    runs = [run("a", (0.1, 0.2, 0.3), (1, 2, 3)), run("b", (0.4, 0.5), (5, 4))]
    # Five points, of which two are swapped: 1 - 6 * 2 / (5 * 24).
    assert calibration.over_points(runs, "view_top1") == pytest.approx(0.9)


def test_over_ends__nothing_to_say_of_two_runs_or_equal_values():
    assert np.isnan(calibration.over_ends(RUNS[:2], "view_top1"))
    same = [run(name, (0.1, 0.2), (0.5, 0.5)) for name in "abc"]
    assert np.isnan(calibration.over_ends(same, "view_top1"))


def test_with_interval__holds_the_value():
    rng = np.random.default_rng(0)
    text = calibration.with_interval(calibration.over_ends, RUNS, "view_top1", rng)
    assert text.startswith("+0.60 (-1.00 to +1.00)")


@pytest.mark.parametrize("name", ["view_top1", "view_alignment"])
def test_signs__leaves_out_what_hardly_moved(name):
    # a and b rose with it; in c kNN fell while it rose; d moved by .01 only.
    assert calibration.signs(RUNS, name, 0.03).startswith("2 of 3, 0.667")


def test_read__runs_of_a_sweep(tmp_path):
    for name, more in (("good", {"view_top1": 0.1}), ("unmeasured", {})):
        folder = tmp_path / name / "0"
        folder.mkdir(parents=True)
        lines = [{"epoch": i, "step": 5 * i, "knn": 0.1 * i, **more} for i in range(3)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "epochs.jsonl").write_text(text)
        (folder / "result.json").write_text("{}")
    (found,) = calibration.read(tmp_path)
    assert found.name == "good/0"
    assert [epoch["knn"] for epoch in found.epochs] == [0.0, 0.1, 0.2]
    assert found.probe is None
    with pytest.raises(Refused, match="accepted: a sweep of runs"):
        calibration.read(tmp_path / "good")


def test_coloured_digits__no_channel_tells_the_digit(tmp_path):
    rng = np.random.default_rng(0)
    digit = np.zeros((8, 8))
    digit[2:6, 2:6] = 16
    for _ in range(20):
        pixels = coloured_digits.image(digit, rng).astype(int)
        assert pixels.shape == (16, 16, 3)
        inside, outside = pixels[8, 8], pixels[0, 0]
        assert np.abs(inside - outside).max() >= 127
