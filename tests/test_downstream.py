"""The snippets of docs/downstream.md, run in order, and the modes they use."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import downstream, restore, train
from tf_dpred.config import Config
from tf_dpred.evaluation import run as evaluation_run

CHECKOUT = Path(__file__).parent.parent
DOCS = CHECKOUT / "docs" / "downstream.md"
SETTINGS = {
    "width": 1 / 16,
    "image_size": 16,
    "projector_hidden": 32,
    "projector_dim": 16,
    "batch_size": 32,
    "train_size": 64,
    "epochs": 1,
    "knn_every": 0,
}
# Short, where the documented command is long.
QUICK = ["--eval_epochs=1", "--eval_lr=0.1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with `runs/quickstart` (2 steps), `my_images` and `tools`."""
    home = tmp_path_factory.mktemp("home")
    workdir = home / "runs" / "quickstart"
    train.Pretraining(Config.from_dict(SETTINGS | {"workdir": str(workdir)})).run()
    (home / "tools").symlink_to(CHECKOUT / "tools")
    (home / "my_images").mkdir()
    generator = np.random.default_rng(0)
    for index in range(5):
        pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        path = home / "my_images" / f"{index}.jpg"
        path.write_bytes(tf.io.encode_jpeg(pixels).numpy())
    (home / "my_images" / "broken.jpg").write_bytes(b"no image")
    return home


def snippets(language):
    text = DOCS.read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands():
    """The documented commands that are not those of another test, quick ones."""
    lines = [line for block in snippets("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def test_docs__snippets_run(home, monkeypatch):
    """Commands first, in order; then all Python as one program."""
    lines = commands()
    assert len(lines) >= 8
    for line in lines:
        program, *arguments = line.split()
        assert program == "python"
        if "tf_dpred.main" in line or "report.py" in line:
            arguments += QUICK
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=home,
            capture_output=True,
            text=True,
            env={**__import__("os").environ, "PYTHONPATH": str(CHECKOUT)},
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
