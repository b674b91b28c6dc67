"""The notebooks run from top to bottom, cut short, and leave their pictures."""

import re
from pathlib import Path

import processes
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run(name, tmp_path):
    """What a notebook prints, run as a script."""
    environment = {
        "TF_DPRED_SHORT": "1",
        "TF_DPRED_OUTPUT": str(tmp_path),
        "MPLBACKEND": "Agg",
    }
    done = processes.run_file(
        NOTEBOOKS / f"{name}.py", directory=tmp_path, environment=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_pictures(directory, *names):
    for name in names:
        content = (directory / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 5000


@pytest.mark.slow
def test_own_images(tmp_path):
    printed = run("own_images", tmp_path)
    assert "step 3: loss" in printed  # 96 images in batches of 32
    assert "saved_model.pb" in printed
    assert "(96, 32)" in printed
    shares = re.findall(r"^(?:trained|untrained|pixels) +(0\.\d+)$", printed, re.M)
    assert len(shares) == 3
    check_pictures(tmp_path, "neighbours")


def test_theory(tmp_path):
    printed = run("theory", tmp_path)
    assert "0, 0.054447 (unstable), 0.612220" in printed
    assert "boundary: 0.054447 predicted, 0.054447 simulated" in printed
    assert "p starts at 0.98 p-, ends at 0.000000" in printed
    assert "p starts at 1.02 p-, ends at 0.612220" in printed
    deviations = re.findall(r"largest deviation of [ps]: ([\d.e-]+)", printed)
    # Of finite steps: 0.02 each.
    assert len(deviations) == 2 and all(0 < float(d) < 5e-3 for d in deviations)
    check_pictures(tmp_path, "basin", "critical_decay", "trained")


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda p: p.stem)
def test_notebooks__are_in_percent_format_and_tested(path):
    text = path.read_text()
    assert text.startswith("# ---\n# jupyter:\n") and "\n# %% [markdown]\n" in text
    assert f"test_{path.stem}" in globals()
