"""Starts several workers on this machine: to try --strategy=multi_worker.

    python tools/launch_local.py --workers=2 -- --flagfile=configs/quickstart.cfg

Gives each process a TF_CONFIG with free ports of the loopback interface and prints what
they log; those of worker 1 begin with "[1] ". SIGTERM, SIGINT and SIGUSR1 are passed
on. Exits with the largest exit code of the workers.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from tf_dpred.config import refuse
from tf_dpred.system import cluster, terminal


def start(
    workers: int, flags: Sequence[str], processes: list[subprocess.Popen]
) -> None:
    """Starts `python -m tf_dpred.main` with these flags as each of the workers."""
    addresses = cluster.free_addresses(workers)
    for index in range(workers):
        config = cluster.tf_config(addresses, index)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tf_dpred.main", *flags],
                env={**os.environ, "TF_CONFIG": config},
                stderr=subprocess.PIPE,
                text=True,
                # Ctrl-C would reach them twice: from the terminal, and passed on.
                start_new_session=True,
            )
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("flags", nargs="*", help="of tf_dpred.main, after --")
    given = parser.parse_args()
    if given.workers < 1:
        refuse("workers", given.workers, "at least 1")
    processes: list[subprocess.Popen] = []

    def pass_on(number: int, frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, pass_on)
    start(given.workers, given.flags, processes)

    def show(index: int, process: subprocess.Popen) -> None:
        for line in process.stderr:
            print(f"[{index}] {line}", end="", file=sys.stderr, flush=True)

    readers = [
        threading.Thread(target=show, args=pair) for pair in enumerate(processes)
    ]
    for reader in readers:
        reader.start()
    codes = [process.wait() for process in processes]
    for reader in readers:
        reader.join()
    # A worker that a signal ended has a negative code.
    return max(128 - code if code < 0 else code for code in codes)


if __name__ == "__main__":
    sys.exit(terminal.run("launch_local", main))
