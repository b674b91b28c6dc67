"""Faults at random do no harm; and harm that they did would be noticed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_dpred.records import checkpoints
from tf_dpred.records.workdir import Workdir
from tools.chaos import compare
from tools.chaos.campaign import KINDS, judge
from tools.chaos.page import is_documented
from tools.chaos.start import Ended

CHECKOUT = Path(__file__).parent.parent
INTERRUPTED = "tf_dpred: interrupted"
EMPTY = (
    "tf_dpred: --data_dir: received 'x', accepted: an existing directory, a list of "
    "image files (.txt, .csv, .tsv, .parquet) or a .zip."
)
STOPPED = "10:00:00 SIGINT: saved step 7; the same command continues."
NO_THREAD = "  what():  random_device::random_device: device not available"
TRACEBACK = "Traceback (most recent call last):"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_chaos__a_hundred_faults_in_a_row(tmp_path):
    command = [sys.executable, "-m", "tools.chaos", "--faults=100"]
    found = subprocess.run(
        [*command, f"--directory={tmp_path / 'chaos'}"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert found.returncode == 0, found.stdout
    struck = [kind for kind in KINDS if f"| {kind} |" in found.stdout]
    assert len(struck) > len(KINDS) // 2, found.stdout


@pytest.mark.parametrize(
    ("ended", "damaged", "problem"),
    [
        (Ended(0, [], ["pause"]), None, ""),
        (Ended(1, ["tf_dpred: what is this"], ["image_fails"]), None, "not in"),
        (
            Ended(1, ["tf_dpred: a/1.png; No such file or directory"], ["no_reads"]),
            None,
            "",
        ),
        (Ended(1, ["tf_dpred: a/1.png; No such file"], ["pause"]), None, "exit code 1"),
        (Ended(1, [], ["no_writes"]), None, "0 last words"),
        (Ended(2, [EMPTY, EMPTY], ["no_writes"]), None, "2 last words"),
        (Ended(0, [TRACEBACK], ["no_writes"]), None, TRACEBACK),
        (Ended(75, [STOPPED], ["stop"]), None, ""),
        (Ended(75, [STOPPED], ["kill"]), None, "exit code 75"),
        (Ended(-9, [], ["kill"]), None, ""),
        (Ended(-11, [], ["kill"]), None, "exit code -11"),
        (Ended(-6, [NO_THREAD], ["open_files"]), None, ""),
        (Ended(-6, [NO_THREAD], ["no_reads"]), None, "exit code -6"),
        (Ended(-6, ["Fatal Python error"], ["open_files"]), None, "exit code -6"),
        (Ended(0, [], []), "damaged_flags", "exit code 0"),
    ],
)
def test_judge__knows_how_a_start_may_end(ended, damaged, problem):
    assert problem in "; ".join(judge(ended, damaged))
    assert bool(problem) == bool(judge(ended, damaged))


@pytest.mark.parametrize(
    ("line", "code", "known"),
    [
        (EMPTY, 2, True),
        (EMPTY, 1, False),
        ("tf_dpred: --data_dir: received 'x', accepted: something else.", 2, False),
        ("tf_dpred: [Errno 24] Too many open files: 'run/a'", 1, True),
        ("tf_dpred: [Errno 24] Too many open files", 1, False),
        (STOPPED, 75, True),
        ("tf_dpred: what is this", 1, False),
    ],
)
def test_is_documented__by_kind_and_exit_code(line, code, known):
    assert is_documented(line, code) == known


@pytest.fixture
def two(tmp_path):
    """The work directories of a run at step 2, and of the same one at step 4."""
    made = []
    for name, steps in (("a", (2,)), ("b", (2, 4))):
        workdir = Workdir(tmp_path / name)
        for step in steps:
            array = np.full(3, step, np.float32)
            checkpoints.save(
                checkpoints.path_of(workdir.checkpoints, step), {"w": array}
            )
        lines = [json.dumps({"epoch": s // 2, "step": s}) + "\n" for s in steps]
        workdir.epochs.write_text("".join(lines))
        workdir.theory.write_text("")
        workdir.result.write_text("{}")
        made.append(workdir)
    return made


def change_a_bit(workdir):
    path = checkpoints.path_of(workdir.checkpoints, 2)
    checkpoints.save(path, {"w": np.array([2, 2, 2.0000002], np.float32)})


@pytest.mark.parametrize(
    ("harm", "ended", "words"),
    [
        (lambda workdir: None, False, []),
        (lambda workdir: None, True, ["the last checkpoint is of step 2"]),
        (change_a_bit, False, ["step-00000002.npz: w differ"]),
        (
            lambda workdir: workdir.epochs.unlink(),
            False,
            ["epochs.jsonl: 0 lines, 1 expected at step 2"],
        ),
        (
            lambda workdir: workdir.theory.write_text('{"step": 1}\n'),
            False,
            ["theory.jsonl: 1 lines, 0 expected at step 2"],
        ),
    ],
)
def test_differences__are_found(two, harm, ended, words):
    mine, whole = two
    harm(mine)
    assert compare.differences(mine, whole, ended=ended) == words


@pytest.mark.parametrize(("step", "needed"), [(0, 0), (2, 2)])
def test_differing_lines__without_a_checkpoint_all_come_again(tmp_path, step, needed):
    whole = tmp_path / "whole"
    whole.write_text('{"epoch": 0, "step": 0}\n{"epoch": 1, "step": 2}\n')
    found = compare.differing_lines(tmp_path / "none", whole, step)
    words = [f"none: 0 lines, {needed} expected at step {step}"]
    assert found == (words if needed else [])


def test_lost_epochs__cut_lines_and_none_that_come_again(two):
    mine, whole = two
    assert compare.lost_epochs(mine, whole, 2) == []
    mine.epochs.write_text(whole.epochs.read_text()[:-2])
    assert compare.lost_epochs(mine, whole, 2) == []
    assert compare.lost_epochs(mine, whole, 4) == [2]


def test_differing_points__values_and_gaps():
    whole = {("epoch/loss", 1): {0.5}, ("epoch/loss", 2): {0.25}}
    part = {("epoch/loss", 1): {0.5}}
    assert compare.differing_points(whole, whole, gaps=False) == []
    assert compare.differing_points(part, whole, gaps=True) == []
    assert compare.differing_points(part, whole, gaps=False) == [
        "epoch/loss at step 2 is missing"
    ]
    twice = {("epoch/loss", 1): {0.5, 0.75}}
    assert compare.differing_points(twice, whole, gaps=True) == [
        "epoch/loss at step 1 differs"
    ]
