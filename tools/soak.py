"""Trains for a long time and looks whether memory or open files grow (Linux).

    python tools/soak.py -- --flagfile=configs/quickstart.cfg --epochs=100000

Starts `tf_dpred.main` with the flags, samples the resident memory and the number of
open files of the process every `--every` seconds, and after `--minutes` stops it by
SIGTERM. Writes the samples to `--output` and prints them in ten lines. The first fifth,
in which TensorFlow's allocator and caches fill, is left out of the fitted growth. Exits
with 1 if the memory grew by more than `--most` MB per hour, or files stay open.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tf_dpred import errors
from tf_dpred.config import paths
from tf_dpred.system import terminal
from tf_dpred.system.files import output_file


def sample(pid: int) -> tuple[float, int]:
    """Resident memory in MB, and open files."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return memory, len(os.listdir(f"/proc/{pid}/fd"))


def watch(process: subprocess.Popen, seconds: float, every: float) -> np.ndarray:
    """Samples until the time is up -> rows of seconds, MB, files."""
    start = time.monotonic()
    rows = []
    while (now := time.monotonic() - start) < seconds:
        if process.poll() is not None:
            sys.exit(f"the run ended after {now:.0f} s, exit code {process.returncode}")
        rows.append((now, *sample(process.pid)))
        time.sleep(every)
    return np.array(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds")
    parser.add_argument("--most", type=float, default=20.0, help="MB per hour")
    parser.add_argument("--output", type=paths.argument, default=Path("soak.csv"))
    parser.add_argument("flags", nargs="*", help="of tf_dpred.main, after --")
    given = parser.parse_args()
    output_file(str(given.output), "a csv file")
    command = [sys.executable, "-m", "tf_dpred.main", *given.flags]
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        rows = watch(process, given.minutes * 60, given.every)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code != errors.PREEMPTED:
        sys.exit(f"exit code {code} after SIGTERM")
    with given.output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seconds", "megabytes", "open_files"))
        writer.writerows(rows.round(1).tolist())
    for part in np.array_split(rows, 10):
        seconds, memory, files = np.median(part, axis=0)
        print(f"{seconds / 60:6.1f} min  {memory:8.0f} MB  {files:4.0f} open files")
    settled = rows[len(rows) // 5 :]
    slope = np.polyfit(settled[:, 0] / 3600, settled[:, 1], 1)[0]
    first, last = np.array_split(settled[:, 2], 2)
    more_files = np.median(last) - np.median(first)
    print(f"growth: {slope:.1f} MB per hour, {more_files:.0f} open files")
    return 1 if slope > given.most or more_files > 0 else 0


if __name__ == "__main__":
    sys.exit(terminal.run("soak", main))
