"""How programs end: code, line, and what a pipe that closes does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tf_dpred import errors
from tf_dpred.system import quiet, terminal

CHECKOUT = Path(__file__).parent.parent
ENDS = [
    (errors.Refused("--rho: received 2"), errors.REFUSED, "x: --rho: received 2"),
    (OSError(28, "No space left"), errors.FAILED, "x: [Errno 28] No space left"),
    (errors.RunFailed("lost\nit"), errors.FAILED, "x: lost it"),
    (FloatingPointError("nan"), errors.FAILED, "x: nan"),
    (KeyboardInterrupt(), errors.INTERRUPTED, "x: interrupted"),
    (MemoryError("7 GiB"), errors.FAILED, "x: out of memory (7 GiB)"),
    # A program that was started has said itself why it ended.
    (subprocess.CalledProcessError(75, "python"), 75, ""),
    (subprocess.CalledProcessError(-15, "python"), 143, ""),
]


@pytest.mark.parametrize(("error", "code", "line"), ENDS, ids=lambda v: str(v)[:20])
def test_run__one_line(error, code, line, capsys):
    def program():
        raise error

    assert terminal.run("x", program) == code
    assert capsys.readouterr().err == line + "\n" * bool(line)


def test_run__a_bug_passes():
    def program():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        terminal.run("x", program)
    assert terminal.run("x", lambda: None) == 0
    assert terminal.run("x", lambda: 3) == 3


def interrupted_after(seconds, *command, handler=signal.default_int_handler):
    """Starts a program, presses Ctrl-C after some time -> code, output."""
    # Of a shell's background processes, as these tests may be, it is ignored.
    before = signal.signal(signal.SIGINT, handler)
    try:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=CHECKOUT,
            env={k: v for k, v in os.environ.items() if k != quiet.LOG_LEVEL},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    return process.wait(60), process.stdout.read()


SLOW = """
import sys, time, types
from tf_dpred.system import quiet, terminal
with terminal.quits_when_interrupted("x"):
    print("begun", flush=True)
    try:
        time.sleep(60)
    except BaseException:  # as libraries do
        raise ImportError("a page of it")
"""


def test_quits_when_interrupted__in_the_middle_of_an_import():
    code, said = interrupted_after(2.0, "-c", SLOW)
    assert (code, said) == (130, "begun\nx: interrupted\n")


def test_quits_when_interrupted__leaves_other_handlers_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminal.quits_when_interrupted("x"):
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with terminal.quits_when_interrupted("x"):
            assert isinstance(signal.getsignal(signal.SIGINT), terminal._Quit)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 0.6, 1.0, 1.5, 2.5, 4.0])
def test_main__interrupted_at_any_time_of_its_start(seconds, tmp_path):
    flags = ("--mode=preview", f"--workdir={tmp_path}", "--image_size=512")
    code, said = interrupted_after(seconds, "-m", "tf_dpred.main", *flags)
    if "main.py" in said or code != -signal.SIGINT:  # else Python itself was starting
        assert (code, said) == (130, "tf_dpred: interrupted\n")


TOOLS = [
    path
    for path in sorted((CHECKOUT / "tools").glob("*.py"))
    if "__main__" in path.read_text()
]
MODULES = ["tools.scaling", "tools.check_scaling", "tools.benchmark", "tf_dpred.theory"]
MODULES += ["tools.benchmark.check"]


def command_of(tool):
    if isinstance(tool, str):
        return ["-m", tool]
    if tool.stem in ("scaling", "check_scaling"):
        return ["-m", f"tools.{tool.stem}"]
    return [str(tool)]


def ran(tool, *arguments, directory, stdout=subprocess.PIPE):
    return subprocess.run(
        [sys.executable, *command_of(tool), *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


def snapshot(directory):
    return {p: p.stat().st_mtime_ns for p in directory.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("tool", [*TOOLS, *MODULES], ids=lambda t: Path(t).name)
def test_tools__help_and_unknown_flags_do_nothing(tool, tmp_path):
    runs = CHECKOUT / "runs"
    before = snapshot(runs) if runs.exists() else None
    done = ran(tool, "--help", directory=tmp_path)
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done
    assert "Traceback" not in done.stderr
    needed = {
        "calibration": ["runs"],
        "coloured_digits": ["out"],
        "gpu_plan": ["table", "plan"],
        "halves": ["out", "--data_dir=images"],
        "pjrt_run": ["compiled"],
        "screenshots": ["runs", "out"],
        "sweep": ["list.txt"],
    }
    wrong = [*needed.get(Path(tool).stem, []), "--no_such_flag=1"]
    done = ran(tool, *wrong, directory=tmp_path)
    assert done.returncode == 2 and "no_such_flag" in done.stderr, done
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert (snapshot(runs) if runs.exists() else None) == before


@pytest.mark.slow
@pytest.mark.parametrize("tool", [*TOOLS, *MODULES], ids=lambda t: Path(t).name)
def test_tools__nobody_reads_on(tool, tmp_path):
    """As with `| head -0`: the pipe is closed before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    done = ran(tool, "--help", directory=tmp_path, stdout=writing)
    os.close(writing)
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr, done.stderr
