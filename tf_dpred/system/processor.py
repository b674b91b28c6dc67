"""What the host's processor can do; needs neither TensorFlow nor Keras."""

from __future__ import annotations

import functools
import os
import platform
import sys
import warnings
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What TensorFlow's kernels need; without it they convert each number to float32.
_COMPUTES_BY = {"mixed_bfloat16": "avx512f", "mixed_float16": "avx512_fp16"}
_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
# On a processor with one of these, TensorFlow takes oneDNN's kernels by itself.
_FOR_NEURAL_NETWORKS = frozenset(
    "amx_bf16 amx_int8 amx_tile avx512_bf16 avx512_vnni avx_vnni".split()
)


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

    False for processors other than x86-64, and where the system does not tell.
    """
    needed = _COMPUTES_BY.get(precision)
    instructions = described("flags").split()
    if platform.machine() != "x86_64" or needed is None or not instructions:
        return False
    return needed not in instructions


def computes_bfloat16() -> bool:
    """Whether the processor is known to have instructions for products in bfloat16."""
    instructions = described("flags").split()
    return platform.machine() == "x86_64" and not _BFLOAT16.isdisjoint(instructions)


def ask_for_onednn() -> None:
    """Makes TensorFlow take oneDNN's kernels on x86-64, unless the user has chosen.

    By itself it takes them only on processors with instructions for neural networks,
    but with AVX2 alone, too, they are up to twice as fast (docs/benchmarks.md). It
    reads the variable once, when it loads; afterwards, there is only a warning.
    """
    if platform.machine() != "x86_64" or ONEDNN in os.environ:
        return
    if "tensorflow" not in sys.modules:
        os.environ[ONEDNN] = "1"
        return
    instructions = described("flags").split()
    if instructions and _FOR_NEURAL_NETWORKS.isdisjoint(instructions):
        warnings.warn(
            "tf_dpred was imported after TensorFlow, which is up to 2 times slower on "
            f"this processor for it: import tf_dpred first, or set {ONEDNN}=1",
            stacklevel=3,
        )
