"""What an import brings along, seen in a process of its own."""

import importlib
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


def brought_along(modules, heavy, *, before="sys"):
    """Those of the modules `heavy` that importing `modules` loads, as text: "[...]".

    What importing `before` loads does not count.
    """
    code = (
        f"import sys, {before}\n"
        "before = set(sys.modules)\n"
        f"import {modules}\n"
        f"print(sorted(set({sorted(heavy)!r}) & set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def print_own(*modules):
    """Imports them in a process of processes.py, and prints what it has imported.

    What Keras and TensorFlow import themselves does not count.
    """
    # An import that fails there is not reported, and each process would repeat it.
    assert "preloaded" in sys.modules or sys.platform != "linux"
    import preloaded

    for module in modules:
        importlib.import_module(module)
    print(*sorted(set(sys.modules) - preloaded.BEFORE_OUR_OWN), flush=True)
