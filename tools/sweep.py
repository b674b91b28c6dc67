"""Runs a list of configurations one after another and makes a table of their results.

    python tools/sweep.py configs/sweeps/cifar10.txt --root=runs/sweep \\
      --output=docs/results.jsonl -- --data_dir=DIR

The list is a text file. A line `name: --flag=value ...` is a configuration; `seeds`, as
`[0 1 2]` in front of the colon, has it run once for each (default: seed 0). A line that
begins with `--` is given to all of them. So is what follows `--` on the command line,
but it is not recorded: it says where things lie, and must not change a result. Each is
pre-trained in ROOT/name/seed and evaluated by `--mode=linear_eval`.

The output holds one JSON object per finished run. A run that it holds is not repeated;
one that was interrupted continues from its checkpoint. One that fails is named at the
end, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_dpred.system import markdown

CHECKOUT = Path(__file__).resolve().parent.parent
LINE = re.compile(r"(?P<name>[\w.+-]+)\s*(\[(?P<seeds>[\d\s]+)\])?\s*:(?P<flags>.*)")
MEASURED = {
    "knn_untrained": "kNN, untrained",
    "knn": "kNN",
    "linear": "linear probe",
    "feature_std": "feature std x sqrt(d)",
}


@dataclass(frozen=True)
class Run:
    """One configuration with one seed.

    Attributes:
      name: of the configuration.
      seed: of `--seed`.
      flags: of the list.
    """

    name: str
    seed: int
    flags: tuple[str, ...]

    def is_in(self, records: Iterable[dict[str, Any]]) -> bool:
        """Whether its result is known, for exactly these flags."""
        known = {"name": self.name, "seed": self.seed, "flags": list(self.flags)}
        return any(known.items() <= record.items() for record in records)


def read_list(text: str) -> list[Run]:
    """The runs of a list: all of the first seeds, then those of the second ones.

    Raises:
      ValueError: a line is not understood, or a name is there twice.
    """
    common: list[str] = []
    named: dict[str, tuple[list[int], list[str]]] = {}
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.startswith("--"):
            common += shlex.split(line)
            continue
        found = LINE.fullmatch(line)
        if not found or found["name"] in named:
            raise ValueError(
                f"received the line {line!r}, accepted: a name that is there once, "
                "a colon, and flags; or flags alone."
            )
        seeds = [int(seed) for seed in (found["seeds"] or "0").split()]
        named[found["name"]] = (seeds, shlex.split(found["flags"]))
    most = max((len(seeds) for seeds, _ in named.values()), default=0)
    return [
        Run(name, seeds[turn], (*common, *flags))
        for turn in range(most)
        for name, (seeds, flags) in named.items()
        if turn < len(seeds)
    ]


def execute(run: Run, root: Path, extra: Sequence[str]) -> dict[str, Any]:
    """Pre-trains and evaluates, with some more flags -> the record of the run.

    Raises:
      subprocess.CalledProcessError: a program failed.
    """
    start = time.monotonic()
    workdir = root / run.name / str(run.seed)
    own = [*extra, f"--seed={run.seed}", f"--workdir={workdir}"]
    for mode in ("pretrain", "linear_eval"):
        command = ["-m", "tf_dpred.main", *run.flags, *own, f"--mode={mode}"]
        print("$ python", shlex.join(command), flush=True)
        subprocess.run([sys.executable, *command], cwd=CHECKOUT, check=True)
    result = json.loads((workdir / "result.json").read_text())
    (evaluation,) = workdir.glob("evaluation/linear_eval-*-online/result.json")
    probe = json.loads(evaluation.read_text())
    return {
        "name": run.name,
        "seed": run.seed,
        "flags": list(run.flags),
        "knn_untrained": result["knn_by_epoch"].get("0"),
        "knn": result.get("knn"),
        "linear": probe["top1"],
        "linear_of_best_epoch": probe["top1_of_best_epoch"],
        "feature_std": result["feature_std"],
        "epoch": result["epoch"],
        "step": result["step"],
        "seconds": round(time.monotonic() - start),
    }


def table(records: Sequence[dict[str, Any]]) -> str:
    """The mean of each configuration and the standard deviation over seeds (n - 1)."""
    header = ["configuration", "seeds", *MEASURED.values()]
    rows = []
    for name in dict.fromkeys(record["name"] for record in records):
        mine = [record for record in records if record["name"] == name]
        cells = [name, str(len(mine))]
        for quantity in MEASURED:
            values = [r[quantity] for r in mine if r[quantity] is not None]
            cell = f"{statistics.mean(values):.3f}" if values else "-"
            if len(values) > 1:
                cell += f" +- {statistics.stdev(values):.3f}"
            cells.append(cell)
        rows.append(cells)
    return markdown.table(header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="tools/sweep.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument("list", type=Path, help="text file of configurations")
    parser.add_argument("--root", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--output", type=Path, help="default: ROOT/results.jsonl")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.epilog = "Behind --: flags of tf_dpred.main for all runs."
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    given, extra = parser.parse_args(arguments[:cut]), arguments[cut + 1 :]
    output = given.output or given.root / "results.jsonl"
    try:
        runs = read_list(given.list.read_text())
        records = []
        if output.exists():
            records = [json.loads(line) for line in output.read_text().splitlines()]
    except (OSError, ValueError) as error:
        sys.exit(f"sweep: {' '.join(str(error).split())}")
    failed = []
    for run in [] if given.table else runs:
        if run.is_in(records):
            continue
        try:
            record = execute(run, given.root, extra)
        except subprocess.CalledProcessError as error:
            failed.append(f"{run.name}, seed {run.seed} (exit code {error.returncode})")
            continue
        records.append(record)
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a") as file:
            file.write(json.dumps(record) + "\n")
    print(table(records))
    if failed:
        sys.exit(f"sweep: failed: {'; '.join(failed)}. Start it again to continue.")


if __name__ == "__main__":
    main()
