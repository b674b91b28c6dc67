"""Lets a terminal show what a program says, but not what its libraries say."""

from __future__ import annotations

import contextlib
import gc
import logging as standard_logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

from absl import logging

from tf_dpred.system import keras_settings

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# Keras imports these if they are installed, for wrappers and plots that nothing here
# uses. It takes a third of the time in which TensorFlow and Keras load.
UNUSED_BY_KERAS = ("matplotlib", "sklearn")


@contextlib.contextmanager
def start() -> Iterator[None]:
    """Loads TensorFlow, quickly and quietly, for what is imported inside.

        with quiet.start():
            import tensorflow as tf

    Its libraries print before any log level applies to them (tensorflow#100442), and
    again when devices are first listed, which is done here. What they print is held
    back, and shown if something raises. To see it when the process is killed, set
    TF_CPP_MIN_LOG_LEVEL: then nothing is held back.

    Keras is loaded without scikit-learn and Matplotlib, so that `keras.wrappers` and
    its plots of images do not work in this process.

    Raises:
      Refused: see `keras_settings.check`.
    """
    keras_settings.check()
    with _silence():
        with _without(UNUSED_BY_KERAS), _no_search_for_garbage():
            import tensorflow as tf
        tf.config.list_physical_devices()
        yield


@contextlib.contextmanager
def only_warnings() -> Iterator[None]:
    """Keeps libraries from logging about their own work; warnings still come out."""
    before = logging.get_verbosity()
    logging.set_verbosity(min(before, logging.WARNING))
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def nothing_logged() -> Iterator[None]:
    """Keeps all of Python's loggers silent, also those that log errors."""
    before = standard_logging.root.manager.disable
    standard_logging.disable(standard_logging.CRITICAL)
    try:
        yield
    finally:
        standard_logging.disable(before)


@contextlib.contextmanager
def _without(packages: Sequence[str]) -> Iterator[None]:
    """Makes imports of these packages fail, unless they are loaded already."""
    absent = [name for name in packages if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # as import itself does
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextlib.contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Lets Python make a million objects that stay, and then look at them no more.

    Afterwards it searches for garbage after each 50,000 new objects instead of 700: the
    tracing of a network makes many objects that stay as well.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(50_000)
        gc.enable()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    if LOG_LEVEL in os.environ or sys.stderr is None:
        yield
        return
    try:
        held = tempfile.TemporaryFile()
    except OSError:  # a machine without a directory for such files is no reason to stop
        yield
        return
    os.environ[LOG_LEVEL] = "2"
    sys.stderr.flush()
    stderr = os.dup(2)
    with held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
