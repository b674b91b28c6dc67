"""The work directory: its layout, and what cannot be one."""

import contextlib
import os

import pytest

from tf_dpred.errors import Refused
from tf_dpred.records.workdir import Workdir


def test_create__makes_the_directory_and_leaves_nothing_in_it(tmp_path):
    made = Workdir(tmp_path / "a" / "b")
    assert not made.path.exists()
    made.create()
    assert list(made.path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_create__a_file_in_the_way(tmp_path, below):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / below)
    with pytest.raises(Refused, match="accepted: a directory") as refusal:
        Workdir(path).create()
    message = str(refusal.value)
    assert message.startswith(f"--workdir: received {path!r}, ")
    assert "written to (" in message
    assert "\n" not in message


def test_create__a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="received 'gs://b/run', accepted: a directory"):
        Workdir("gs://b/run").create()
    assert list(tmp_path.iterdir()) == []


def test_paths__lie_below_it(tmp_path):
    made = vars(Workdir(tmp_path))
    assert made.pop("path") == tmp_path and made.pop("given") == str(tmp_path)
    assert {path.parent for path in made.values()} == {tmp_path}


def test_create__a_kill_leaves_nothing(tmp_path, monkeypatch):
    """A file that is made and removed again would stay."""

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "unlink", killed)
    with contextlib.suppress(KeyboardInterrupt):
        Workdir(tmp_path).create()
    assert list(tmp_path.iterdir()) == []
