"""A shortage of memory, in a line that says what to lower."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from tf_dpred.errors import OutOfMemory

# TensorFlow's error of a shortage is also that of a full disk, and where a GPU is full
# it may raise others: only the words tell.
_KINDS = {"ResourceExhaustedError", "InternalError", "UnknownError"}
_WORDS = re.compile(
    r"(OOM when|out of memory|failed to allocate|Dst tensor is not initialized).*", re.I
)


def shortage(error: Exception) -> str | None:
    """What could not be had, where an error is a shortage of memory; else None."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "MemoryError" in kinds:
        return str(error) or "MemoryError"
    found = _WORDS.search(str(error)) if kinds & _KINDS else None
    return None if found is None else found[0].strip()[:160]


@contextlib.contextmanager
def shortage_named(advice: str) -> Iterator[None]:
    """Makes one line of a shortage of memory.

    Args:
      advice: what to change, after "out of memory (...): ".

    Raises:
      OutOfMemory: there was one.
    """
    try:
        yield
    except Exception as error:
        if (found := shortage(error)) is None:
            raise
        raise OutOfMemory(f"out of memory ({found}): {advice}") from error
