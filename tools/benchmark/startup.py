"""Seconds to import the package, and to the first step of the quickstart.

    echo | python -m tools.benchmark.startup

Every measurement is a new process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from tools.peers.serve import serve

IMPORTS = ("keras", "tf_dpred", "tf_dpred.train")
# Ends the run as soon as the first step is done.
FIRST_STEP = """
import os, sys
from tf_dpred import flags, main
import keras
train_function = keras.Model.make_train_function

def made(self, force=False):
    train_function(self, force)
    inner = self.train_function
    def first(iterator):
        float(inner(iterator)["loss"])
        os._exit(0)
    self.train_function = first

keras.Model.make_train_function = made
sys.argv = ["main", "--flagfile=configs/quickstart.cfg", "--workdir=" + sys.argv[1]]
main.run()
"""


def seconds(*command: str) -> float:
    """How long a new interpreter takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure() -> dict[str, float]:
    found = {f"import {name} s": seconds("-c", f"import {name}") for name in IMPORTS}
    with tempfile.TemporaryDirectory() as directory:
        found["first step s"] = seconds("-c", FIRST_STEP, directory)
    return found


if __name__ == "__main__":
    serve(measure)
