"""`python -m tf_dpred.theory --figure=all --out=DIR`, or `--table`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tf_dpred.config import paths
from tf_dpred.system import files, terminal

FIGURES = ("3", "4", "5", "7", "8", "9", "10", "cosine")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m tf_dpred.theory",
        description="The linear theory of arXiv 2102.06810: its figures and numbers.",
    )
    made.add_argument(
        "--figure",
        action="append",
        choices=("all", *FIGURES),
        help="a simulated figure of the paper, or all; may be given again",
    )
    made.add_argument(
        "--out",
        type=paths.argument,
        default=Path(),
        help="their folder (default: .)",
    )
    made.add_argument(
        "--table",
        action="store_true",
        help="print each theorem and observation, predicted and simulated",
    )
    return made


def main(arguments: Sequence[str]) -> None:
    """Draws or prints; a failure ends it with one line and an exit code."""
    if code := terminal.run("tf_dpred.theory", lambda: _run(arguments)):
        sys.exit(code)


def _run(arguments: Sequence[str]) -> None:
    made = parser()
    given = made.parse_args(arguments)
    if not given.figure and not given.table:
        made.error("received neither, accepted: --figure=..., --table or both.")
    if given.figure:
        files.output_folder("out", given.out)
    if given.table:
        from tf_dpred.theory import comparison, observations, theorems

        rows = [*theorems.all_comparisons(), *observations.all_comparisons()]
        print(comparison.table(rows))
    if given.figure:
        from tf_dpred.theory import figures

        names = FIGURES if "all" in given.figure else dict.fromkeys(given.figure)
        for path in figures.draw(names, given.out):
            print(f"wrote {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
