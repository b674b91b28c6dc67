"""`make demo`: what pre-training gives, with a predictor and without.

Trains on scikit-learn's digits by the command line that a user would type and prints
the kNN accuracy on held-out digits of an untrained encoder, of one trained without
predictor and EMA, and of DirectPred.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tf_dpred.system import json_files, terminal

CHECKOUT = Path(__file__).resolve().parent.parent
RUNS = CHECKOUT / "runs" / "demo"
COLLAPSING = ["--predictor=none", "--noema", "--epochs=5"]


def pretrain(name: str, *flags: str) -> dict:
    """Runs the quickstart with some flags changed -> its result.json."""
    workdir = RUNS / name
    command = [
        sys.executable,
        "-m",
        "tf_dpred.main",
        "--flagfile=configs/quickstart.cfg",
        f"--workdir={workdir.relative_to(CHECKOUT)}",
        *flags,
    ]
    print("$ python", *command[1:], flush=True)
    subprocess.run(command, cwd=CHECKOUT, check=True)
    return json_files.read(workdir / "result.json") or {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(": ")[2])
    parser.parse_args()
    start = time.monotonic()
    shutil.rmtree(RUNS, ignore_errors=True)
    collapsed = pretrain("collapsed", *COLLAPSING)
    trained = pretrain("directpred")
    rows = [
        ("untrained", trained["knn_by_epoch"]["0"], None),
        ("no predictor, no EMA", collapsed["knn"], collapsed["feature_std"]),
        ("DirectPred", trained["knn"], trained["feature_std"]),
    ]
    print()
    print("encoder               epochs  kNN (held-out digits)  feature std x sqrt(d)")
    epochs = (0, collapsed["epoch"], trained["epoch"])
    for (name, accuracy, spread), count in zip(rows, epochs, strict=True):
        shown = "-" if spread is None else f"{spread:.3f}"
        print(f"{name:<22}{count:>6}  {accuracy:>21.3f}  {shown:>21}")
    print("(feature std: 1 = spread over the sphere, 0 = collapsed to one point)")
    print(f"{time.monotonic() - start:.0f} s; TensorBoard: {RUNS}")


if __name__ == "__main__":
    sys.exit(terminal.run("demo", main))
