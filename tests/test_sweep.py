"""tools/sweep.py: how a list is read, what runs again, the table."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tf_dpred.errors import Refused
from tf_dpred.records import results
from tools import sweep

LIST = """
# A comment, and flags for all.
--flagfile=configs/quickstart.cfg --width=0.125

direct [0 1]:
eps.5 [3]: --eps=0.5 --split='train[:10]'
"""


def test_read_list__seeds_in_turns_and_flags_in_order():
    common = ("--flagfile=configs/quickstart.cfg", "--width=0.125")
    assert sweep.read_list(LIST) == [
        sweep.Run("direct", 0, common),
        sweep.Run("eps.5", 3, (*common, "--eps=0.5", "--split=train[:10]")),
        sweep.Run("direct", 1, common),
    ]


@pytest.mark.parametrize("line", ["direct", "a b: --x=1", "direct:\ndirect:", "a[]:"])
def test_read_list__refuses(line):
    with pytest.raises(Refused, match=r"received '.*' as a line, accepted: a name"):
        sweep.read_list(line)


def record(name, seed, flags=(), **numbers):
    measured = {"knn_untrained": 0.3, "knn": 0.5, "linear": 0.6, "feature_std": 0.7}
    return {"name": name, "seed": seed, "flags": list(flags), **measured, **numbers}


def test_table__mean_and_spread():
    records = [
        record("direct", 0, knn=0.4),
        record("linear", 0),
        record("direct", 1, knn=0.5),
    ]
    lines = sweep.table(records).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    # Standard deviation of .4 and .5, n - 1: .0707.
    spread = ["0.300 +- 0.000", "0.450 +- 0.071", "0.600 +- 0.000", "0.700 +- 0.000"]
    assert cells[2] == ["direct", "2", *spread]
    assert cells[3] == ["linear", "1", "0.300", "0.500", "0.600", "0.700"]


def test_main__skips_what_is_done_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("a:\nb [0 1]: --eps=0.2\n")
    output = tmp_path / "results.jsonl"
    asked = []

    def execute(run, root, extra):
        asked.append((run.name, run.seed))
        assert extra == ["--data_dir=x"]
        if asked.count(("b", 0)) == 1 and run.seed == 0:
            raise subprocess.CalledProcessError(3, "python")
        return record(run.name, run.seed, run.flags)

    monkeypatch.setattr(sweep, "execute", execute)
    command = [str(tmp_path / "list.txt"), f"--output={output}", "--", "--data_dir=x"]
    output.write_text(json.dumps(record("a", 0)) + "\n")
    with pytest.raises(SystemExit, match=r"failed: b, seed 0 .exit code 3."):
        sweep.main(command)
    sweep.main(command)
    assert asked == [("b", 0), ("b", 1), ("b", 0)]
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert [(r["name"], r["seed"]) for r in found] == [("a", 0), ("b", 1), ("b", 0)]
    # Other flags are another run.
    (tmp_path / "list.txt").write_text("a: --eps=0.3\n")
    sweep.main(command)
    assert asked[-1] == ("a", 0)


def test_execute__elsewhere(tmp_path, monkeypatch):
    """Paths are the caller's; the recipes of a list are found everywhere."""
    monkeypatch.chdir(tmp_path)
    commands = []

    def run(command, check):
        commands.append(command[3:])
        workdir = Path("sweep/direct/1")
        workdir.mkdir(parents=True, exist_ok=True)
        result = {"knn_by_epoch": {}, "feature_std": 0.5, "epoch": 1, "step": 2}
        (workdir / "result.json").write_text(json.dumps(result))
        identity = {"mode": "linear_eval", "protocol": "features", "top1": 0.75}
        results.write(workdir, identity | {"dataset": "digits", "encoder": "online"})

    monkeypatch.setattr(sweep, "commit", lambda: "ca600495b1")
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(run=run))
    flags = ("--flagfile=configs/quickstart.cfg", "--width=0.125")
    record = sweep.execute(
        sweep.Run("direct", 1, flags), Path("sweep"), ["--data_dir=images"]
    )
    assert record["commit"] == "ca600495b1" and " cores of " in record["machine"]
    assert record["linear"] == 0.75 and record["flags"] == list(flags)
    assert commands[0] == [
        "--recipe=quickstart",
        "--width=0.125",
        "--data_dir=images",
        "--seed=1",
        "--workdir=sweep/direct/1",
        "--mode=pretrain",
    ]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quickstart.cfg").write_text("")
    assert sweep._anywhere(flags[0]) == flags[0]  # the caller's own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.txt"], "--list: received 'none.txt' .*, accepted: a text file"),
        (["list.txt", "--output=bad.jsonl"], r"--output: .* a damaged bad.jsonl"),
        (["list.txt", "--root=list.txt"], "Not a directory|File exists"),
    ],
)
def test_main__refuses_before_anything_is_trained(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "execute", None)
    Path("list.txt").write_text("a:\n")
    Path("bad.jsonl").write_text("[]\n")
    with pytest.raises((Refused, OSError), match=message):
        sweep.main(arguments)


def test_main__a_last_line_that_was_cut_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("a:\nb:\n")
    Path("out.jsonl").write_text(json.dumps(record("a", 0)) + '\n{"name": "b", "se')
    monkeypatch.setattr(
        sweep, "execute", lambda run, root, extra: record(run.name, run.seed)
    )
    sweep.main(["list.txt", "--output=out.jsonl"])
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [r["name"] for r in found] == ["a", "b"]


def test_docs__the_table_is_that_of_the_records():
    docs = sweep.CHECKOUT / "docs"
    lines = (docs / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert sweep.table(records) in (docs / "results.md").read_text()
    # And they are of the list that the page names.
    runs = sweep.read_list((sweep.CHECKOUT / "configs/sweeps/cifar10.txt").read_text())
    known = {(run.name, run.seed, run.flags) for run in runs}
    assert {(r["name"], r["seed"], tuple(r["flags"])) for r in records} <= known


def test_commit__of_this_checkout_and_of_none(tmp_path, monkeypatch):
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=sweep.CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert head.startswith(sweep.commit().removesuffix("+"))
    monkeypatch.setattr(sweep, "CHECKOUT", tmp_path)
    assert sweep.commit() is None
