"""What TensorFlow's libraries print while they load is shown if that fails."""

import os

import pytest

from tf_dpred.system import quiet


@pytest.fixture
def no_level(monkeypatch):
    monkeypatch.setenv(quiet.LOG_LEVEL, "")  # so that it is what it was afterwards
    monkeypatch.delenv(quiet.LOG_LEVEL)


def test_start__holds_back_what_libraries_print(no_level, capfd):
    with quiet.start():
        os.write(2, b"chatter")
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"
    assert os.environ[quiet.LOG_LEVEL] == "2"


def test_start__shows_all_of_it_if_loading_fails(no_level, capfd):
    with pytest.raises(ImportError), quiet.start():
        os.write(2, b"no such library")
        raise ImportError
    assert capfd.readouterr().err == "no such library"


def test_start__a_level_that_was_chosen(monkeypatch, capfd):
    monkeypatch.setenv(quiet.LOG_LEVEL, "0")
    with quiet.start():
        os.write(2, b"chatter")
    assert capfd.readouterr().err == "chatter"
    assert os.environ[quiet.LOG_LEVEL] == "0"
