"""Trains one configuration on several devices or in several ways and compares.

    python tools/compare_devices.py -- --flagfile=configs/quickstart.cfg --epochs=3
    python tools/compare_devices.py --runs=1,2,2w -- ...any flags of tf_dpred.main...
    python tools/compare_devices.py --runs=eager,graph,xla -- ...

`4` is one process with the CPU split into 4 mirrored devices, `2w` two processes over
loopback. `eager`, `graph` and `xla` run the step in these ways on one device. Prints
the largest difference of any variable of the last checkpoint from that of the first
run, relative to the variable's largest value, and of the logged losses. Variables that
are nothing but rounding (below 1e-6) are not compared.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from tf_dpred.config import paths, refuse
from tf_dpred.records import checkpoints
from tf_dpred.system import terminal

LAUNCHER = Path(__file__).with_name("launch_local.py")
NOISE = 1e-6
WAYS = {"eager": ["--run_eagerly"], "graph": [], "xla": ["--jit_compile"]}


def command(run: str, workdir: Path, flags: list[str]) -> list[str]:
    """The command that trains in one of the ways."""
    if run in WAYS:
        program = ["-m", "tf_dpred.main"]
        devices = ["--strategy=one", *WAYS[run]]
    elif run.endswith("w"):
        program = [str(LAUNCHER), f"--workers={run[:-1]}", "--"]
        devices = ["--strategy=multi_worker"]
    else:
        program = ["-m", "tf_dpred.main"]
        devices = [f"--logical_cpus={run}"]
    if run != "xla":  # `--jit_compile` does not go with it
        devices.append("--deterministic")
    fixed = ["--knn_every=0", "--quality_every=0", f"--workdir={workdir}"]
    return [sys.executable, *program, *flags, *devices, *fixed]


def differences(expected: dict, found: dict) -> list[tuple[float, str]]:
    """(difference over the largest value, name) of each variable, largest first."""
    result = []
    for name, value in expected.items():
        if not np.issubdtype(value.dtype, np.floating) or is_noise(value, found[name]):
            continue
        difference = np.max(np.abs(found[name] - value), initial=0)
        scale = np.max(np.abs(value), initial=np.finfo(value.dtype).tiny)
        result.append((float(difference / scale), name))
    return sorted(result, reverse=True)


def is_noise(*values: np.ndarray) -> bool:
    """Such as a bias in front of a BatchNorm, whose gradient is only rounding."""
    return max(np.max(np.abs(value), initial=0) for value in values) < NOISE


def losses(workdir: Path) -> np.ndarray:
    lines = (workdir / "epochs.jsonl").read_text().splitlines()
    return np.array([json.loads(line)["loss"] for line in lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="1,2,4", help="see above")
    parser.add_argument(
        "--directory", type=paths.argument, default=Path("runs/compare_devices")
    )
    parser.add_argument("flags", nargs="*", help="of tf_dpred.main, after --")
    given = parser.parse_args()
    first = None
    runs = given.runs.split(",")
    for run in runs:  # all of them, before the first one trains
        if run not in WAYS and not re.fullmatch(r"[1-9][0-9]*w?", run):
            refuse("runs", given.runs, f"{', '.join(WAYS)}, numbers, or numbers with w")
        if (given.directory / run).exists():
            refuse("directory", str(given.directory), f"one without {run}")
    for run in runs:
        workdir = given.directory / run
        done = subprocess.run(
            command(run, workdir, given.flags), stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            sys.exit(f"{run}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        path, state = checkpoints.load_latest(workdir / "checkpoints")
        if first is None:
            first = state, losses(workdir)
            print(f"{run:>5}: {len(state)} variables, {path.stem}", flush=True)
            continue
        found = differences(first[0], state)
        difference, name = found[0]
        loss = np.max(np.abs(losses(workdir) / first[1] - 1))
        where = f"{name} of {len(found)} variables"
        print(f"{run:>5}: {difference:.1e} ({where}), loss {loss:.1e}", flush=True)


if __name__ == "__main__":
    sys.exit(terminal.run("compare_devices", main))
