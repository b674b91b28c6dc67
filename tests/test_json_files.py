"""JSON files of a run: round trips, and one line for each kind of damage."""

import os

import pytest

from tf_dpred.errors import Refused
from tf_dpred.system import json_files

SHAPE = {
    "flags": {str: ({str: int}, None)},
    "names?": [str, ...],
    "number?": (float, None),
}


def test_write__replaces_what_was_there(tmp_path):
    path = tmp_path / "result.json"
    assert json_files.read(path) is None
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
        ("null", "it holds null, not an object"),
        ("7", "it holds a whole number, not an object"),
        (100_000 * "[", "it is nested too deeply"),
        ('{"a": ' + 5000 * "9" + "}", "4300 digits"),
        ("{}", "it lacks flags"),
        ('{"flags": null}', "flags is null, not an object"),
        ('{"flags": {"a": {"b": true}}}', "flags.a.b is true or false, not a whole n"),
        ('{"flags": {}, "names": 3}', "names is a whole number, not a list"),
        ('{"flags": {}, "names": ["a", {}]}', "names[1] is an object, not text"),
        ('{"flags": {}, "names": []}', "names is empty"),
        ('{"flags": {}, "number": "3"}', "number is text, not a number"),
    ],
    ids=lambda text: text[:40],
)
def test_read__damaged(tmp_path, text, reason):
    (tmp_path / "flags.json").write_text(text)
    with pytest.raises(Refused) as refusal:
        json_files.read(tmp_path / "flags.json", SHAPE)
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


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ('{"epoch": 3, "more": {}', 2),  # ends with a brace
        ('{"epoch": 3}', 3),  # an editor removed the last line break
        ("\0\0\0\0", 2),  # blocks that a file system had not written
        ('{"epoch": 3, "name": "\xc3', 2),
        ("", 2),
    ],
)
def test_read_lines__what_stands_behind_the_last_line_break(tmp_path, tail, kept):
    path = tmp_path / "epochs.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epoch": 2}\n' + tail.encode("latin-1"))
    found = json_files.read_lines(path, {"epoch": int})
    assert [entry["epoch"] for entry in found] == [1, 2, 3][:kept]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("null", "line 2: it holds null, not an object"),
        ("[]", "line 2: it holds a list, not an object"),
        ("{}", "line 2: it lacks epoch"),
        ('{"epoch": "1"}', "line 2: epoch is text, not a whole number"),
        ("", "line 2: Expecting value"),
    ],
)
def test_read_lines__a_line_of_another_shape(tmp_path, line, reason):
    path = tmp_path / "epochs.jsonl"
    path.write_text(f'{{"epoch": 1}}\n{line}\n')
    with pytest.raises(Refused) as refusal:
        json_files.read_lines(path, {"epoch": int}, "beside")
    assert str(refusal.value).startswith(f"--beside: received {str(tmp_path)!r} with a")
    assert reason in str(refusal.value)


def test_read_lines__damaged(tmp_path):
    path = tmp_path / "epochs.jsonl"
    path.write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(Refused, match=r"with a damaged epochs\.jsonl"):
        json_files.read_lines(path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
@pytest.mark.parametrize("read", [json_files.read, json_files.read_lines])
def test_read__no_regular_file_is_refused(tmp_path, read, make):
    """To read from a pipe would wait for ever."""
    make(tmp_path / "flags.json")
    with pytest.raises(
        Refused, match=r"damaged flags\.json \(it is not a regular file"
    ):
        read(tmp_path / "flags.json")
