"""Starts a run again and again, with faults, and judges how each start ends."""

from __future__ import annotations

import collections
import dataclasses
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tf_dpred import errors
from tf_dpred.callbacks.preemption import Preemption
from tf_dpred.records.workdir import Workdir
from tools.chaos import compare, damage, page
from tools.chaos.inside import ACTS, FILLER, Strike
from tools.chaos.start import Ended, Start

KINDS = (*ACTS, *damage.HEALED, *damage.REFUSED, *damage.SAID)
# After these a start may end with one line and exit code 1 or 2.
MAY_FAIL = {
    "full_disk",
    "file_size",
    "open_files",
    "no_writes",
    "no_reads",
    "no_sync",
    "image_vanishes",
    "image_fails",
}
# Each new thread of TensorFlow opens /dev/urandom, and ends the process if it cannot.
NO_RANDOM_DEVICE = "random_device"
# After these the curves of TensorBoard may have a gap.
MAY_LEAVE_GAPS = {"full_disk", "file_size", "open_files", "no_writes"}
SIGNALS = {"stop", "stop_twice", "hang_up"}
ENDS = {"kill", *SIGNALS}


@dataclasses.dataclass
class Run:
    """One run that is broken off again and again.

    Attributes:
      flags: of the program, but for the work directory.
      workdir: where it trains; its parent may be a small disk.
      whole: the work directory of the unbroken run.
      pictures: its images as they should be; None: other data than a folder.
      small: trains a small network instead of that of the flags, and keeps all
        checkpoints of the unbroken run.
      gaps: TensorBoard may have missed something of this run.
      moments: of the unbroken run.
    """

    flags: list[str]
    workdir: Workdir
    whole: Workdir
    pictures: Path | None
    small: bool
    gaps: bool = False
    moments: int = 0

    @property
    def images(self) -> list[Path]:
        """The image files that it trains on."""
        folder = self.workdir.path.with_name("images")
        return sorted(folder.iterdir()) if self.pictures else []

    def start(self, strikes: Sequence[Strike] = (), *more: str) -> Start:
        path = self.workdir.path
        flags = [*self.flags, "--deterministic", f"--workdir={path}", *more]
        return Start(flags, path, strikes, self.images, small=self.small)

    def put_images_in_order(self) -> None:
        if self.pictures:
            folder = self.workdir.path.with_name("images")
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.pictures, folder)

    def begin_again(self) -> None:
        shutil.rmtree(self.workdir.path, ignore_errors=True)
        self.gaps = False

    def train_unbroken(self) -> None:
        """Trains to the end.

        Raises:
          RuntimeError: that fails.
        """
        self.put_images_in_order()
        all_steps = ("--checkpoint_every=1", "--keep_checkpoints=1000")
        ended = self.start((), *(all_steps if self.small else ())).wait()
        if ended.code:
            raise RuntimeError("\n".join(ended.lines))
        self.moments = ended.moments
        shutil.copytree(self.workdir.path, self.whole.path)
        self.begin_again()


class Campaign:
    """Faults, one start after the other, and what came of them.

    Args:
      kinds: of `KINDS`.
      chance: decides everything.

    Attributes:
      outcomes: (kind, how the start ended) -> how often.
      wrong: what was not as it should be.
      starts, finished: how many there were, and runs that came to their end.
    """

    def __init__(self, kinds: Sequence[str], chance: random.Random):
        self.kinds = list(kinds)
        self.chance = chance
        self.outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.wrong: list[str] = []
        self.starts = self.finished = 0

    @property
    def faults(self) -> int:
        return sum(self.outcomes.values())

    def one_start(self, run: Run) -> None:
        """Damages the work directory, perhaps, and starts the program with faults.

        Args:
          run: is one start further afterwards, or begins again.
        """
        self.starts += 1
        before = run.whole.path.with_name("before")  # not on the small disk
        shutil.rmtree(before, ignore_errors=True)
        if run.workdir.path.exists():
            shutil.copytree(run.workdir.path, before)
        damaged = self._damage(run) if self.chance.random() < 0.4 else None
        step = compare.last_step(run.workdir)
        lost = damaged in damage.SAID and compare.lost_epochs(
            run.workdir, run.whole, step
        )
        alone = damaged in damage.REFUSED or damaged in damage.SAID
        strikes = [] if alone else self._draw(run)

        ended, second = self._start(run, strikes)
        struck = set(ended.struck)
        problems = judge(ended, damaged) + second
        if lost and not any(
            "warning" in line and "lacks" in line for line in ended.lines
        ):
            problems.append(f"not a word about what is lost: {lost}")
        # Other images give other numbers, and what is lost is not equal any more: the
        # work directory returns to what it was.
        returns = alone or "image_changes" in struck
        over = ended.code == 0 and not returns
        if not returns:
            run.gaps |= bool(struck & MAY_LEAVE_GAPS)
            problems += compare.differences(run.workdir, run.whole, ended=over)
            now = compare.last_step(run.workdir)
            if now < step and damaged is None:
                problems.append(f"went back from step {step} to {now}")
        if over and not problems:
            points = compare.curves(run.workdir), compare.curves(run.whole)
            problems += compare.differing_points(*points, gaps=run.gaps)

        outcome = "not as it should" if problems else describe(ended)
        for kind in [*ended.struck, *([damaged] if damaged else [])]:
            self.outcomes[kind, outcome] += 1
        if problems:
            self._show(problems, damaged, strikes, ended)
        run.put_images_in_order()
        run.workdir.path.with_name(FILLER).unlink(missing_ok=True)
        if problems or over:
            self.finished += over and not problems
            run.begin_again()
        elif returns:
            shutil.rmtree(run.workdir.path, ignore_errors=True)
            if before.exists():
                shutil.copytree(before, run.workdir.path)

    def _start(self, run: Run, strikes: Sequence[Strike]) -> tuple[Ended, list[str]]:
        """Starts and waits -> how it ended, and what was wrong with a second start."""
        process = run.start(strikes)
        problems: list[str] = []
        me = f"process {process.pid} on"
        asked = any(strike.kind == "second_start" for strike in strikes)

        def on_pause() -> None:
            if not asked:
                time.sleep(0.1)
                return
            lock = run.workdir.lock
            text = lock.read_text() if lock.exists() else ""
            other = run.start().wait()
            # Before the first one has the lock, the second one may take it.
            may_train = me not in text
            refused = other.code == errors.REFUSED and len(other.last_words) == 1
            named = refused and me in other.last_words[0]
            if not named and not (may_train and other.code == 0):
                problems.append(f"second start: {other.code} {other.last_words}")

        return process.wait(on_pause), problems

    def _damage(self, run: Run) -> str | None:
        """Damages the work directory -> how; None if there was nothing to damage."""
        known = {**damage.HEALED, **damage.REFUSED, **damage.SAID}
        kinds = [kind for kind in known if kind in self.kinds]
        if not kinds:
            return None
        kind = self.chance.choice(kinds)
        return kind if known[kind](run.workdir, self.chance) else None

    def _draw(self, run: Run) -> list[Strike]:
        """Up to four faults for a start, one of which may end it."""
        kinds = [kind for kind in ACTS if kind in self.kinds]
        if not run.images:
            kinds = [kind for kind in kinds if not kind.startswith("image_")]
        if not os.path.ismount(run.workdir.path.parent):
            kinds = [kind for kind in kinds if kind != "full_disk"]
        ends = [kind for kind in kinds if kind in ENDS]
        others = [kind for kind in kinds if kind not in ENDS]
        chance = self.chance
        chosen = chance.sample(others, min(len(others), chance.randrange(4)))
        if ends and (chance.random() < 0.7 or not chosen):
            chosen.append(chance.choice(ends))
        return [
            Strike(
                kind,
                at=chance.randrange(run.moments),
                # Before that the images are listed: there would only be fewer.
                step=1 if kind == "image_vanishes" else 0,
                lasts=chance.choice([1, 3, 10, 30]),
                delay=chance.choice([0, 0, chance.random() / 2]) if kind in ENDS else 0,
                number=chance.randrange(2**31),
            )
            for kind in chosen
        ]

    def _show(
        self,
        problems: list[str],
        damaged: str | None,
        strikes: Sequence[Strike],
        ended: Ended,
    ) -> None:
        self.wrong.append(f"start {self.starts}: {'; '.join(problems)}")
        print(self.wrong[-1])
        print(f"  damage: {damaged}", *strikes, sep="\n  ")
        print(f"  took effect: {ended.struck}; exit code {ended.code}")
        print("".join(f"  | {line}\n" for line in ended.lines[-40:]), flush=True)


def judge(ended: Ended, damaged: str | None) -> list[str]:
    """What is wrong with how a start ended, in words.

    Args:
      ended: with the faults that took effect.
      damaged: how the work directory was damaged before, or None.
    """
    struck, words = set(ended.struck), ended.last_words
    may = {0}
    if "kill" in struck:
        may.add(-9)
    if struck & SIGNALS:
        numbers = Preemption.SIGNALS
        may |= {errors.PREEMPTED, errors.INTERRUPTED, -1}
        may |= {-n for n in numbers} | {128 + n for n in numbers}
    if struck & MAY_FAIL:
        may |= {errors.FAILED, errors.REFUSED}
    if "open_files" in struck and any(NO_RANDOM_DEVICE in line for line in ended.lines):
        may.add(-signal.SIGABRT)
    if damaged in damage.REFUSED:
        may = {errors.REFUSED}
    problems = [line for line in ended.lines if "Traceback" in line]
    if ended.code not in may:
        problems.append(f"exit code {ended.code}")
    says = ended.code in (errors.FAILED, errors.REFUSED, errors.PREEMPTED)
    if says and "terminal" not in struck:
        if len(words) != 1:
            problems.append(f"{len(words)} last words")
        problems += [
            f"not in {page.PAGE.name}: {line!r} with exit code {ended.code}"
            for line in words
            if not page.is_documented(line, ended.code)
        ]
    return problems


def describe(ended: Ended) -> str:
    """How a start ended, for the table."""
    if ended.code < 0:
        return "killed"
    return {
        0: "trained to the end",
        errors.FAILED: "one line, exit code 1",
        errors.REFUSED: "one line, exit code 2",
        errors.PREEMPTED: "a checkpoint, exit code 75",
    }.get(ended.code, f"exit code {ended.code}")
