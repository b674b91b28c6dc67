"""The benchmark; what it measures is not run here, but for the smallest."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import toys
from images import write_pngs

from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config
from tf_dpred.data import random_views
from tf_dpred.optimizers import SGD
from tf_dpred.schedules import ema_momentum

CHECKOUT = Path(__file__).parent.parent


def benchmark(module, monkeypatch):
    monkeypatch.syspath_prepend(CHECKOUT)
    return importlib.import_module(f"tools.benchmark.{module}")


def test_benchmark__workers_take_turns_and_may_be_absent(monkeypatch, tmp_path):
    race = benchmark("race", monkeypatch)
    script = """
import sys, time
sys.path.insert(0, "tools/peers")
from serve import serve
print("a library talks")
serve(lambda: {"at": time.monotonic()}, version="1")
"""
    command = [sys.executable, "-c", script]
    missing = [sys.executable, "-c", "import no_such_module"]
    found, about, absent = race.run(
        {"a": command, "b": command, "c": missing}, 2, optional=["c"]
    )
    turns = [found[name]["at"][turn] for turn in (0, 1) for name in "ab"]
    assert turns == sorted(turns)
    assert about == {"a": {"version": "1"}, "b": {"version": "1"}}
    assert absent == {"c": "ModuleNotFoundError: No module named 'no_such_module'"}
    assert found["a"]["peak MB"][0] > 1
    with pytest.raises(SystemExit, match="c: ModuleNotFoundError"):
        race.run({"c": missing}, 1)
    # One that fails when it is at work.
    failing = [sys.executable, "-c", script.replace("time.monotonic()", "1 / 0")]
    found, _, absent = race.run({"a": command, "b": failing}, 2, optional=["b"])
    assert len(found["a"]["at"]) == 2 and "b" not in found
    assert absent == {"b": "ZeroDivisionError: division by zero"}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (123456.0, "123,500"),
        (1234.0, "1,234"),
        (56.78, "56.8"),
        (0.123456, "0.123"),
        (0.00123, "1.2e-03"),
        (0.0, "0"),
        (None, ""),
        ("read", "read"),
    ],
)
def test_benchmark__cells(number, expected, monkeypatch):
    assert benchmark("table", monkeypatch).text(number) == expected


def test_benchmark__solver(monkeypatch, capsys):
    """The smallest part as a user runs it."""
    solver = benchmark("solver", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["solver", "--sizes=8", "--seconds=0"])
    monkeypatch.setattr(sys, "stdin", ["\n"])
    solver.main()
    ready, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert ready == {"ready": {"sizes": [8]}}
    assert found["eigh 8 error"] < 1e-3 and found["newton_schulz 8 error"] < 1e-3
    assert found["eigh 8 ms"] > 0 and found["newton_schulz 8 ms"] > 0


def test_benchmark__parts_of_a_step(monkeypatch):
    """Each part is there, and can be called again and again."""
    model = toys.model()
    model.compile(SGD())
    TargetEMA(ema_momentum("constant", 0.9, 1)).set_model(model)
    batch = tuple(tf.constant(view[0]) for view in toys.views(1))
    functions = benchmark("step_parts", monkeypatch).parts(model, batch)
    order = benchmark("step_tables", monkeypatch).PARTS_IN_ORDER
    passes = {"forward and backward", "step"}
    assert functions.keys() == {*order, *passes} - {"backward"}
    for function in functions.values():
        function(), function()
    assert model.steps_done == 4  # the optimizer's part, and the step


@pytest.mark.slow
@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_benchmark__batch_of_a_step(monkeypatch, augment_on):
    """What the step is given fits what the run's step takes."""
    step = benchmark("step", monkeypatch)
    settings = {"augment_on": augment_on, "image_size": 8, "batch_size": 4}
    config = Config.from_dict({**settings, "width": 0.125, "projector_dim": 4})
    _, model, batch = step.model_and_batch(config)
    assert np.isfinite(float(model.train_step(batch)["loss"]))
    functions = benchmark("step_parts", monkeypatch).parts(model, batch)
    assert [f.shape for f in functions["forward online"]()] == [(4, 4)] * 2


def test_benchmark__pytorch_is_told_the_same_step_or_none(monkeypatch):
    pytorch = benchmark("pytorch", monkeypatch)
    given = f"--flagfile={CHECKOUT}/configs/stl10.cfg"
    assert pytorch.torch_flags([given, "--batch_size=64"]) == [
        "--backbone=resnet18",
        "--stem=imagenet",
        "--projector_hidden=512",
        "--projector_dim=128",
        "--image_size=96",
        "--batch_size=64",
        "--precision=float32",
    ]
    reason = "its step has no --width=0.5, --optimizer=lars"
    with pytest.raises(benchmark("race", monkeypatch).Absent, match=reason):
        pytorch.torch_flags([given, "--optimizer=lars", "--width=0.5"])


@pytest.mark.slow
def test_benchmark__input_stages(monkeypatch, tmp_path):
    inputs = benchmark("inputs", monkeypatch)
    write_pngs(tmp_path, 6)
    settings = {"dataset": "folder", "data_dir": str(tmp_path), "image_size": 8}
    config = Config.from_dict({**settings, "batch_size": 4, "views": "byol"})
    shapes = {}
    for stage in inputs.STAGES:
        first = next(iter(inputs.dataset(config, stage)))
        shapes[stage] = [tuple(t.shape) for t in tf.nest.flatten(first)]
    pair = [(4, 8, 8, 3)] * 2
    assert shapes == {
        "read": [(4,)],
        "decode": [(4, 3)],
        "crop": [*pair, *[(4, random_views.NUM_DRAWS)] * 2],
        "photometric": pair,
        "all": pair,
    }


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--part=step,speed", "--part: received ['speed'], accepted: step, "),
        ("--rounds=0", "received --rounds=0 --seconds=5.0, accepted: 1 or more"),
        ("--peer_python=/none", "--peer_python: received '/none', accepted: a program"),
        ("--data_dir=/none", "--data_dir: received '/none', accepted: a folder"),
        ("--output=/none/x", "--output: received '/none/x', accepted: a file in a"),
    ],
)
def test_benchmark__refuses(flag, message, monkeypatch, capsys):
    main = benchmark("__main__", monkeypatch)
    monkeypatch.setattr(sys, "argv", ["benchmark", flag])
    with pytest.raises(SystemExit):
        main.main()
    assert message in capsys.readouterr().err


def test_benchmark__check_names_what_got_slower(monkeypatch, tmp_path, capsys):
    check = benchmark("check", monkeypatch)
    monkeypatch.setattr(check, "STORED", tmp_path / "ratios.json")
    with pytest.raises(SystemExit, match=r"ratios\.json: received no such file"):
        check.main([])
    found = {"step": 0.8, "input": 0.4}
    monkeypatch.setattr(check, "measure", lambda options: dict(found))
    check.main(["--update"])
    found |= {"step": 0.8 * 0.86, "input": 0.9}
    check.main([])
    found["step"] = 0.8 * 0.84
    with pytest.raises(SystemExit, match=r"^slower: step: 0\.672, stored 0\.800$"):
        check.main([])
    del found["input"]
    with pytest.raises(SystemExit, match=r"input: 0\.000, stored 0\.400"):
        check.main([])
    assert "  0.900  stored   0.400  input" in capsys.readouterr().out


def test_benchmark__check_reads_its_ratios_off_the_tables(monkeypatch):
    """Twice as slow a part, twice as small a ratio; a small share is not watched."""
    check = benchmark("check", monkeypatch)
    table = benchmark("table", monkeypatch).Table
    options = benchmark("options", monkeypatch).Options

    def tables(step=20.0, optimizer=30.0, crop=50.0):
        steps = {"tf_dpred": {"images/s": [step]}, "convolutions": {"images/s": [25.0]}}
        parts = {"optimizer": [optimizer], "F": [1.0], "W": [1.0], "EMA": [9.0]}
        rates = {"decode": 100.0, "crop": crop, "photometric": 40.0, "all": 30.0}
        values = {
            "step": [{"small": {"values": steps}}],
            "step_parts": [{"small": parts | {"step": [1000.0]}}],
            "input": [
                {"values": {k: {"images/s": [v]} for k, v in rates.items()}},
                {},
            ],
            "evaluation": [{"evaluation": {"features": [99.0], "forward": [100.0]}}],
        }
        made = {
            part: lambda options, found=found: [table("", (), [], [], v) for v in found]
            for part, found in values.items()
        }
        monkeypatch.setattr(check, "PARTS", made)
        return check.measure(options(1, 1.0, "python", None, {"small": []}))

    before = tables()
    assert before["small: step over convolutions alone"] == 0.8
    assert before["small: 1.5% of a step over optimizer"] == 0.5
    assert before["small: 1.5% of a step over EMA"] == 1.0
    assert before["input up to crop over decoding"] == 0.5
    assert before["features over the forward pass"] == 0.99
    assert check.slower(before, before) == []
    for change in ({"step": 10.0}, {"optimizer": 60.0}, {"crop": 25.0}):
        (line,) = check.slower(tables(**change), before)
        assert next(iter(change)) in line
