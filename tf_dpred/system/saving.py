"""What Keras writes into a file of an object, and makes again from it."""

from __future__ import annotations

import re
from typing import Any

import keras


def stable_name(variable: keras.Variable) -> str:
    """The name of a variable; `variable` where its layer gave it none.

    Keras numbers those: `variable_20` is `variable_31` in the next model of a process.
    """
    return re.sub(r"^variable_\d+$", "variable", variable.name)


def config_of(name: str, value: Any) -> Any:
    """The config of an object, from which Keras makes an equal one; None stays None.

    Args:
      name: of the argument, for the error.
      value: a Keras object, or a function or an object of a registered class.

    Raises:
      ValueError: Keras could not make it again in safe mode.
    """
    accepted = (
        "None, a Keras layer, or a function or a class with get_config that is "
        "decorated with keras.saving.register_keras_serializable"
    )
    # Keras itself would write code into the file, and refuse to read it.
    if getattr(value, "__name__", "") != "<lambda>":
        try:
            config = keras.saving.serialize_keras_object(value)
            keras.saving.deserialize_keras_object(config, safe_mode=True)
            return config
        except (TypeError, ValueError, AttributeError, NotImplementedError):
            pass
    raise ValueError(f"Cannot save {name}: received {value!r}, accepted: {accepted}.")
