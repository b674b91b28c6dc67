"""What the runner says: lines of its log, and refusals."""

from __future__ import annotations

import sys
import time
from typing import NoReturn

FAILED, REFUSED, PREEMPTED = 1, 2, 75


def refuse(name: str, received, accepted: str) -> NoReturn:
    """Ends with one line: what was received, what is accepted."""
    print(
        f"pjrt_run: {name}: received {received}, accepted: {accepted}.", file=sys.stderr
    )
    sys.exit(REFUSED)


def log(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
