"""How a measuring process talks: a line in, a line of JSON out. Standard library only.

The process sets up and warms up, says that it is ready, and measures once for each line
that it reads, so that another one can take turns between several of them. By hand:

    echo | python tools/peers/torch_step.py --backbone=resnet18
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable


def serve(measure: Callable[[], dict[str, float]], **about) -> None:
    """Measures once for each line of the standard input.

    Args:
      measure: returns names and numbers; the process's peak memory is added.
      **about: said when ready, such as versions.
    """
    print(json.dumps({"ready": about}), flush=True)
    for _ in sys.stdin:
        found = measure()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Bytes on macOS, kilobytes elsewhere.
        found["peak MB"] = peak / (1e6 if sys.platform == "darwin" else 1e3)
        print(json.dumps(found), flush=True)


def rate(step: Callable[[], object], size: int, seconds: float) -> float:
    """Images per second of `step()`, of `size` images, over at least `seconds`."""
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < seconds:
        step()
        calls += 1
    return calls * size / (time.perf_counter() - start)


def steady_rate(step: Callable[[], object], size: int, seconds: float) -> float:
    """`rate`, after as long a time in which what was prepared before is used up."""
    rate(step, size, seconds)
    return rate(step, size, seconds)


def milliseconds(call: Callable[[], object], seconds: float) -> float:
    """Mean time of `call()` over at least `seconds`."""
    return 1e3 / rate(call, 1, seconds)
