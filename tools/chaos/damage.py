"""Damage that a work directory or its images meet between two starts."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tf_dpred.records import checkpoints
from tf_dpred.records.workdir import Workdir

# What damages; returns whether there was something to damage.
Damage = Callable[[Workdir, random.Random], bool]


def _newest(change: Callable[[Path, random.Random], None]) -> Damage:
    def damage(workdir: Workdir, chance: random.Random) -> bool:
        paths = checkpoints.list_all(workdir.checkpoints)
        # The only one is left: without it all the run would be lost.
        if len(paths) > 1:
            change(paths[-1], chance)
        return len(paths) > 1

    return damage


def _flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _zeros(path: Path, chance: random.Random) -> None:
    """What some file systems leave of a file after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def _remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def _all_damaged(workdir: Workdir, chance: random.Random) -> bool:
    paths = checkpoints.list_all(workdir.checkpoints)
    for path in paths:
        _cut(path, chance)
    return bool(paths)


def _torn_line(workdir: Workdir, chance: random.Random) -> bool:
    """The end of a line that was being written."""
    path = chance.choice([workdir.epochs, workdir.theory])
    if path.exists():
        with path.open("a") as file:
            file.write('{"epoch": 9, "step": 99, "lo'[: chance.randrange(1, 28)])
    return path.exists()


def _lost_line(workdir: Workdir, chance: random.Random) -> bool:
    """The last line is cut: whether it comes again depends on the checkpoint."""
    path = workdir.epochs
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    if lines:
        os.truncate(path, path.stat().st_size - chance.randrange(2, len(lines[-1])))
    return bool(lines)


def _damaged_line(workdir: Workdir, chance: random.Random) -> bool:
    path = chance.choice([workdir.epochs, workdir.theory])
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    if len(lines) > 1:
        lines[0] = lines[0].replace(":", "", 1)
        path.write_text("".join(lines))
    return len(lines) > 1


def _damaged_flags(workdir: Workdir, chance: random.Random) -> bool:
    if workdir.flags.exists():
        _cut(workdir.flags, chance)
    return workdir.flags.exists()


def _no_flags(workdir: Workdir, chance: random.Random) -> bool:
    there = workdir.flags.exists()
    workdir.flags.unlink(missing_ok=True)
    return there


def _leftovers(workdir: Workdir, chance: random.Random) -> bool:
    """What a power cut can leave of files that were being written.

    They are written again by the steps that are left; so some have to be.
    """
    newest = checkpoints.list_all(workdir.checkpoints)[-1:]
    if workdir.result.exists() or (newest and checkpoints.step_of(newest[0]) > 10):
        return False
    workdir.checkpoints.mkdir(parents=True, exist_ok=True)
    for path in (
        workdir.checkpoints / ".step-00000003.npz.tmp",
        workdir.path / ".epochs.jsonl.tmp",
        workdir.path / ".result.json.tmp",
        workdir.path / ".flags.json.tmp",
    ):
        path.write_bytes(bytes(chance.randrange(99)))
    workdir.lock.write_text("process 1 on a machine that is no more")
    return True


def _times(workdir: Workdir, chance: random.Random) -> bool:
    """Files of the future and of 1970."""
    for path in workdir.path.rglob("*"):
        os.utime(path, (chance.choice([0, 2e9, 4e9]),) * 2)
    return workdir.path.exists()


def _copied(workdir: Workdir, chance: random.Random) -> bool:
    """Copied to another disk and back, in another order."""
    if not workdir.path.exists():
        return False
    with tempfile.TemporaryDirectory() as elsewhere:
        other = Path(elsewhere, "copy")
        shutil.copytree(workdir.path, other, copy_function=shutil.copyfile)
        shutil.rmtree(workdir.path)
        shutil.copytree(other, workdir.path, copy_function=shutil.copyfile)
    return True


# Those after which the run goes on and ends as the unbroken one.
HEALED: dict[str, Damage] = {
    "checkpoint_flipped": _newest(_flip),
    "checkpoint_cut": _newest(_cut),
    "checkpoint_zeros": _newest(_zeros),
    "checkpoint_gone": _newest(_remove),
    "torn_line": _torn_line,
    "no_flags": _no_flags,
    "leftovers": _leftovers,
    "times": _times,
    "copied": _copied,
}
# Those that are refused, so that nothing is changed.
REFUSED: dict[str, Damage] = {
    "all_checkpoints_damaged": _all_damaged,
    "damaged_line": _damaged_line,
    "damaged_flags": _damaged_flags,
}
# Those after which the program says what is lost.
SAID: dict[str, Damage] = {"lost_line": _lost_line}
