"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata

from tf_dpred.system import processor

# The instructions that decide the rate of a product.
VECTORS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def describe() -> dict[str, str]:
    """Processor, cores, memory, system, versions, threads, load."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    instructions = processor.described("flags").split()
    threads = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
    return {
        "processor": f"{processor.described('model name') or platform.machine()} "
        f"({', '.join(v for v in VECTORS if v in instructions)})",
        "cores": str(cores()),
        "memory": f"{_memory() / 1e9:.0f} GB",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **versions,
        "threads": ", ".join(threads) or "as TensorFlow chooses",
        "oneDNN": f"{processor.ONEDNN}={os.environ.get(processor.ONEDNN, 'not set')}",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def cores() -> int:
    # What this process may use, where the system tells.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
