"""How often the directories of a folder are listed: once, whatever a mode does."""

import os

import images
import numpy as np
import pytest
from test_recovery import pretraining

from tf_dpred import train
from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import check, datasets, shrink
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.listing import Listing
from tf_dpred.encoders import embed, settings
from tf_dpred.evaluation import compare, evaluate, labelled, views
from tf_dpred.reports import preview

GIVEN = {"dataset": "folder", "views": "cifar", "image_size": 16, "batch_size": 8}


@pytest.fixture
def walked(monkeypatch):
    """Every call that lists a directory -> the paths, as they were given."""
    calls = []

    def counted(function):
        return lambda path=".": calls.append(str(path)) or function(path)

    monkeypatch.setattr(os, "scandir", counted(os.scandir))
    monkeypatch.setattr(os, "listdir", counted(os.listdir))
    return calls


def write(root, each):
    """Two splits of three classes -> the folder and its nine directories."""
    made = images.write_pngs(root / "images", each)
    for split in ("train", "val"):
        for i, name in enumerate(made):
            path = root / "D" / split / "abc"[i % 3] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(root / "images" / name, path)
    return str(root / "D")


def begin(config, tmp_path):
    """A run, up to its first step, with kNN and held-out views."""
    given = {**config.to_dict(), "train_size": None, "knn_every": 1}
    run = pretraining(str(tmp_path / "w"), **{k: given[k] for k in (*GIVEN, "data_dir",
                      "train_size", "knn_every")}, quality_every=1)  # fmt: skip
    run.lock.release()


def evaluate_all(config, tmp_path, monkeypatch):
    """--mode=evaluate, in which training classifiers takes long."""
    found = {"top1": 0.5, "top5": 1.0, "learning_rate": 0.1, "k": 1, "temperature": 1.0}
    tuned = {"finetuned": found, "from_scratch": found}
    monkeypatch.setattr(
        evaluate.Evaluation,
        "_compute",
        lambda self, mode: tuned if mode == "finetune" else found,
    )
    monkeypatch.setattr(views, "IMAGES", 8)
    workdir = tmp_path / "e"
    thin = {"width": 1 / 16, "projector_hidden": 32, "projector_dim": 16}
    training = {"epochs": 1, "train_size": 8, "batch_size": 8, "quality_every": 0}
    given = {**thin, **training, "image_size": 16, "workdir": str(workdir)}
    train.Pretraining(Config.from_dict(given)).train()
    given = {"workdir": str(workdir), "eval_epochs": 1, "eval_lr": 0.1}
    given |= {"dataset": "folder", "data_dir": config.data.data_dir}
    compare.run(settings.of_encoder(given), FilesConfig())


@pytest.mark.parametrize(
    "mode", ["pretrain", "preview", "evaluate", "knn", "embed", "check", "shrink"]
)
def test_modes__list_each_directory_once(mode, walked, exported, tmp_path, monkeypatch):
    root = write(tmp_path, 24)
    config = Config.from_dict(
        {**GIVEN, "data_dir": root, "workdir": str(tmp_path / "w")}
    )
    of_encoder = settings.of_encoder(
        {"dataset": "folder", "data_dir": root, "export_dir": str(exported)}
    )
    output = {"embed": "features.npz", "shrink": "small"}.get(mode)
    files = FilesConfig(output=output and str(tmp_path / output))
    walked.clear()
    if mode == "pretrain":
        begin(config, tmp_path)
    elif mode == "evaluate":
        evaluate_all(config, tmp_path, monkeypatch)
    else:
        functions = {
            "preview": (preview.run, config),
            "knn": (evaluate.knn, of_encoder),
            "embed": (embed.run, of_encoder),
            "check": (check.run, config),
            "shrink": (shrink.run, config),
        }
        run, given = functions[mode]
        run(given, files)
    below = [path for path in walked if path.startswith(root)]
    assert len(below) == len(set(below)) == 9


@pytest.mark.slow
def test_start__of_300_000_files(walked, tmp_path, monkeypatch):
    """Each directory is listed once and each file looked at once, before a run."""
    for split, each in (("train", 2700), ("val", 300)):
        for c in range(100):
            path = tmp_path / "D" / split / f"{c:03}"
            path.mkdir(parents=True)
            for i in range(each):
                (path / f"{i}.jpg").touch()
    walked.clear()
    looked = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda p, **kw: looked.append(p) or stat(p, **kw))
    config = Config.from_dict({**GIVEN, "data_dir": str(tmp_path / "D")})
    found, bad_images = datasets.of_config(config), BadImages()
    source = datasets.training_source(config, bad_images, found)
    searched, tested = labelled.open_splits(config, bad_images, (20_000, 5_000), found)
    held_out, _ = views.held_out_source(config, bad_images, found)
    sizes = [s.num_examples for s in (source, searched, tested, held_out)]
    assert sizes == [270_000, 20_000, 5_000, 30_000]
    assert len(walked) == len(set(walked)) == 203
    assert len(looked) < 1000
    assert np.unique(source.classes).size == 100
    assert isinstance(found._found, Listing)
