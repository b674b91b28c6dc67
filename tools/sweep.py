"""Runs a list of configurations one after another and makes a table of their results.

    python -m tools.sweep configs/sweeps/cifar10.txt --root=runs/sweep \\
      --output=docs/results.jsonl -- --data_dir=DIR

The list is a text file. A line `name: --flag=value ...` is a configuration; `seeds`, as
`[0 1 2]` in front of the colon, has it run once for each (default: seed 0). A line that
begins with `--` is given to all of them. So is what follows `--` on the command line,
but it is not recorded: it says where things lie, and must not change a result. Each is
pre-trained in ROOT/name/seed and evaluated by `--mode=linear_eval`. Paths are relative
to the directory in which this is called; a `--flagfile=configs/NAME.cfg` that is not
there is the recipe of that name.

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

from tf_dpred import recipes
from tf_dpred.config import paths, refuse
from tf_dpred.records import results
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import files, json_files, markdown, terminal
from tools.benchmark import machine

CHECKOUT = Path(__file__).resolve().parent.parent
RECIPE = re.compile(r"--flagfile=(configs/(\w+)\.cfg)")
LINE = re.compile(r"(?P<name>[\w.+-]+)\s*(\[(?P<seeds>[\d\s]+)\])?\s*:(?P<flags>.*)")
RECORD = {
    "name": str,
    "seed": int,
    "flags": [str],
    "knn_untrained": (float, None),
    "knn": (float, None),
    "linear": (float, None),
    "linear_of_best_epoch?": (float, None),
    "feature_std": (float, None),
    "commit?": (str, None),
    "machine?": str,
}
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
      Refused: a line is not understood, or a name is there twice.
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
            refuse(
                "list",
                line,
                "a name that is there once, a colon, and flags; or flags alone",
                detail=" as a line",
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
        given = [*map(_anywhere, run.flags), *own, f"--mode={mode}"]
        command = ["-m", "tf_dpred.main", *given]
        print("$ python", shlex.join(command), flush=True)
        subprocess.run([sys.executable, *command], check=True)
    result = json_files.read(Workdir(workdir).result) or {}
    found = results.read_all(workdir)
    probe = next(e for e in found if e["mode"] == "linear_eval")
    return {
        "name": run.name,
        "seed": run.seed,
        "flags": list(run.flags),
        "knn_untrained": result["knn_by_epoch"].get("0"),
        "knn": result.get("knn"),
        "linear": probe["top1"],
        "linear_of_best_epoch": probe.get("top1_of_best_epoch"),
        "feature_std": result["feature_std"],
        "epoch": result["epoch"],
        "step": result["step"],
        "seconds": round(time.monotonic() - start),
        "commit": commit(),
        "machine": processor_and_cores(),
    }


def commit() -> str | None:
    """The commit of the code, with a + if files differ from it; None: no checkout."""
    git = ["git", "-C", str(CHECKOUT)]
    try:
        found = subprocess.run(
            [*git, "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def processor_and_cores() -> str:
    found = machine.describe()
    return f"{found['cores']} cores of {found['processor']}"


def _anywhere(flag: str) -> str:
    """A flag of a list as it is also understood outside of the checkout."""
    found = RECIPE.fullmatch(flag)
    if found and not Path(found[1]).exists() and found[2] in recipes.names():
        return f"--recipe={found[2]}"
    return flag


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
        prog="tools.sweep", description=__doc__.splitlines()[0]
    )
    parser.add_argument("list", type=paths.argument, help="file of configurations")
    parser.add_argument("--root", type=paths.argument, default=Path("runs/sweep"))
    parser.add_argument(
        "--output", type=paths.argument, help="default: ROOT/results.jsonl"
    )
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.epilog = "Behind --: flags of tf_dpred.main for all runs."
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    given, extra = parser.parse_args(arguments[:cut]), arguments[cut + 1 :]
    output = given.output or given.root / "results.jsonl"
    try:
        runs = read_list(given.list.read_text())
    except (OSError, UnicodeError) as error:
        refuse("list", str(given.list), "a text file", detail=f" ({error})")
    records = json_files.read_lines(output, RECORD, "output")
    if not given.table:
        output.parent.mkdir(parents=True, exist_ok=True)
        files.output_file(str(output), "a file of results")
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
        files.write_whole(output, "".join(json.dumps(r) + "\n" for r in records))
    print(table(records))
    if failed:
        sys.exit(f"sweep: failed: {'; '.join(failed)}. Start it again to continue.")


if __name__ == "__main__":
    sys.exit(terminal.run("sweep", main))
