"""Compares ratios of speeds with stored ones and names what got slower.

    python -m tools.benchmark.check             # `make bench-check`
    python -m tools.benchmark.check --update    # store what this machine measures

Ratios of programs that ran in turns hold better than times, but they too belong to a
machine: update them there before a change and compare after it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from tf_dpred.system import json_files, terminal
from tools.benchmark import machine
from tools.benchmark.options import BFLOAT16, SMALL, Options
from tools.benchmark.parts import PARTS
from tools.benchmark.race import medians

STORED = Path(__file__).parent / "ratios.json"
SHAPE = {"machine": {"processor?": str}, "ratios": {str: float}}
TOLERANCE = 0.15  # measured twice on one quiet machine, ratios differ by up to a tenth
# A part that takes a smaller share of the step is not worth an alarm.
SMALL_SHARE = 0.015


def measure(options: Options) -> dict[str, float]:
    """Name -> ratio; more is faster."""
    (step,) = (table.values for table in PARTS["step"](options))
    (parts,) = (table.values for table in PARTS["step_parts"](options))
    inputs, _ = (table.values for table in PARTS["input"](options))
    (evaluation,) = (table.values for table in PARTS["evaluation"](options))
    ratios = {}
    for name in options.steps:
        both = {k: medians(v)["images/s"] for k, v in step[name]["values"].items()}
        ratios[f"{name}: step over convolutions alone"] = (
            both["tf_dpred"] / both["convolutions"]
        )
        found = medians(parts[name])
        for part in ("optimizer", "F", "W", "EMA"):
            share = found[part] / found["step"]
            allowed = f"{name}: {SMALL_SHARE:.1%} of a step over {part}"
            ratios[allowed] = min(1.0, SMALL_SHARE / share)
    rates = {k: medians(v)["images/s"] for k, v in inputs["values"].items()}
    for stage in ("crop", "photometric", "all"):
        ratios[f"input up to {stage} over decoding"] = rates[stage] / rates["decode"]
    found = medians(evaluation["evaluation"])
    ratios["features over the forward pass"] = found["features"] / found["forward"]
    return ratios


def slower(found: Mapping[str, float], stored: Mapping[str, float]) -> list[str]:
    """A line for each ratio that is below the stored one by more than the tolerance.

    A stored ratio that is no longer measured counts as 0.
    """
    return [
        f"{name}: {found.get(name, 0.0):.3f}, stored {before:.3f}"
        for name, before in stored.items()
        if found.get(name, 0.0) < (1 - TOLERANCE) * before
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark.check", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians are of these")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement")
    parser.add_argument("--update", action="store_true", help="store the ratios")
    given = parser.parse_args(arguments)
    options = Options(
        rounds=given.rounds,
        seconds=given.seconds,
        peer_python=sys.executable,
        data_dir=None,
        steps={"ResNet-18, bfloat16": [*SMALL, *BFLOAT16]},
    )
    stored = None if given.update else json_files.read(STORED, SHAPE, "update")
    if not given.update and stored is None:
        sys.exit(f"{STORED.name}: received no such file; --update makes it")
    found = measure(options)
    if stored is None:
        json_files.write(STORED, {"machine": machine.describe(), "ratios": found})
        print(f"wrote {STORED}")
        return
    for name, ratio in found.items():
        print(f"{ratio:7.3f}  stored {stored['ratios'].get(name, 0):7.3f}  {name}")
    if lines := slower(found, stored["ratios"]):
        here, there = (
            machine.describe()["processor"],
            stored["machine"].get("processor"),
        )
        note = "" if here == there else f" (stored on another processor, {there})"
        sys.exit(f"slower{note}: " + "; ".join(lines))


if __name__ == "__main__":
    sys.exit(terminal.run("benchmark.check", main))
