"""Measures how fast the parts of a run are, beside limits and other programs.

    python -m tools.benchmark                                  # all of it: `make bench`
    python -m tools.benchmark --part=input --data_dir=FOLDER   # of JPEG files
    python -m tools.benchmark --part=step --peer_python=PATH   # with torch, torchvision
    python -m tools.benchmark --part=step,checkpoint -- --flagfile=configs/cifar10.cfg

Every worker is a process; they measure in turns, and a table shows medians. Machines
differ, and so do the hours of one that is shared: compare only numbers of one table.
Peers (`tools/peers`) that are not installed are left out with one line.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from tf_dpred.config import paths
from tf_dpred.system import files, json_files, terminal
from tools.benchmark import machine
from tools.benchmark.options import STEPS, Options
from tools.benchmark.parts import PARTS


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--part", default=",".join(PARTS), help="some of the default, with commas"
    )
    parser.add_argument("--rounds", type=int, default=5, help="the median is of these")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a measurement")
    parser.add_argument("--peer_python", default=sys.executable, help="has the peers")
    parser.add_argument("--data_dir", help="folder of JPEG files; default: made up")
    parser.add_argument("--output", type=paths.argument, help="JSON file of the values")
    parser.add_argument("flags", nargs="*", help="of tf_dpred.main: one run's step")
    given = parser.parse_args()
    given.part = given.part.split(",")
    unknown = [name for name in given.part if name not in PARTS]
    if unknown:
        parser.error(f"--part: received {unknown}, accepted: {', '.join(PARTS)}")
    if given.rounds < 1 or not given.seconds > 0:
        parser.error(
            f"received --rounds={given.rounds} --seconds={given.seconds}, "
            "accepted: 1 or more; above 0"
        )
    if given.data_dir is not None and not Path(given.data_dir).is_dir():
        parser.error(f"--data_dir: received {given.data_dir!r}, accepted: a folder")
    if shutil.which(given.peer_python) is None:
        parser.error(
            f"--peer_python: received {given.peer_python!r}, accepted: a program"
        )
    if given.output and not given.output.parent.is_dir():
        parser.error(
            f"--output: received {str(given.output)!r}, "
            "accepted: a file in a folder that is there"
        )
    if given.output:
        files.output_file(str(given.output), "a JSON file")
    return given


def main() -> None:
    given = arguments()
    options = Options(
        rounds=given.rounds,
        seconds=given.seconds,
        peer_python=given.peer_python,
        data_dir=given.data_dir,
        steps={" ".join(given.flags): given.flags} if given.flags else STEPS,
    )
    description = machine.describe()
    print("\n".join(f"- {name}: {value}" for name, value in description.items()))
    values: dict[str, Any] = {}
    result = {"machine": description, "arguments": sys.argv[1:], "values": values}
    for part in given.part:
        for table in PARTS[part](options):
            print("\n" + table.markdown(), flush=True)
            values[table.title] = table.values
        # After each part: a later one may fail.
        if given.output:
            json_files.write(given.output, result)


if __name__ == "__main__":
    sys.exit(terminal.run("benchmark", main))
