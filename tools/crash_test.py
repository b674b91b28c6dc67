"""Kills a training run again and again and shows that nothing is lost.

    python tools/crash_test.py --kills=20 -- --flagfile=configs/quickstart.cfg
    python tools/crash_test.py --signal=SIGTERM -- ...any flags of tf_dpred.main...

Trains once unbroken, then once with a signal at random times, starting the same command
again after each, until at least `--kills` signals were sent and the run is done. Every
other time is counted from when the run begins to log, so that a slow start does not
shield the training. Exits with 0 only if every variable of the two last checkpoints is
equal to the bit, and so is every point of the loss curve, also if logged repeatedly.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tf_dpred import errors
from tf_dpred.config import paths, refuse
from tf_dpred.records import checkpoints
from tf_dpred.system import terminal


def command(workdir: Path, flags: list[str]) -> list[str]:
    return [
        sys.executable,
        "-m",
        "tf_dpred.main",
        *flags,
        "--deterministic",
        f"--workdir={workdir}",
    ]


def train_unbroken(workdir: Path, flags: list[str]) -> float:
    """Runs to the end -> seconds it took."""
    start = time.monotonic()
    subprocess.run(command(workdir, flags), check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - start


def train_broken(
    workdir: Path, flags: list[str], kills: int, number: int, longest: float
) -> int:
    """Runs to the end through signals at random times -> how many were sent."""
    sent = 0
    while True:
        log = workdir.with_suffix(".log").open("a")
        process = subprocess.Popen(command(workdir, flags), stderr=log)
        if sent < kills:
            if sent % 2:
                wait_for_training(process, workdir)
            try:
                process.wait(random.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                sent += 1
        code = process.wait()
        step = last_step(workdir)
        print(f"{sent} signals, exit code {code}, last checkpoint: {step}", flush=True)
        if code == 0:
            return sent
        # SIGTERM kills a process that has not set up its handlers yet.
        if code not in (-number, errors.PREEMPTED):
            sys.exit(f"exit code {code}; see {log.name}")


def wait_for_training(process: subprocess.Popen, workdir: Path) -> None:
    """Waits until the process has an event file of its own, or has ended."""
    before = event_files(workdir)
    while process.poll() is None and event_files(workdir) == before:
        time.sleep(0.1)


def event_files(workdir: Path) -> list[Path]:
    return sorted((workdir / "tensorboard").glob("*"))


def last_step(workdir: Path) -> str:
    paths = checkpoints.list_all(workdir / "checkpoints")
    return paths[-1].stem if paths else "none"


def differing_variables(a: Path, b: Path) -> list[str]:
    """Names of the arrays of two runs' last checkpoints that are not bit-equal."""
    first, second = (checkpoints.load_latest(run / "checkpoints")[1] for run in (a, b))
    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first
        or name not in second
        or first[name].tobytes() != second[name].tobytes()
    )


def loss_curve(workdir: Path) -> dict[int, set[float]]:
    """Step -> every loss that TensorBoard holds for it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    curve: dict[int, set[float]] = {}
    for path in event_files(workdir):
        events = EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()
        if "train/loss" not in events.Tags()["tensors"]:
            continue
        for event in events.Tensors("train/loss"):
            value = float(np.asarray(make_ndarray(event.tensor_proto)))
            curve.setdefault(event.step, set()).add(value)
    return curve


def clear(directory: Path, *ours: Path) -> None:
    """Removes what an earlier test left; a directory with more in it is not ours."""
    directory.mkdir(parents=True, exist_ok=True)
    if others := sorted(set(directory.iterdir()) - set(ours)):
        refuse(
            "directory",
            str(directory),
            "a new directory, or that of an earlier test",
            detail=f", which holds {others[0].name}",
        )
    for path in ours:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", default="SIGKILL", choices=("SIGKILL", "SIGTERM"))
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds to a kill")
    parser.add_argument(
        "--directory", type=paths.argument, default=Path("runs/crash_test")
    )
    parser.add_argument("flags", nargs="*", help="of tf_dpred.main, after --")
    args = parser.parse_args()
    random.seed(args.seed)
    whole, broken = args.directory / "unbroken", args.directory / "broken"
    clear(args.directory, whole, broken, broken.with_suffix(".log"))
    seconds = train_unbroken(whole, args.flags)
    print(f"unbroken: {seconds:.0f} s, {last_step(whole)}", flush=True)
    number = getattr(signal, args.signal)
    sent = train_broken(broken, args.flags, args.kills, number, args.longest)

    differing = differing_variables(whole, broken)
    expected, found = loss_curve(whole), loss_curve(broken)
    epochs_equal = (whole / "epochs.jsonl").read_text() == (
        broken / "epochs.jsonl"
    ).read_text()
    count = len(checkpoints.load_latest(whole / "checkpoints")[1])
    print(f"{sent} times {args.signal}")
    if sent < args.kills:
        print(f"too few of {args.kills} signals: ask for more epochs")
    print(f"variables that differ: {len(differing)} of {count} {differing[:3]}")
    print(f"loss curve: {len(expected)} points, equal: {expected == found}")
    print(f"epochs.jsonl equal: {epochs_equal}")
    equal = not differing and expected == found and epochs_equal
    return 0 if equal and sent >= args.kills else 1


if __name__ == "__main__":
    sys.exit(terminal.run("crash_test", main))
