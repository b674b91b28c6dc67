"""Observations #1 to #10: the size of each number, and its direction."""

import dataclasses
import functools
import math
from pathlib import Path

import pytest

from tf_dpred.theory import comparison, observations, theorems
from tf_dpred.theory.comparison import Comparison
from tf_dpred.theory.levers import Levers

PAGE = Path(__file__).parent.parent / "docs/theory.md"


@functools.cache
def simulated(rows):
    """The rows of one observation, simulated once for all tests."""
    return list(rows())


# observation -> does the number rise with the rows?
@pytest.mark.parametrize(
    ("rows", "rises"),
    [
        (observations.basin_shrinks_with_predictor_rate, False),
        (observations.features_grow_less_with_predictor_rate, False),
        (observations.decay_forgets_the_start, False),
        (observations.decay_widens_the_basin, True),
        (observations.too_much_decay_collapses, False),
        (observations.predictor_rate_aligns, False),
        (observations.decay_aligns, False),
        (observations.ema_aligns, False),
    ],
    ids=[f"#{n}" for n in range(1, 9)],
)
def test_observations__size_and_direction(rows, rises):
    found = simulated(rows)
    for row in found:
        assert row.holds, row
    assert len(found) >= 3
    numbers = [row.simulated for row in found if "derived" not in row.quantity]
    assert numbers == sorted(numbers, reverse=not rises) and len(set(numbers)) > 1


def test_observations__9_slow_ema():
    *rows, ratio = simulated(observations.ema_is_slow)
    for row in (*rows, ratio):
        assert row.holds, row
    simsiam, *with_ema = (row.simulated for row in rows)
    assert with_ema[0] / 0.01 > 50 * simsiam and with_ema[1] / 0.001 > 500 * simsiam


def test_observations__10_ema_widens_the_basin():
    rows = simulated(observations.ema_widens_the_basin)
    for row in rows:
        assert row.holds, row
    held = [row.simulated for row in rows[:3]]
    assert held == sorted(held)


def test_observations__decay_on_the_predictor_alone():
    rows = simulated(observations.predictor_decay_alone_is_safe)
    for row in rows:
        assert row.holds, row
        assert abs(row.simulated) > 10 * row.tolerance


def test_observations__symmetric_predictor_is_no_collapse_here():
    """The one collapse of the paper that its linear flow does not have."""
    symmetric, free = simulated(observations.symmetric_predictor_without_ema)
    assert symmetric.holds and free.holds
    assert symmetric.simulated >= free.simulated > 2


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    ("decay", "survives"), [(0.05, True), (0.2, False)]
)  # the critical decay at sigma^2 = 1 is .125
def test_surviving_modes__symmetric_and_free_share_their_fate(decay, survives, aligned):
    levers = Levers(decay=decay, variance=1.0)
    for symmetric in (True, False):
        left = observations.surviving_modes(symmetric, levers, aligned=aligned, runs=1)
        assert left > 2 if survives else left == 0


def test_observations__table_5_is_about_alignment_too():
    rows = simulated(observations.predictor_decay_aligns)
    for row in rows:
        assert row.holds, row
    numbers = [row.simulated for row in rows]
    # It grows without decay and shrinks with enough of it, by eta_p/2 twice over t = 2
    # and by what eta_p does to p and s.
    assert numbers == sorted(numbers, reverse=True) and numbers[0] > 0 > numbers[-1]


def test_observations__alignment_fails_first_without_ema():
    rows = simulated(observations.alignment_fails_first_without_ema)
    for row in rows:
        assert row.holds, row
    numbers = [row.simulated for row in rows]
    assert numbers == sorted(numbers, reverse=True) and numbers[-1] > 0.01


def test_misalignment__signs():
    """A huge predictor rate holds eigenspaces together that a small one loses."""
    small = observations.misalignment(Levers(0.5, variance=0.5))[1]
    huge = observations.misalignment(Levers(50.0, variance=0.5))[1]
    assert small > 0.4 and huge < -4


@pytest.mark.parametrize(
    ("relation", "simulated", "holds"),
    [
        ("=", 1.05, True),
        ("=", 1.2, False),
        ("<", 0.9, True),
        ("<", 1.0, False),
        (">", 1.1, True),
        (">", 0.9, False),
        ("=", math.nan, False),
        ("<", math.nan, False),
    ],
)
def test_comparison__holds(relation, simulated, holds):
    row = Comparison("s", "q", 1.0, simulated, relation, 0.1)
    assert row.holds == holds


def test_table__marks_what_fails():
    good = Comparison("Theorem 1", "norm", 1.0, 1.0, tolerance=1e-9)
    bad = dataclasses.replace(good, simulated=2.0)
    *_, first, second = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in comparison.table([good, bad]).splitlines()
    )
    assert first == ["Theorem 1", "norm", "1", "1", "1e-09", "yes"]
    assert second[-3:] == ["2", "1e-09", "NO"]


def test_table__the_documented_one():
    """docs/theory.md holds what the command prints, but for rounding errors."""
    rows = list(theorems.all_comparisons())
    for observation in observations.OBSERVATIONS:
        rows += simulated(observation)

    def told(line):
        """Source, quantity, predicted, tolerance, whether it holds."""
        cells = line.split(" | ")
        return [*cells[:2], cells[2][:6], *cells[4:]]

    printed = comparison.table(rows).splitlines()
    page = PAGE.read_text().splitlines()
    first = page.index(printed[0])
    for documented, line in zip(page[first:], printed, strict=False):
        assert told(documented) == told(line)
    for documented, row in zip(page[first + 2 :], rows, strict=False):
        # The zeros of the column are rounding errors, which differ between machines.
        near = pytest.approx(row.simulated, rel=1e-4, abs=1e-12)
        assert float(documented.split(" | ")[3]) == near, row
    assert not page[first + len(printed)]
