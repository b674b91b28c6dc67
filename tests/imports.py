"""What an import brings along, seen in an interpreter of its own."""

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
