"""The processes of a multi-worker run, as TF_CONFIG describes them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from tf_dpred.config import refuse

ACCEPTED = (
    '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
    '"index": 0}}, with another index in each process'
)


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
      Refused: it is malformed, or asks for other tasks than workers.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(text, f"it is not JSON: {error}")
    if not isinstance(config, dict):
        _refuse(text, "it is not a JSON object")
    cluster, task = config.get("cluster"), config.get("task")
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        _refuse(text, "it lacks cluster or task")
    strange = sorted(set(cluster) - {"chief", "worker"})
    if strange:
        _refuse(text, f"its cluster has {strange[0]!r}")
    groups = [(kind, cluster.get(kind, [])) for kind in ("chief", "worker")]
    for kind, addresses in groups:
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            _refuse(text, f"{kind} is not a list of host:port")
    tasks = [(kind, i) for kind, found in groups for i in range(len(found))]
    mine = (task.get("type"), _index(task.get("index")))
    if type(mine[1]) is not int or mine not in tasks:  # true is 1, and so is 1.0
        _refuse(text, f"there is no task {mine[0]} {task.get('index')} in its cluster")
    addresses = tuple(address for _, found in groups for address in found)
    if len(set(addresses)) < len(addresses):
        _refuse(text, "an address occurs twice")
    return Cluster(addresses, tasks.index(mine))


def _refuse(text: str, reason: str) -> NoReturn:
    refuse("TF_CONFIG", text, ACCEPTED, detail=f" ({reason})")


def _is_address(address: Any) -> bool:
    if not isinstance(address, str):
        return False
    found = re.fullmatch(r"\S+:([0-9]{1,5})", address)
    return found is not None and 0 < int(found[1]) < 2**16


def _index(value: Any) -> Any:
    """TensorFlow takes the index as a number or as text."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    return value


def tf_config(addresses: Sequence[str], index: int) -> str:
    """TF_CONFIG for one of the workers at these addresses."""
    task = {"type": "worker", "index": index}
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": task})


def free_addresses(count: int) -> list[str]:
    """Addresses of this machine at which nothing listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]


def wait_for_all(cluster: Cluster, seconds: float) -> None:
    """Waits until every worker can be reached from this one.

    Called before TensorFlow does the same, which takes up to an hour and cannot be
    interrupted. Meanwhile, this process listens on its own port for the others.

    Raises:
      Refused: names the workers that do not answer within the time, or this one's
        address if it is taken.
    """
    mine = cluster.addresses[cluster.index]
    missing = [address for address in cluster.addresses if address != mine]
    end = time.monotonic() + seconds
    try:
        listener = socket.create_server(("", _split(mine)[1]), backlog=128)
    except OSError as error:
        refuse(
            "TF_CONFIG",
            mine,
            "a port of this machine that is free",
            detail=f" as the address of this worker ({error})",
        )
    with listener:
        while missing:
            missing = [address for address in missing if not _answers(address)]
            if missing and time.monotonic() > end:
                refuse(
                    "TF_CONFIG",
                    list(cluster.addresses),
                    "workers that all run and reach each other (--worker_timeout)",
                    detail=f", and after {seconds:g} s {', '.join(missing)} cannot be "
                    f"reached from {mine}",
                )
            time.sleep(0.2 if missing else 0)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_split(address), timeout=2).close()
    except OSError:
        return False
    return True
