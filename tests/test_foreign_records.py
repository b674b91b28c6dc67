"""Properties of what reads text that others may have written or cut."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_dpred.config import Config
from tf_dpred.encoders import settings as encoder_settings
from tf_dpred.errors import Refused
from tf_dpred.records import flags_json, lines, provenance
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import cluster, json_files

many = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.dictionaries(st.text(max_size=5), inside, max_size=3)
    ),
    max_leaves=5,
)
RECORD = {
    "flags": Config().to_dict(),
    "run": "a-12345678",
    "num_examples": 5,
    "images": "abc",
    "versions": {"keras": "3.15"},
    "environment": {"XLA_FLAGS": None},
    "devices": ["/device:CPU:0"],
}


def places(value, path=()):
    """Every place in nested objects and lists."""
    yield path
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from places(part, (*path, key))


def changed(value, path, new):
    """A copy with something else at a place."""
    if not path:
        return new
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = changed(value[key], rest, new)
    return copy


def one_line(function, *arguments):
    """Runs it -> None, or its refusal, of one line."""
    try:
        function(*arguments)
    except Refused as error:
        assert len(str(error).splitlines()) == 1
        return str(error)


@many
@given(place=st.sampled_from(list(places(RECORD))), value=VALUES)
def test_flags_json__anything_anywhere(place, value, tmp_path):
    """It is read, or refused in one line; whatever mode reads it."""
    workdir = Workdir(tmp_path)
    workdir.flags.write_text(json.dumps(changed(RECORD, place, value)))
    one_line(provenance.check_settings, workdir, Config())
    one_line(provenance.changes, workdir, Config())
    one_line(encoder_settings.of_encoder, {"workdir": str(tmp_path)})


@many
@given(text=st.binary(max_size=40))
def test_flags_json__any_bytes(text, tmp_path):
    workdir = Workdir(tmp_path)
    workdir.flags.write_bytes(text)
    refusal = one_line(flags_json.read, workdir)
    assert refusal and "with a damaged flags.json (" in refusal


NUMBERS = st.floats(allow_nan=False)
ENTRY = st.builds(
    lambda step, more: {"epoch": step, "step": step, **more},
    st.integers(0, 10**6),
    st.dictionaries(st.sampled_from(["loss", "knn", "feature_std"]), NUMBERS),
)


@many
@given(entries=st.lists(ENTRY, min_size=1, max_size=4), part=st.floats(0, 1))
def test_epochs_jsonl__cut_anywhere(entries, part, tmp_path):
    """All that was whole before the cut is there, and nothing else."""
    path = tmp_path / "epochs.jsonl"
    written = [json.dumps(entry) + "\n" for entry in entries]
    text = "".join(written)
    cut = text[: round(part * len(text))]
    path.write_text(cut)
    found = json_files.read_lines(path, lines.EPOCH)
    whole = cut.count("\n") + (not cut.endswith("\n") and cut.endswith("}"))
    assert found == entries[:whole]


@many
@given(
    place=st.sampled_from(list(places({"epoch": 1, "step": 2, "loss": 0.5}))),
    value=VALUES,
)
def test_epochs_jsonl__anything_anywhere(place, value, tmp_path):
    path = tmp_path / "epochs.jsonl"
    line = changed({"epoch": 1, "step": 2, "loss": 0.5}, place, value)
    path.write_text(json.dumps(line) + "\n")
    one_line(json_files.read_lines, path, lines.EPOCH)


CLUSTER = {
    "cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]},
    "task": {"type": "worker", "index": 1},
}


@many
@given(place=st.sampled_from(list(places(CLUSTER))), value=VALUES)
def test_tf_config__anything_anywhere(place, value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CONFIG", json.dumps(changed(CLUSTER, place, value)))
        refusal = one_line(cluster.from_environment)
    assert refusal is None or refusal.startswith("TF_CONFIG: received ")


@many
@given(text=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_tf_config__any_text(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CONFIG", text)
        assert one_line(cluster.from_environment).startswith("TF_CONFIG: received ")


@pytest.mark.parametrize(
    "text",
    [
        100_000 * "[",
        cluster.tf_config(["a:" + 5000 * "9"], 0),
        cluster.tf_config(["a:\u0661"], 0),  # an Arabic 1
        cluster.tf_config(["a:1", "b:1"], True),
        cluster.tf_config(["a:1", "b:1"], "\u00b2"),  # a superscript 2
        cluster.tf_config(["a:1", "b:1"], 1.0),
        cluster.tf_config(["a:1", "b:1"], -1),
    ],
    ids=lambda text: text[:30],
)
def test_tf_config__what_python_takes_for_a_number(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    assert one_line(cluster.from_environment).startswith("TF_CONFIG: received ")
