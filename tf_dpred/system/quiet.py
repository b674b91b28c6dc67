"""A terminal that shows what a program says, and not what its libraries do."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


@contextlib.contextmanager
def start() -> Iterator[None]:
    """Holds back what TensorFlow's libraries print while they load.

        with quiet.start():
            import tensorflow as tf

    They print before any log level applies to them (tensorflow#100442), and once more
    at the first look at the devices, which is taken here. If that raises, all of it is
    shown; of what kills the process, only with TF_CPP_MIN_LOG_LEVEL set, as then
    nothing is held back.
    """
    if LOG_LEVEL in os.environ or sys.stderr is None:
        yield
        return
    os.environ[LOG_LEVEL] = "2"
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            if "tensorflow" in sys.modules:
                sys.modules["tensorflow"].config.list_physical_devices()
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
