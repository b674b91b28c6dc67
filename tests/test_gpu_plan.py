"""What tools/gpu_plan.py would run, in which order, and that it continues."""

import json

import gpu_plan
import numpy as np
import pytest
from test_recipes import config_of

from tf_dpred import recipes
from tf_dpred.main import MODES


@pytest.mark.parametrize("tiny", [False, True])
def test_parts__are_accepted(tiny):
    found = gpu_plan.parts("DIR", tiny)
    kinds = [name.partition("-")[0] for name in found]
    assert kinds[0] == "equality"
    assert set(kinds) == {"equality", "rate", "torch", "train"}
    # Trainings, which take longest, come last.
    assert kinds.index("train") == len(kinds) - kinds.count("train")
    for name, part in found.items():
        if "torch" in part:
            continue
        _, *given = recipes.expand(["tf_dpred", *part["flags"]])
        settings = config_of(*given).to_dict()
        settings |= {"augment_on": "device", "cache": "device"}
        assert MODES["compile"].settings(settings).training.batch_size >= 8, name


def plan(tmp_path, *names):
    parts = {name: {"flags": []} for name in names}
    (tmp_path / "plan.json").write_text(json.dumps(parts))
    return tmp_path


def test_run__continues_where_the_time_was_over(tmp_path, monkeypatch, capsys):
    ran = []

    def run_part(path, name, part, seconds):
        ran.append(name)
        return None if ran == ["a", "b"] else {"of": name}

    monkeypatch.setattr(gpu_plan, "run_part", run_part)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    made = plan(tmp_path, "a", "b", "c")
    gpu_plan.run(made, 60)
    assert "the time is over at b" in capsys.readouterr().out
    gpu_plan.run(made, 60)
    assert ran == ["a", "b", "b", "c"]
    assert {n: r["result"] for n, r in gpu_plan.results(made).items()} == {
        name: {"of": name} for name in "abc"
    }
    gpu_plan.run(made, 0)
    assert "all parts are done" in capsys.readouterr().out


def test_table__says_what_was_not_run(tmp_path, capsys):
    made = plan(tmp_path, "rate-a", "rate-b")
    line = {"part": "rate-a", "device": "NVIDIA H100 80GB HBM3", "seconds": 9.0}
    line["result"] = {"resident": {"images/s": 5.0, "and": "494 TFLOP/s as XLA counts"}}
    (made / "results.jsonl").write_text(json.dumps(line) + "\n")
    gpu_plan.table(made)
    shown = capsys.readouterr().out.splitlines()
    assert "50% of 989 TFLOP/s (bfloat16)" in shown[2]
    assert shown[3] == "| rate-b | | | not run |"


def test_difference__over_the_largest_value():
    expected = {"a": np.array([4.0, 1.0]), "n": np.array([3])}
    found = {"a": np.array([4.0, 1.5]), "n": np.array([9])}
    assert gpu_plan.difference(found, expected) == (0.125, "a")
