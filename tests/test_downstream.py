"""The page docs/downstream.md, run from top to bottom, and its modes' results."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from tf_dpred import main, train
from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import image_files
from tf_dpred.encoders import embed, export, restore, settings
from tf_dpred.errors import Refused
from tf_dpred.evaluation import compare
from tf_dpred.evaluation.evaluate import Evaluation

DOCS = Path(__file__).parent.parent / "docs" / "downstream.md"
SETTINGS = {
    "width": 1 / 16,
    "image_size": 16,
    "projector_hidden": 32,
    "projector_dim": 16,
    "batch_size": 32,
    "train_size": 64,
    "epochs": 1,
    "knn_every": 0,
    "quality_every": 0,
}
# What would take long is cut short.
QUICK = ["--eval_epochs=2", "--eval_lr=0.1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with `runs/quickstart`, two steps long, and `my_images`."""
    home = tmp_path_factory.mktemp("home")
    workdir = home / "runs" / "quickstart"
    train.Pretraining(Config.from_dict(SETTINGS | {"workdir": str(workdir)})).train()
    (home / "my_images").mkdir()
    generator = np.random.default_rng(0)
    for index in range(5):
        pixels = generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        path = home / "my_images" / f"{index}.jpg"
        path.write_bytes(tf.io.encode_jpeg(pixels).numpy())
    (home / "my_images" / "broken.jpg").write_bytes(b"no image")
    return home


def run_command(line):
    """What `python ...` does, in this process: starting TensorFlow takes seconds."""
    program, *arguments = line.split()
    assert [program, *arguments[:2]] == ["python", "-m", "tf_dpred.main"]
    flags.FLAGS.unparse_flags()
    main.parse(["main", *arguments[2:], *QUICK])
    assert main.main(["main"]) == 0


@pytest.mark.slow
def test_docs__run_from_top_to_bottom(home, capsys, caplog, monkeypatch):
    monkeypatch.chdir(home)
    caplog.set_level("INFO", logger="absl")
    page = DOCS.read_text().replace("1760", "2")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert {language for language, _ in blocks} == {"sh", "python"}
    names = {}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, str(DOCS), "exec"), names)
        else:
            for line in text.replace("\\\n", "").splitlines():
                run_command(line)
    out = capsys.readouterr().out
    cell = r"\| \d+\.\d \(\d+\.\d-\d+\.\d\) +"
    assert re.search(rf"\| untrained +{2 * cell}\| +\| ", out)
    assert re.search(rf"\| online, step 2 +{4 * cell}", out)
    assert re.search(rf"\| from scratch +\| +\| +{2 * cell}", out)
    assert re.search(r"Online, step 2: \w+ \w+ .*untrained: kNN 0\.\d+ \(", out)
    assert "(8, 32) (8, 16)" in out
    assert "(5,) (5, 32)" in out
    assert "wrote features.npz: 5 of 6 images, representations of length 32" in out
    assert "left out broken.jpg: not a file of one of the kinds .jpeg" in caplog.text
    assert "online network of runs/quickstart/export/2" in caplog.text
    assert "1.0000  0.jpg" in out
    assert (home / "out.png").read_bytes().startswith(b"\x89PNG")
    assert np.load("features.npz")["projection"].shape == (5, 16)

    workdir = home / "runs" / "quickstart"
    check_results(workdir)
    check_export(workdir, home / "scratch")


def test_embed__from_the_checkpoint_where_there_is_no_export(home, tmp_path, caplog):
    """Equal to what the network makes of the same images."""
    workdir = tmp_path / "run"
    shutil.copytree(
        home / "runs" / "quickstart", workdir, ignore=shutil.ignore_patterns("export")
    )
    given = {"workdir": str(workdir), "data_dir": str(home / "my_images")}
    output = tmp_path / "features.npz"
    caplog.set_level("INFO", logger="absl")
    embed.run(settings.of_encoder(given), FilesConfig(output=str(output)))
    assert f"online network of {workdir}, step 2" in caplog.text
    features = np.load(output)
    encoder = restore.open_encoder(settings.of_encoder(given))
    size, preprocessing = encoder.image_size, encoder.preprocessing
    images = [
        preprocessing.evaluation_view(image_files.decode(path.read_bytes()), size)
        for path in (home / "my_images" / name for name in features["files"])
    ]
    expected = encoder.network(tf.cast(tf.stack(images), tf.float32), training=False)
    for name, values in zip(("representation", "projection"), expected, strict=True):
        np.testing.assert_allclose(features[name], values, rtol=1e-4, atol=1e-5)


def test_embed__an_export_of_an_earlier_step_is_not_taken(home, tmp_path, caplog):
    """Unless it is asked for: all modes see the latest checkpoint of a run."""
    workdir = tmp_path / "run"
    shutil.copytree(home / "runs" / "quickstart", workdir)
    given = {"workdir": str(workdir)}
    export.run(settings.of_encoder(given), FilesConfig())
    (path,) = (workdir / "checkpoints").glob("*2.npz")
    caplog.set_level("INFO", logger="absl")
    embed.open_file_encoder(settings.of_encoder(given))
    assert f"online network of {workdir / 'export' / '2'}" in caplog.text
    shutil.copy(path, path.with_name("step-00000003.npz"))
    embed.open_file_encoder(settings.of_encoder(given))
    assert f"online network of {workdir}, step 3" in caplog.text
    caplog.clear()
    embed.open_file_encoder(settings.of_encoder({"export_dir": str(workdir)}))
    assert f"online network of {workdir / 'export' / '2'}" in caplog.text


def test_evaluate__untrained_stands_beside_it_already(home):
    given = {"workdir": str(home / "runs" / "quickstart"), "encoder": "untrained"}
    with pytest.raises(
        Refused, match=r"^--encoder: received 'untrained', accepted: on"
    ):
        compare.run(settings.of_encoder(given), FilesConfig())


def check_results(workdir):
    """The files that the evaluations of the page left."""
    assert json.loads((workdir / "result.json").read_text())["step"] == 2
    found = {
        path.parent.name: json.loads(path.read_text())
        for path in workdir.glob("evaluation/*/result.json")
    }
    assert set(found) == {
        "evaluate-digits-online",
        "finetune-0.01-digits-online",
        "finetune-0.1-digits-online",
        "knn-digits-pixels",
        "linear_eval-features-digits-pixels",
        "knn-digits-online",
        "knn-digits-untrained",
        "linear_eval-features-digits-online",
        "linear_eval-features-digits-untrained",
    }
    assert found.pop("evaluate-digits-online")["step"] == 2
    for result in found.values():
        assert (result["train_size"], result["test_size"]) == (1437, 360)
        assert (result["train_split"], result["test_split"]) == ("train", "test")
        assert result["seed"] == 0
    assert found["linear_eval-features-digits-online"]["learning_rate"] == 3e-4
    few = found["finetune-0.1-digits-online"]
    assert few["labelled_images"] == 140  # ten classes, 14 of each
    assert few["finetuned"]["learning_rate"] == few["from_scratch"]["learning_rate"]
    card = json.loads((workdir / "export" / "2" / "model_card.json").read_text())
    quoted = {e["mode"]: e for e in card["evaluations"]}
    assert quoted["knn"]["top1"] == found["knn-digits-online"]["top1"]


def check_export(workdir, scratch):
    """An export scores what its checkpoint scores, and writes where it is told to."""
    given = {"export_dir": str(workdir), "workdir": str(scratch)}
    found = Evaluation(settings.of_encoder(given)).run("knn")
    path = scratch / "evaluation" / "knn-digits-online" / "result.json"
    assert json.loads(path.read_text()) == found
    original = workdir / path.relative_to(scratch)
    assert json.loads(original.read_text()) == found


def test_open_encoder__target_is_another_network(home):
    workdir = str(home / "runs" / "quickstart")
    networks = [
        restore.open_encoder(
            settings.of_encoder({"workdir": workdir, "encoder": which})
        )
        for which in ("online", "target", "untrained")
    ]
    assert [encoder.step for encoder in networks] == [2, 2, 0]
    assert len({encoder.fingerprint for encoder in networks}) == 3


@pytest.mark.slow
def test_linear_eval__imagenet_protocol_chooses_its_rate(home):
    given = {
        "workdir": str(home / "runs" / "quickstart"),
        "protocol": "imagenet",
        "eval_epochs": 1,
        "eval_batch_size": 128,
    }
    result = Evaluation(settings.of_encoder(given)).run("linear_eval")
    assert set(result["held_out_top1"]) == {"0.4", "0.3", "0.2", "0.1", "0.05"}
    best = max(result["held_out_top1"].values())
    assert result["held_out_top1"][str(result["learning_rate"])] == best
    assert result["held_out_size"] + result["fitted_on"] == result["train_size"]
    assert result["held_out_size"] == 143
    assert 0 <= result["top1"] <= result["top5"] <= 1


BAD = [
    ({"workdir": "no/such/run"}, "--workdir: received 'no/such/run'"),
    ({"export_dir": "no/such/export"}, "--export_dir: received 'no/such/export'"),
    ({"width": 0.5}, "--width: received 0.5, accepted: 0.0625, as it was trained"),
    ({"eval_test_split": "validation"}, "--eval_test_split: received 'validation'"),
    ({"dataset": "nosuchdata"}, "nosuchdata"),
    ({"eval_batch_size": 5000, "mode": "finetune"}, "--eval_batch_size: received 5000"),
    ({"label_fraction": 0.001, "mode": "finetune"}, "--eval_lr: received None"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=lambda v: str(v)[:40])
def test_evaluation__bad_settings_are_one_line(given, message, home):
    given = {"workdir": str(home / "runs" / "quickstart"), **given}
    mode = given.pop("mode", "knn")
    with pytest.raises(Refused, match="accepted") as refusal:
        Evaluation(settings.of_encoder(given)).run(mode)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value).strip()


def test_evaluation__no_target_without_ema(home, tmp_path):
    flags_json = json.loads((home / "runs" / "quickstart" / "flags.json").read_text())
    flags_json["flags"]["ema"] = False
    (tmp_path / "flags.json").write_text(json.dumps(flags_json))
    config = settings.of_encoder({"workdir": str(tmp_path), "encoder": "target"})
    with pytest.raises(Refused, match="--encoder: received 'target'"):
        restore.open_encoder(config)
    config = settings.of_encoder({"workdir": str(tmp_path)})
    with pytest.raises(Refused, match="holds a checkpoint"):
        restore.open_encoder(config)
