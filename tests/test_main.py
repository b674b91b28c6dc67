"""The program as its user runs it: from flags to a work directory."""

import dataclasses
import io
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import imports
import numpy as np
import processes
import pytest
import tensorflow as tf
from absl import flags as absl_flags
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_dpred import errors, main, train
from tf_dpred.config import Config, FilesConfig, TrainingConfig
from tf_dpred.system import processor, terminal

CHECKOUT = Path(__file__).parent.parent
TINY = {
    "width": 1 / 16,
    "image_size": 16,
    "projector_hidden": 32,
    "projector_dim": 16,
    "batch_size": 8,
    "knn_every": 1,
    "knn_k": 3,
    "log_every": 1,
}


def run_main(*flags, **environment):
    # As in a user's shell: the tests themselves set TensorFlow's log level.
    own = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    own |= environment
    return subprocess.run(
        [sys.executable, "-m", "tf_dpred.main", *flags],
        cwd=CHECKOUT,
        env=own,
        capture_output=True,
        text=True,
    )


def as_flags(settings):
    return [f"--{name}={value}" for name, value in settings.items()]


@pytest.fixture
def images(tmp_path):
    """A folder of generated images: nested, mixed formats, no labels."""
    import tensorflow as tf

    generator = np.random.default_rng(0)
    encode = {
        "jpg": tf.io.encode_jpeg,
        "JPEG": tf.io.encode_jpeg,
        "png": tf.io.encode_png,
    }
    for index in range(20):
        suffix = list(encode)[index % 3]
        height, width = generator.integers(12, 60, 2)
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        path = tmp_path / "images" / f"day{index % 2}" / "raw" / f"{index}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode[suffix](pixels).numpy())
    return tmp_path / "images"


def test_main__two_epochs_on_a_folder(images, tmp_path):
    workdir = tmp_path / "run"
    own = {"dataset": "folder", "data_dir": images, "workdir": workdir, "epochs": 2}
    flags = as_flags(own | TINY | {"warmup_epochs": 10})
    done = run_main(*flags)
    assert done.returncode == 0, done.stderr
    result = json.loads((workdir / "result.json").read_text())
    assert result["step"] == 2 * (20 // 8)
    assert -4 <= result["loss"] <= 4
    recorded = json.loads((workdir / "flags.json").read_text())
    assert recorded["flags"]["dataset"] == "folder"
    assert list((workdir / "checkpoints").glob("step-*.npz"))
    events = EventAccumulator(str(workdir / "tensorboard")).Reload()
    assert {
        "train/loss",
        "schedule/tau",
        "epoch/loss",
        "spectrum/effective_rank",
        "views",
    } <= set(events.Tags()["tensors"])
    assert "epoch 2/2" in done.stderr
    shortened = (
        "--warmup_epochs: 10 is not less than --epochs=2 and is shortened to 0.2"
    )
    assert shortened in done.stderr
    assert recorded["flags"]["warmup_epochs"] == 10
    if platform.machine() == "x86_64":  # asked for before TensorFlow was imported
        assert recorded["environment"][processor.ONEDNN] == "1"
    # Nothing but the program's own log lines: no warning that a user would ask about.
    usual = re.compile(r"\d\d:\d\d:\d\d (?!warning|error)")
    strange = [line for line in done.stderr.splitlines() if not usual.match(line)]
    assert not strange

    again = processes.run_module("tf_dpred.main", *flags)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr
    changed = processes.run_module("tf_dpred.main", *flags, "--rho=0.5")
    assert changed.returncode == 2
    assert "rho: 0.3 -> 0.5" in changed.stderr
    assert len(changed.stderr.splitlines()) == 1


def test_main__preview_writes_a_picture(tmp_path):
    flags = ("--mode=preview", f"--workdir={tmp_path}")
    done = processes.run_module("tf_dpred.main", *flags)
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "preview.png").read_bytes()
    # Eight columns of digits, each enlarged to what a person can see.
    assert tf.io.decode_png(picture).shape[1] > 8 * 90


BAD_FLAGS = [
    (["--predictor=foo"], "--predictor: received 'foo', accepted: one of direct,"),
    (["--image_size=3"], "--image_size: received 3, accepted: at least 8"),
    (["--rho=1"], "--rho: received 1.0, accepted: at least 0.0 and below 1.0"),
    (["--rho=-0.1"], "--rho: received -0.1, accepted: at least 0.0"),
    (["--rho=nan"], "--rho: received nan, accepted: at least 0.0"),
    (["--rho=much"], "received 'much', accepted: a number or none"),
    (["--eps=-0.1"], "--eps: received -0.1, accepted: at least 0 (below 0 only with"),
    (["--epochs=0"], "--epochs: received 0, accepted: at least 1"),
    (["--nostop_gradient"], "--stop_gradient: received False, accepted: true with"),
    (["--mode=train"], "mode"),
    (["--no_such_flag=1"], "no_such_flag"),
    (["--flagfile=none.cfg"], "none.cfg"),
    (["stray"], "received ['stray']"),
    (["--method=moco"], "--method: received 'moco', accepted: one of directpred, byol"),
    (["--batch_size=64", "--accumulation_steps=3"], "a divisor of --batch_size=64"),
]


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS, ids=lambda v: str(v)[:40])
def test_main__bad_flag_is_one_line(flags, message, tmp_path):
    done = run_main(*flags, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


BAD_INPUT = [
    ({"dataset": "nosuchdata"}, "nosuchdata"),
    ({"dataset": "folder"}, "data_dir"),
    ({"dataset": "folder", "data_dir": "no/such/folder"}, "no/such/folder"),
    ({"batch_size": 2000}, "2000"),
    ({"split": "nosuchsplit"}, "nosuchsplit"),
    ({"backbone": "resnet19"}, "resnet19"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_INPUT, ids=lambda v: str(v)[:40])
def test_pretraining__bad_input_is_refused_before_work(settings, message, tmp_path):
    workdir = tmp_path / "deep" / "run"
    config = Config.from_dict({"workdir": str(workdir), **settings})
    with pytest.raises(errors.Refused, match="accepted") as refusal:
        train.Pretraining(config)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value).strip()
    assert list(tmp_path.iterdir()) == []


def test_pretraining__a_refusal_leaves_what_was_there(tmp_path):
    (tmp_path / "mine").write_text("")
    config = Config.from_dict({"workdir": str(tmp_path), "split": "nosuchsplit"})
    with pytest.raises(errors.Refused, match="nosuchsplit"):
        train.Pretraining(config)
    assert (tmp_path / "mine").exists()


def test_pretraining__empty_folder(tmp_path):
    (tmp_path / "images").mkdir()
    settings = {"dataset": "folder", "data_dir": str(tmp_path / "images")}
    with pytest.raises(errors.Refused, match="with no images in"):
        train.Pretraining(Config.from_dict(settings | {"workdir": str(tmp_path)}))


def test_pretraining__unwritable_workdir(tmp_path):
    (tmp_path / "file").write_text("")
    config = Config.from_dict({"workdir": str(tmp_path / "file" / "run")})
    with pytest.raises(errors.Refused, match="--workdir: received"):
        train.Pretraining(config)


def main_of(function, *flags, capsys, monkeypatch):
    """Exit code and lines on stderr of a mode that runs `function`, in this process."""
    monkeypatch.setattr(main.Mode, "load", lambda mode: function)
    absl_flags.FLAGS.unparse_flags()
    absl_flags.FLAGS(["main", *flags])
    code = main.main(["main"])
    return code, capsys.readouterr().err.splitlines()


def test_main__a_mode_gets_its_settings_and_files(capsys, monkeypatch):
    def function(config, files):
        assert (config.predictor.rho, files) == (0.5, FilesConfig(output="x"))
        return 3

    flags = ("--mode=report", "--rho=0.5", "--output=x")
    found = main_of(function, *flags, capsys=capsys, monkeypatch=monkeypatch)
    assert found == (3, [])


def test_main__a_file_that_the_mode_does_not_read_is_refused(capsys, monkeypatch):
    code, lines = main_of(None, "--query=a.jpg", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, lines) == (
        errors.REFUSED,
        ["tf_dpred: --query: received 'a.jpg', accepted: with --mode=search only."],
    )


def test_main__settings_are_judged_beside_those_of_the_run(
    tmp_path, capsys, monkeypatch
):
    recorded = Config.from_dict({"views": "simclr", "view_strength": 0.5})
    (tmp_path / "flags.json").write_text(json.dumps({"flags": recorded.to_dict()}))
    flags = ["--mode=knn", f"--workdir={tmp_path}", "--view_strength=0.5"]
    given = []
    code, lines = main_of(
        lambda config, files: given.append(config.data.views),
        *flags,
        capsys=capsys,
        monkeypatch=monkeypatch,
    )
    assert (code, lines, given) == (0, [], ["simclr"])


ENDS = [
    (errors.Refused("--rho: received 2"), errors.REFUSED, "--rho: received 2"),
    (OSError(28, "No space left", "x"), errors.FAILED, "No space left"),
    (errors.RunFailed("lost\nit"), errors.FAILED, "lost it"),
    (FloatingPointError("nan"), errors.FAILED, "nan"),
    (KeyboardInterrupt(), errors.INTERRUPTED, "interrupted"),
]


@pytest.mark.parametrize(
    ("error", "code", "message"), ENDS, ids=lambda v: type(v).__name__
)
def test_main__what_is_no_bug_ends_with_one_line(
    error, code, message, capsys, monkeypatch
):
    def function(config, files):
        raise error

    found, (line,) = main_of(function, capsys=capsys, monkeypatch=monkeypatch)
    assert found == code
    assert line.startswith("tf_dpred: ") and message in line


@pytest.mark.parametrize("code", [1, 2, 130])
def test_main__the_exit_code_where_nobody_reads_the_line(code, monkeypatch):
    """As after the terminal was closed."""

    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stderr", Closed())
    assert terminal.complain("tf_dpred", "interrupted", code) == code


def main_of_a_bug():
    def of_a_new_predictor(config, files):
        raise ValueError("no such shape")

    main.Mode.load = lambda mode: of_a_new_predictor
    sys.argv = ["tf_dpred"]
    main.run()


def test_main__nobody_reads_on():
    """As with `| head -1`, which ends before all lines are there."""
    code = (
        "from tf_dpred import main\n"
        "def prints(config, files):\n"
        "    for number in range(100_000): print(number)\n"
        "main.Mode.load = lambda mode: prints\n"
        "main.run()"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": CHECKOUT}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        said = process.stderr.read()
        assert b"Traceback" not in said and b"Broken pipe" not in said


def test_main__a_bug_shows_its_traceback():
    """Also a ValueError, as a wrong shape in a new predictor is."""
    done = processes.run(main_of_a_bug)
    assert done.returncode == errors.FAILED
    assert "Traceback" in done.stderr and "in of_a_new_predictor" in done.stderr
    assert "ValueError: no such shape" in done.stderr


def test_modes__exist():
    for name, mode in main.MODES.items():
        assert callable(mode.load()), name


@pytest.fixture
def stub(tmp_path):
    """A directory to be searched for modules, with a TensorFlow of one's own."""

    def write(text):
        (tmp_path / "tensorflow").mkdir()
        (tmp_path / "tensorflow" / "__init__.py").write_text(text)
        return str(tmp_path)

    return write


def test_main__help_begins_with_modes_and_ten_flags(stub):
    done = run_main("--help", PYTHONPATH=stub("raise SystemExit('imported')"))
    assert (done.returncode, done.stderr) == (0, "")
    short, _, whole = done.stdout.partition("All flags:")
    assert re.findall(r"^  --mode=(\w+)", short, re.M) == list(main.MODES)
    needed = re.findall(r"^  --(\w+) ", short, re.M)
    assert len(needed) == 10 and "workdir" in needed
    for field in dataclasses.fields(TrainingConfig):
        assert re.search(rf"^  --(\[no\])?{field.name}:", whole, re.M), field.name
    assert len(short.splitlines()) < 60 and max(map(len, short.splitlines())) <= 88


def test_main__interrupted_while_libraries_are_imported(stub):
    tensorflow = (
        "import os, signal\n"
        "os.write(2, b'chatter')\n"
        # Of a shell's background processes, as these tests may be, it is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = run_main(PYTHONPATH=stub(tensorflow))
    assert (done.returncode, done.stderr) == (130, "tf_dpred: interrupted\n")


def test_main__nothing_heavy_is_imported_before_it_is_needed():
    done = processes.run(
        imports.print_own, "tf_dpred.evaluation.evaluate", "tf_dpred.main"
    )
    assert done.returncode == 0, done.stderr
    found = {name.partition(".")[0] for name in done.stdout.split()}
    assert "tf_dpred" in found
    assert not found & {"tensorflow_datasets", "sklearn", "matplotlib", "PIL"}
