"""The processes of a multi-worker run, as TF_CONFIG describes them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

ACCEPTED = (
    '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
    '"index": 0}}, with another index in each process'
)


class WorkerLost(Exception):
    """Another worker of the run ended; all must be started again."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Who takes part, and which of them this process is.

    Attributes:
      addresses: "host:port" of each worker; the first one is the chief, which alone
        writes files.
      index: of this process.
    """

    addresses: tuple[str, ...]
    index: int


def from_environment() -> Cluster | None:
    """The cluster that TF_CONFIG describes; None if it is not set.

    Raises:
      ValueError: it is malformed, or asks for other tasks than workers.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        _refuse(text, f"it is no JSON: {error}")
    if not isinstance(config, dict):
        _refuse(text, "it is no JSON object")
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        _refuse(text, "it lacks cluster or task")
    strange = sorted(set(cluster) - {"chief", "worker"})
    if strange:
        _refuse(text, f"its cluster has {strange[0]!r}")
    groups = [(kind, cluster.get(kind, [])) for kind in ("chief", "worker")]
    for kind, addresses in groups:
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            _refuse(text, f"{kind} is no list of host:port")
    tasks = [(kind, i) for kind, found in groups for i in range(len(found))]
    mine = (task.get("type"), _index(task.get("index")))
    if mine not in tasks:
        _refuse(text, f"there is no task {mine[0]} {task.get('index')} in its cluster")
    addresses = tuple(address for _, found in groups for address in found)
    if len(set(addresses)) < len(addresses):
        _refuse(text, "an address occurs twice")
    return Cluster(addresses, tasks.index(mine))


def _refuse(text: str, reason: str) -> None:
    raise ValueError(f"TF_CONFIG: received {text!r} ({reason}), accepted: {ACCEPTED}.")


def _is_address(address: Any) -> bool:
    if not isinstance(address, str):
        return False
    found = re.fullmatch(r"\S+:(\d+)", address)
    return found is not None and 0 < int(found[1]) < 2**16


def _index(value: Any) -> Any:
    """TensorFlow takes the index as a number or as text."""
    return int(value) if isinstance(value, str) and value.isdigit() else value


@contextlib.contextmanager
def time_limit(cluster: Cluster, seconds: float, exit_code: int) -> Iterator[None]:
    """Ends the process with one line if what is inside takes longer.

    TensorFlow waits for the other workers for an hour, and nothing can interrupt it.

    Args:
      cluster: whose workers are looked for, to name those that do not answer.
      seconds: to wait.
      exit_code: of the process.
    """
    done = threading.Event()

    def watch() -> None:
        if done.wait(seconds):
            return
        others = [a for i, a in enumerate(cluster.addresses) if i != cluster.index]
        silent = [address for address in others if not _answers(address)]
        print(
            f"tf_dpred: TF_CONFIG: received {len(cluster.addresses)} workers, and "
            f"after {seconds:g} s {', '.join(silent) or 'some'} cannot be reached from "
            f"{cluster.addresses[cluster.index]}, accepted: workers that all run and "
            "reach each other (--worker_timeout).",
            file=sys.stderr,
            flush=True,
        )
        os._exit(exit_code)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return False
    return True
