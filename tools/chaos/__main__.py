"""Trains through faults at random and shows that nothing is lost (Linux).

    python -m tools.chaos --faults=100
    python -m tools.chaos --faults=20 --kinds=kill -- --recipe=quickstart --epochs=30

Trains once unbroken. Then starts the same run again and again, with faults inside of
it and damage between its starts, until `--faults` of them took effect. After each
start:

- it ended as one of its faults may end it, with an exit code, without a traceback, and
  with at most one line of last words, which docs/what_can_go_wrong.md has;
- every checkpoint is equal to the bit to that of the unbroken run at its step, if that
  is kept;
- epochs.jsonl and theory.jsonl are complete up to the newest checkpoint, and equal;
- no start went further back than the one before.

Where a run comes to its end, result.json and the curves of TensorBoard are equal, too.
The seed decides the faults and their moments. A network of one convolution trains on
some of the digits and on a folder of pictures, unless flags of tf_dpred.main are given
after `--`. Exits with 1 if anything is not as it should be, and shows what.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tf_dpred.records.workdir import Workdir
from tf_dpred.system import quiet

# Not `quiet.start`, which looks at the devices: a process that did may not be forked.
with quiet._silence(), quiet._without(quiet.UNUSED_BY_KERAS):
    from tools.chaos.campaign import KINDS, Campaign, Run
# For the digits; each start would import it again.
import sklearn.datasets
import sklearn.model_selection  # noqa: F401

SMALL = (
    "--image_size=16",
    "--projector_hidden=16",
    "--projector_dim=8",
    "--batch_size=8",
    "--train_size=40",
    "--epochs=3",
    "--knn_every=0",
    "--theory_every=2",
    "--log_every=100",
    "--precision=float32",
    "--checkpoint_every=2",
)


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[None]:
    """Mounts a small file system, which can be full; where this user may not, none."""
    size = f"size={megabytes}m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(directory)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        yield
        return
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def runs_below(directory: Path, flags: list[str]) -> list[Run]:
    """The given run, or two small ones: on digits, and on a folder with a thread that
    saves."""
    disk = directory / "disk"
    if flags:
        whole = Workdir(directory / "unbroken")
        return [Run(flags, Workdir(disk / "run"), whole, None, small=False)]
    pictures = directory / "pictures"
    write_pictures(pictures)
    folder = ["--dataset=folder", f"--data_dir={disk / 'images'}"]
    given: list[tuple[str, list[str], Path | None]] = [
        ("digits", [], None),
        ("folder", [*folder, "--background_checkpoints"], pictures),
    ]
    return [
        Run(
            [*SMALL, *more],
            Workdir(disk / name),
            Workdir(directory / f"unbroken_{name}"),
            images,
            small=True,
        )
        for name, more, images in given
    ]


def write_pictures(folder: Path) -> None:
    """Forty small pictures of noise."""
    from PIL import Image

    chance = random.Random(0)
    folder.mkdir(parents=True)
    for index in range(40):
        pixels = chance.randbytes(20 * 16 * 3)
        Image.frombytes("RGB", (20, 16), pixels).save(folder / f"{index:02}.png")


def report(campaign: Campaign, seconds: float) -> None:
    print("| fault | how the start ended | times |\n|---|---|---|")
    for (kind, outcome), count in sorted(campaign.outcomes.items()):
        print(f"| {kind} | {outcome} | {count} |")
    print(
        f"{campaign.faults} faults in {campaign.starts} starts, of which "
        f"{campaign.finished} came to the end of a run, {seconds:.0f} s; not as they "
        f"should be: {len(campaign.wrong)}"
    )
    for line in campaign.wrong:
        print(line)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--kinds", default=",".join(KINDS), help="separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    parser.add_argument("--directory", type=Path, default=Path("runs/chaos"))
    parser.add_argument("flags", nargs="*", help="of tf_dpred.main, after --")
    given = parser.parse_args(argv)
    kinds = given.kinds.split(",")
    if strange := sorted(set(kinds) - set(KINDS)):
        parser.error(f"--kinds: received {strange}, accepted: {', '.join(KINDS)}")
    directory = given.directory.resolve()
    shutil.rmtree(directory, ignore_errors=True)
    campaign = Campaign(kinds, random.Random(given.seed))
    begun = time.monotonic()
    (directory / "disk").mkdir(parents=True)
    with contextlib.ExitStack() as disk:
        if not given.flags:
            disk.enter_context(small_disk(directory / "disk", 2))
        (directory / "disk" / "loop").symlink_to("loop")  # for a read that fails
        runs = runs_below(directory, given.flags)
        for run in runs:
            run.train_unbroken()
        while campaign.faults < given.faults:
            if time.monotonic() - begun > 60 * given.minutes:
                campaign.wrong.append(f"only {campaign.faults} faults took effect")
                break
            campaign.one_start(campaign.chance.choice(runs))
            done = f"{campaign.faults} faults, {campaign.starts} starts"
            print(done, file=sys.stderr, flush=True)
    report(campaign, time.monotonic() - begun)
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
