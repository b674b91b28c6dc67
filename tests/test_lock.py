"""One run at a time in a work directory."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from tf_dpred.errors import Refused
from tf_dpred.records.lock import Lock

# Claims the lock named on its command line, says so, and waits to be closed.
HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write("process 7 on elsewhere")
file.flush()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_process(tmp_path):
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.stdin.close()


def test_acquire__another_process_holds_it(other_process, tmp_path):
    lock = Lock(tmp_path / ".lock")
    line = f"--workdir: received {str(tmp_path)!r}, where process 7 on elsewhere is tra"
    with pytest.raises(Refused) as refusal:
        lock.acquire()
    assert str(refusal.value).startswith(line)
    other_process.stdin.close()
    other_process.wait()
    lock.acquire()


def test_acquire__a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = Lock(tmp_path / ".lock")
    lock.acquire()
    lock.start_training()
    assert "cannot be locked (Function not implemented)" in caplog.text


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO], ids=str
)
def test_acquire__whatever_else_a_lock_fails_for(code, tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    first, second = Lock(tmp_path / ".lock"), Lock(tmp_path / ".lock")
    first.acquire()
    first.start_training()
    assert caplog.text.count("cannot be locked") == 1
    with pytest.raises(Refused, match="another run of this process is training"):
        second.acquire()  # that is known without the file system
    first.release()
    second.acquire()


def test_acquire__a_lock_file_that_cannot_be_opened(tmp_path, caplog):
    (tmp_path / ".lock").mkdir()
    Lock(tmp_path / ".lock").acquire()
    assert "cannot be locked (Is a directory): a second run in it" in caplog.text


def test_acquire__a_lock_file_that_is_no_text(tmp_path):
    path = tmp_path / ".lock"
    path.write_bytes(b"\xff\xfe")
    Lock(path).acquire()
    assert path.read_text().startswith("process ")


def test_acquire__twice(tmp_path):
    lock = Lock(tmp_path / ".lock")
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()


def test_acquire__takes_over_from_a_run_of_this_process(tmp_path):
    first, second = Lock(tmp_path / ".lock"), Lock(tmp_path / ".lock")
    first.acquire()
    second.acquire()
    with pytest.raises(Refused, match="where a later run of this process has begun"):
        first.start_training()
    second.start_training()


def test_acquire__not_from_one_that_is_training(tmp_path):
    first, second = Lock(tmp_path / ".lock"), Lock(tmp_path / ".lock")
    first.acquire()
    first.start_training()
    with pytest.raises(Refused, match="where another run of this process is training"):
        second.acquire()
    first.release()
    second.acquire()
    second.start_training()


def test_start_training__again_after_it_was_released(tmp_path):
    lock = Lock(tmp_path / ".lock")
    lock.acquire()
    for _ in range(2):
        lock.start_training()
        lock.release()
    other = Lock(tmp_path / ".lock")
    other.acquire()
    other.release()
    with pytest.raises(Refused, match="where a later run of this process has begun"):
        lock.start_training()


def test_acquire__other_directories_are_independent(tmp_path):
    (tmp_path / "other").mkdir()
    first, second = Lock(tmp_path / ".lock"), Lock(tmp_path / "other" / ".lock")
    first.acquire()
    first.start_training()
    second.acquire()
    second.start_training()
