"""The command: figures, the table, and what it says where something is missing."""

from pathlib import Path

import pytest
from imports import brought_along
from PIL import Image

from tf_dpred.theory import __main__ as program
from tf_dpred.theory import comparison, observations, theorems
from tf_dpred.theory.captions import CAPTIONS

CHECKOUT = Path(__file__).parent.parent
PICTURES = CHECKOUT / "docs/pictures/theory"


def test_main__draws_one_figure(tmp_path, capsys):
    program.main(["--figure=4", f"--out={tmp_path / 'new'}"])
    files = sorted((tmp_path / "new").iterdir())
    assert [f.name for f in files] == ["figure4.png", "figure4.svg"]
    assert Image.open(files[0]).size[0] > 900
    svg = files[1].read_text()
    assert "<svg" in svg
    assert capsys.readouterr().out.count("wrote ") == 2
    # The same bytes every time.
    program.main(["--figure=4", f"--out={tmp_path / 'again'}"])
    assert (tmp_path / "again" / files[1].name).read_text() == svg


@pytest.mark.slow
def test_main__draws_all_figures(tmp_path):
    program.main(["--figure=all", f"--out={tmp_path}"])
    assert len(list(tmp_path.iterdir())) == 2 * len(program.FIGURES)


def test_figures__all_have_captions_and_are_in_the_docs():
    from tf_dpred.theory.figures import FIGURES

    assert tuple(FIGURES) == tuple(CAPTIONS) == program.FIGURES
    page = (CHECKOUT / "docs/theory.md").read_text()
    for name in FIGURES:
        picture = PICTURES / f"figure{name}.png"
        assert f"pictures/theory/{picture.name}" in page
        assert 5e3 < picture.stat().st_size < 150e3
        assert Image.open(picture).size[0] > 900


def test_main__prints_the_table(monkeypatch, capsys):
    rows = list(theorems.theorem3())
    monkeypatch.setattr(theorems, "all_comparisons", lambda: iter(rows))
    monkeypatch.setattr(observations, "all_comparisons", lambda: iter(rows))
    program.main(["--table"])
    assert capsys.readouterr().out.strip() == comparison.table([*rows, *rows])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "received neither, accepted: --figure=..., --table or both."),
        (["--figure=6"], "invalid choice: '6'"),
    ],
)
def test_main__refuses(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        program.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_main__out_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        program.main(["--figure=4", f"--out={tmp_path / 'file'}"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tf_dpred.theory: --out: ") and "file" in line


def test_theory__imports_no_tensorflow():
    modules = "tf_dpred.theory.figures, tf_dpred.theory.observations"
    assert brought_along(modules, {"tensorflow", "keras"}) == "[]"
