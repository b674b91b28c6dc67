"""What the host's processor can do; needs neither TensorFlow nor Keras."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What TensorFlow's kernels ask for; without it they convert number by number.
_COMPUTES_BY = {"mixed_bfloat16": "avx512f", "mixed_float16": "avx512_fp16"}


@functools.cache
def described(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; "" where it is not told."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() == field:
            return value.strip()
    return ""


def emulates(precision: str) -> bool:
    """Whether it is known that layers are far slower in `precision` than in float32.

    Never of other processors than x86-64, and never where the system does not tell.
    """
    needed = _COMPUTES_BY.get(precision)
    instructions = described("flags").split()
    if platform.machine() != "x86_64" or needed is None or not instructions:
        return False
    return needed not in instructions
