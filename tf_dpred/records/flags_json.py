"""flags.json as it is read: what a run was asked for, and which run it is.

Needs no TensorFlow: settings are read before it is imported.
"""

from __future__ import annotations

import secrets
from typing import Any

from tf_dpred.records.workdir import Workdir
from tf_dpred.system import json_files
from tf_dpred.system.files import printable

_SHAPE = {
    "flags": {str: Any},  # judged one by one, by the Config that they make
    "run?": str,
    "num_examples?": int,
    "images?": str,
    "versions?": {str: str},
    "environment?": {str: (str, None)},
    "devices?": [str],
    # What a program gave the run, see `own`.
    "own?": {
        "source?": str,
        "backbone?": {"name": str, "layers": str},
        "views?": {"name": str, "seen": str},
        "callbacks?": [str],
    },
}


def read(workdir: Workdir, flag: str = "workdir") -> dict[str, Any] | None:
    """What `provenance.write` wrote; None where there is no such file.

    Args:
      workdir: of the run.
      flag: that names it, for the message.

    Raises:
      Refused: it is damaged.
    """
    return json_files.read(workdir.flags, _SHAPE, flag)


def identity(workdir: Workdir) -> str | None:
    """Which run is recorded here; None where only its checkpoints can say it."""
    record = read(workdir)
    if record is None:
        return None
    return record.get("run") or new_identity(workdir)


def new_identity(workdir: Workdir) -> str:
    """A name that no other run has; it begins with that of its directory."""
    return f"{printable(workdir.path.absolute().name)}-{secrets.token_hex(4)}"
