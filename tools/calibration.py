"""What label-free measures are worth: their rank correlation with what labels say.

    python -m tools.sweep configs/sweeps/calibration_digits.txt --root=runs/cal/digits
    python tools/calibration.py runs/cal/digits runs/cal/coloured runs/cal/cifar10

Each argument is the root of a sweep whose runs had `--knn_every` and `--quality_every`.
For each measure, and for the loss and the feature std, four things:

- `points`: Spearman's rank correlation with kNN over all epochs measured of all runs;
- `ends`: that over the last epochs alone, where a run is one point;
- `probe`: the same with the linear probe's accuracy;
- `sign`: of the runs whose kNN rose or fell by more than `--least` since before
  training, in how many the measure moved as it should for that.

Runs are drawn with replacement for the intervals (95 %, 2,000 draws): the epochs of one
run are no independent samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from tf_dpred.config import refuse
from tf_dpred.evaluation.verdict import Rate
from tf_dpred.quality import MEASURES
from tf_dpred.records import results
from tf_dpred.records.lines import EPOCH
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import json_files, markdown, terminal

DRAWS = 2000
# Better is lower: distances of views and of the logarithm of a mean potential, and the
# exponent of a spectrum that decays.
LOWER_IS_BETTER = ("view_alignment", "uniformity", "alpha_req", "loss")
NAMES = (
    *MEASURES,
    *(f"projection_{name}" for name in MEASURES),
    "loss",
    "feature_std",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """The epochs of a run at which it was measured, and its linear probe.

    Attributes:
      name: of the sweep's list, and the seed.
      epochs: with `knn` and the measures, the untrained network first.
      probe: top-1 accuracy, or None.
    """

    name: str
    epochs: list[dict[str, float]]
    probe: float | None


def read(root: Path) -> list[Run]:
    """The finished runs below a sweep's root.

    Raises:
      Refused: there is none with both labels and measures.
    """
    runs = []
    for path in sorted(root.glob("*/*/")):
        workdir = Workdir(path)
        if not workdir.result.exists():
            continue
        entries = json_files.read_lines(workdir.epochs, EPOCH, "root")
        epochs = [e for e in entries if "knn" in e and "view_top1" in e]
        probes = [
            found["top1"]
            for found in results.read_all(path)
            if found["mode"] == "linear_eval"
        ]
        if len(epochs) > 1:
            name = f"{path.parent.name}/{path.name}"
            runs.append(Run(name, epochs, probes[0] if probes else None))
    if not runs:
        refuse(
            "root", str(root), "a sweep of runs with --knn_every and --quality_every"
        )
    return runs


def signed(name: str, value: float) -> float:
    """A measure, turned so that more of it should mean a better encoder."""
    return -value if name.removeprefix("projection_") in LOWER_IS_BETTER else value


def over_points(runs: Sequence[Run], name: str) -> float:
    points = [(epoch, epoch["knn"]) for run in runs for epoch in run.epochs]
    return _correlation(points, name)


def over_ends(runs: Sequence[Run], name: str) -> float:
    ends = [run.epochs[-1] for run in runs]
    return _correlation([(epoch, epoch["knn"]) for epoch in ends], name)


def over_probes(runs: Sequence[Run], name: str) -> float:
    probed = [(run.epochs[-1], run.probe) for run in runs if run.probe is not None]
    return _correlation(probed, name)


def _correlation(points: Sequence[tuple[dict[str, float], float]], name: str) -> float:
    """Of a measure, where an epoch has it, with an accuracy of that epoch."""
    return _spearman(
        [(signed(name, epoch[name]), value) for epoch, value in points if name in epoch]
    )


def _spearman(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's rho; NaN of fewer than three pairs, or where a side does not vary."""
    if len(pairs) < 3:
        return float("nan")
    x, y = np.array(pairs).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def with_interval(
    statistic: Callable[[Sequence[Run], str], float],
    runs: Sequence[Run],
    name: str,
    rng: np.random.Generator,
) -> str:
    """A statistic and its 95 % interval over draws of whole runs, as text."""
    value = statistic(runs, name)
    if np.isnan(value):
        return "-"
    draws = rng.integers(len(runs), size=(DRAWS, len(runs)))
    found = [statistic([runs[i] for i in draw], name) for draw in draws]
    low, high = np.nanquantile(found, (0.025, 0.975))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def signs(runs: Sequence[Run], name: str, least: float) -> str:
    """In how many runs the measure and kNN moved the same way, as text."""
    same = []
    for run in runs:
        first, last = run.epochs[0], run.epochs[-1]
        change = last["knn"] - first["knn"]
        if abs(change) > least and name in first and name in last:
            moved = signed(name, last[name]) - signed(name, first[name])
            same.append(np.sign(moved) == np.sign(change))
    if not same:
        return "-"
    return f"{sum(same)} of {len(same)}, {Rate(float(np.mean(same)), len(same))}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="+", help="of a sweep")
    parser.add_argument("--least", type=float, default=0.03, help="change of kNN")
    parser.add_argument("--runs", action="store_true", help="also list the runs")
    given = parser.parse_args(argv)
    for root in given.root:
        runs = read(root)
        rng = np.random.default_rng(0)
        print(f"\n### {root.name}: {len(runs)} runs\n")
        rows = [
            [
                name,
                with_interval(over_points, runs, name, rng),
                with_interval(over_ends, runs, name, rng),
                with_interval(over_probes, runs, name, rng),
                signs(runs, name, given.least),
            ]
            for name in NAMES
        ]
        print(markdown.table(["measure", "points", "ends", "probe", "sign"], rows))
        if given.runs:
            shown = [
                [
                    run.name,
                    *(
                        f"{run.epochs[0].get(name, np.nan):.3f} -> "
                        f"{run.epochs[-1].get(name, np.nan):.3f}"
                        for name in ("knn", "view_top1", "rankme")
                    ),
                    "-" if run.probe is None else f"{run.probe:.3f}",
                ]
                for run in runs
            ]
            header = ["run", "kNN", "view retrieval", "RankMe", "linear probe"]
            print(markdown.table(header, shown))


if __name__ == "__main__":
    sys.exit(terminal.run("calibration", main))
