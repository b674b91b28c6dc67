"""A run that was broken off, beside the same run unbroken: to the bit."""

from __future__ import annotations

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from tf_dpred.records import checkpoints
from tf_dpred.records.workdir import Workdir

Points = dict[tuple[str, int], set[float]]


def last_step(workdir: Workdir) -> int:
    """The step of the newest checkpoint; 0 without one."""
    paths = checkpoints.list_all(workdir.checkpoints)
    return checkpoints.step_of(paths[-1]) if paths else 0


def differences(workdir: Workdir, whole: Workdir, *, ended: bool) -> list[str]:
    """What of a run is not as in the unbroken one, in words.

    Args:
      workdir: of the run, which may be anywhere between its steps.
      whole: of the unbroken one, with all of its checkpoints or the last ones.
      ended: the run came to its end: nothing may be missing.
    """
    found = []
    for path in checkpoints.list_all(workdir.checkpoints):
        same_step = whole.checkpoints / path.name
        names = differing_arrays(path, same_step) if same_step.exists() else []
        if names:
            found.append(f"{path.name}: {', '.join(names[:3])} differ")
    step = last_step(workdir)
    if ended and step != last_step(whole):
        found.append(f"the last checkpoint is of step {step}")
    for mine, its in ((workdir.epochs, whole.epochs), (workdir.theory, whole.theory)):
        found += differing_lines(mine, its, step)
    if ended and workdir.result.read_bytes() != whole.result.read_bytes():
        found.append("result.json differs")
    leftovers = [p.name for p in workdir.path.rglob(".*") if p.name != ".lock"]
    if ended and leftovers:
        found.append(f"left behind: {leftovers}")
    return found


def differing_arrays(a: Path, b: Path) -> list[str]:
    """Names of the arrays of two checkpoints that are not equal to the bit."""
    first, second = checkpoints.load(a), checkpoints.load(b)
    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first
        or name not in second
        or first[name].tobytes() != second[name].tobytes()
    )


def differing_lines(path: Path, whole: Path, step: int) -> list[str]:
    """Whether the records up to a checkpoint's step are all there, and no others."""
    expected = whole.read_text().splitlines(keepends=True)
    found = path.read_text().splitlines(keepends=True) if path.exists() else []
    if found and not found[-1].endswith("\n"):
        found.pop()  # being written
    # Without a checkpoint all of them come again, that of before the first step too.
    needed = sum(0 < step >= json.loads(line)["step"] for line in expected)
    if found == expected[: len(found)] and len(found) >= needed:
        return []
    return [f"{path.name}: {len(found)} lines, {needed} expected at step {step}"]


def lost_epochs(workdir: Workdir, whole: Workdir, step: int) -> list[int]:
    """Epochs up to a checkpoint's step of which epochs.jsonl has no whole line."""
    found = workdir.epochs.read_text() if workdir.epochs.exists() else ""
    lines = whole.epochs.read_text().splitlines(keepends=True)
    lost = [json.loads(line) for line in lines if line not in found]
    return [entry["epoch"] for entry in lost if 0 < entry["step"] <= step]


def curves(workdir: Workdir) -> Points:
    """(curve, step) -> every value that TensorBoard holds; without measured times."""
    points: Points = {}
    for path in sorted(workdir.tensorboard.glob("events.*")):
        events = EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()
        for tag in events.Tags()["tensors"]:
            if not tag.startswith(("train/", "epoch/", "spectrum/", "eval/")):
                continue
            for event in events.Tensors(tag):
                value = make_ndarray(event.tensor_proto)
                if value.ndim == 0:
                    points.setdefault((tag, event.step), set()).add(float(value))
    return points


def differing_points(found: Points, expected: Points, *, gaps: bool) -> list[str]:
    """Points that have another value, or are missing where no gap is allowed."""
    wrong = [point for point in found if found[point] != expected.get(point)]
    missing = [] if gaps else sorted(expected.keys() - found.keys())
    return [f"{tag} at step {step} differs" for tag, step in wrong] + [
        f"{tag} at step {step} is missing" for tag, step in missing
    ]
