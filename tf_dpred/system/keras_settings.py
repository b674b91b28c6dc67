"""Settings of Keras, made outside of this package, that it cannot work with.

Needs neither TensorFlow nor Keras: another backend than TensorFlow may not even be
importable.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_dpred.config import refuse

BACKEND = "KERAS_BACKEND"
# F and the norms need this precision; channels come last in all of the package.
ACCEPTED = {
    "backend": ("tensorflow",),
    "image_data_format": ("channels_last",),
    "floatx": ("float32", "float64"),
}


def check() -> None:
    """Refuses a backend, a float type or an order of channels that does not work.

    Raises:
      Refused: names the variable, the entry of keras.json or the function of
        `keras.config` that it comes from.
    """
    for where, name, value in _found():
        if value not in ACCEPTED[name]:
            refuse(where, value, " or ".join(ACCEPTED[name]))


def _found() -> Iterator[tuple[str, str, Any]]:
    """(where it comes from, name, value) of each setting."""
    keras = sys.modules.get("keras")
    if keras is not None and hasattr(keras, "config"):
        yield "keras.config.backend()", "backend", keras.config.backend()
        for name in ("image_data_format", "floatx"):
            yield f"keras.config.{name}()", name, getattr(keras.config, name)()
        return
    path = _file()
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError):
        settings = {}  # as Keras does
    if os.environ.get(BACKEND):
        settings["backend"] = os.environ[BACKEND]
    for name, accepted in ACCEPTED.items():
        variable = name == "backend" and os.environ.get(BACKEND)
        where = BACKEND if variable else f"{path}: {name}"
        yield where, name, settings.get(name, accepted[0])


def _file() -> Path:
    """The keras.json that Keras reads when it is imported."""
    home = os.path.expanduser("~")
    base = home if os.access(home, os.W_OK) else "/tmp"
    directory = os.environ.get("KERAS_HOME", os.path.join(base, ".keras"))
    return Path(os.path.expanduser(directory), "keras.json")
