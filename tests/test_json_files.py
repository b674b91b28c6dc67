"""JSON files of a run: round trips, and one line for each kind of damage."""

import pytest

from tf_dpred.errors import Refused
from tf_dpred.system import json_files


def test_write__replaces_what_was_there(tmp_path):
    path = tmp_path / "result.json"
    assert json_files.read(path) == {}
    result = {"epochs": 2, "step": 10, "loss": -1.5, "knn_by_epoch": {"0": 0.5}}
    json_files.write(path, result)
    assert json_files.read(path) == result
    json_files.write(path, {"epochs": 3})
    assert json_files.read(path) == {"epochs": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"flags": ', "Expecting value"),
        ("", "Expecting value"),
        ("[1, 2]", "it holds a list, not an object"),
        ("null", "it holds a NoneType, not an object"),
    ],
)
def test_read__damaged(tmp_path, text, reason):
    (tmp_path / "flags.json").write_text(text)
    with pytest.raises(Refused) as refusal:
        json_files.read(tmp_path / "flags.json")
    message = str(refusal.value)
    start = f"--workdir: received {str(tmp_path)!r} with a damaged flags.json ("
    assert message.startswith(start) and reason in message and "\n" not in message


def test_read__not_text(tmp_path):
    (tmp_path / "flags.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(Refused, match=r"a damaged flags\.json"):
        json_files.read(tmp_path / "flags.json")


def test_read_lines__a_last_line_that_was_cut_off(tmp_path):
    path = tmp_path / "epochs.jsonl"
    assert json_files.read_lines(path) == []
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert json_files.read_lines(path) == [{"epoch": 1}, {"epoch": 2}]


def test_read_lines__damaged(tmp_path):
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(Refused, match=r"with a damaged epochs\.jsonl"):
        json_files.read_lines(path)
