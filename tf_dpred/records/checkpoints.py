"""The file format of checkpoints: named arrays in one npz file.

A file holds every array under its variable's name, the list of these `names`,
`format_version` and, unless an early version wrote it, the identity of its `run`. A
file with a checkpoint's name is always whole (`files.whole`). Each array carries the
zip format's CRC-32, and the list tells whether all are there, so a cut or changed file
is noticed when it is read. Nothing in it can run code: `allow_pickle=False`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.system import files

CHECKPOINT_VERSION = 1
RUN = "run"  # the entry that holds the identity


class DamagedError(ValueError):
    """A checkpoint that was cut short or changed."""


def path_of(directory: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return directory / f"step-{step:08d}.npz"


def best_path_of(directory: Path, step: int) -> Path:
    """Where the best checkpoint lies (`--keep_best`), that of a step."""
    return directory / f"best-{step:08d}.npz"


def step_of(path: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(path.stem.rpartition("-")[2])


def list_all(directory: Path) -> list[Path]:
    """The checkpoints of a directory, oldest first; a user's copies do not count."""
    return _named("step", directory)


def list_best(directory: Path) -> list[Path]:
    """The best checkpoint; a crash may leave an older one before it."""
    return _named("best", directory)


def _named(kind: str, directory: Path) -> list[Path]:
    return sorted(filter(_is_ours, directory.glob(f"{kind}-*.npz")), key=step_of)


def others(directory: Path) -> list[Path]:
    """What looks like a checkpoint, under a name that no run gives: never touched."""
    return sorted(p for p in directory.glob("*.npz") if not _is_ours(p))


def _is_ours(path: Path) -> bool:
    """Whether a run wrote it, by its name: any other, as step-5.npz, is a user's."""
    found = re.fullmatch(r"(step|best)-([0-9]{8,18})", path.stem)
    if found is None or (path.exists() and not path.is_file()):
        return False
    name = path_of if found[1] == "step" else best_path_of
    return path == name(path.parent, int(found[2]))


def save(path: Path, state: Mapping[str, np.ndarray], run: str | None = None) -> None:
    """Writes a checkpoint; either all of it is there afterwards, or nothing.

    Args:
      path: of the file.
      state: name -> array.
      run: identity of the run.

    Raises:
      OSError: it could not be written (disk full, ...); nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format_version": CHECKPOINT_VERSION, "names": sorted(state)}
    if run is not None:
        header[RUN] = run
    files.write_arrays(path, header | dict(state))


def load(path: Path) -> dict[str, np.ndarray]:
    """Reads a checkpoint and checks every byte of it that matters.

    Raises:
      DamagedError: it was cut short or changed.
      Refused: it is of another format.
      OSError: it could not be read.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
    # A damaged zip file can make its reader raise almost anything, EINVAL included. But
    # an error of the disk or the network does not mean that the file is damaged.
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise DamagedError(f"{path} is damaged ({reason})") from error
    version = state.pop("format_version", None)
    names = state.pop("names", None)
    state.pop(RUN, None)
    if version is None:
        raise DamagedError(f"{path} is damaged (no format version)")
    if int(version) != CHECKPOINT_VERSION:
        refuse(
            "workdir",
            str(path),
            f"checkpoints of version {CHECKPOINT_VERSION}",
            detail=f" of format version {version}",
        )
    if names is None or sorted(state) != names.tolist():
        raise DamagedError(f"{path} is damaged (arrays are missing)")
    return state


def run_of(path: Path) -> str | None:
    """The identity of the run that wrote a whole checkpoint; None: an early version.

    Raises:
      OSError: it could not be read.
    """
    with np.load(path, allow_pickle=False) as file:
        return str(file[RUN]) if RUN in file.files else None


def check_is_of(path: Path, run: str | None) -> None:
    """Checks that a whole checkpoint is of the run to which its directory belongs.

    One without an identity, of an early version, passes.

    Args:
      path: of the checkpoint.
      run: identity of the run; None where it was not known yet.

    Raises:
      Refused: it is another run's; both are named.
    """
    found = run_of(path)
    if found not in (None, run):
        refuse(
            "workdir",
            str(path),
            f"those of {run or 'the run of an early version'} to which the directory "
            "belongs, or a new workdir",
            detail=f", a checkpoint of the run {found}",
        )


def load_latest(directory: Path) -> tuple[Path, dict[str, np.ndarray]] | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over.

    Returns:
      (path, state), or None where there is no checkpoint at all.

    Raises:
      Refused: the newest that is whole is of another format, or there are checkpoints
        and none is whole. Starting over, or further back, without a word would throw a
        run away.
    """
    paths = list_all(directory)
    for path in reversed(paths):
        try:
            return path, load(path)
        except DamagedError as error:
            logging.warning("%s: trying the one before it", error)
    if paths:
        refuse(
            "workdir",
            str(directory.parent),
            "at least one that is whole, or a new workdir",
            detail=", whose checkpoints are all damaged",
        )
    return None


def find(directory: Path, which: str) -> tuple[Path, dict[str, np.ndarray]]:
    """The checkpoint that `--checkpoint` names.

    Args:
      directory: of the checkpoints.
      which: `last` (that is whole), `best`, or a step.

    Returns:
      (path, state).

    Raises:
      Refused: there is none, or it is damaged or of another format.
    """
    if which == "last":
        found = load_latest(directory)
        if found is None:
            accepted = "a work directory that holds a checkpoint"
            refuse("workdir", str(directory.parent), accepted)
        return found
    last, best = list_all(directory), list_best(directory)
    if which == "best":
        paths = best[-1:]
    else:
        paths = [path for path in (*last, *best) if step_of(path) == int(which)]
    if not paths:
        steps = ", ".join(str(step_of(path)) for path in last) or "none"
        kept = f"best (step {step_of(best[-1])})" if best else "--keep_best kept none"
        refuse("checkpoint", which, f"last, or a step of {directory}: {steps}; {kept}")
    try:
        return paths[0], load(paths[0])
    except DamagedError as error:
        refuse("checkpoint", which, "one that is whole", detail=f" ({error})")


def set_aside(directory: Path, after: Path) -> None:
    """Renames the checkpoints that are newer than `after` to `....npz.damaged`.

    They no longer count among those to keep, and do not get in the way of new ones.
    """
    for path in list_all(directory):
        if step_of(path) > step_of(after):
            files.replace(path, path.with_name(f"{path.name}.damaged"))


def remove_old(directory: Path, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints, and half-written files."""
    for path in list_all(directory)[:-keep]:
        path.unlink(missing_ok=True)
    for path in directory.glob(".*.npz.tmp"):
        if _is_ours(path.with_name(path.name.removeprefix(".").removesuffix(".tmp"))):
            path.unlink(missing_ok=True)


def save_best(
    directory: Path, step: int, state: Mapping[str, np.ndarray], run: str | None = None
) -> None:
    """Writes the best checkpoint in place of an older one; as `save`.

    Raises:
      OSError: it could not be written; the older one is intact.
    """
    path = best_path_of(directory, step)
    save(path, state, run)
    for other in list_best(directory):
        if other != path:
            other.unlink(missing_ok=True)
