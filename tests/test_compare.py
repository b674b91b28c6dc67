"""--mode=evaluate: its rows, its table, and what it says; encoders of other people."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from tf_dpred import train
from tf_dpred.config import Config, FilesConfig
from tf_dpred.data.source import from_arrays
from tf_dpred.encoders import baseline, restore, settings
from tf_dpred.errors import Refused
from tf_dpred.evaluation import compare, labelled, verdict, views
from tf_dpred.evaluation.verdict import Rate
from tf_dpred.records import results

SETTINGS = {
    "width": 1 / 16,
    "image_size": 16,
    "projector_hidden": 32,
    "projector_dim": 16,
    "batch_size": 32,
    "train_size": 64,
    "epochs": 2,
    "knn_every": 0,
    "quality_every": 1,
    "keep_best": "view_top1",
}
QUICK = {"eval_epochs": 2, "eval_lr": 0.1}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of four steps on digits."""
    path = tmp_path_factory.mktemp("runs") / "mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "IMAGES", 64)
        train.Pretraining(Config.from_dict(SETTINGS | {"workdir": str(path)})).train()
    return path


@pytest.fixture
def computed(monkeypatch):
    """Stands in for training classifiers, which takes long -> what was computed."""
    done = []
    top1 = {
        "pixels": 0.5,
        "untrained": 0.6,
        "online": 0.9,
        "baseline theirs.keras": 1.0,
    }

    def compute(self, mode):
        done.append((mode, self.encoder.which, self.config.evaluation.label_fraction))
        found = {"top1": top1[self.encoder.which], "top5": 1.0, "learning_rate": 0.1}
        if mode == "knn":
            found |= {"k": 1, "temperature": 0.1}
        if mode != "finetune":
            return found
        scratch = {"from_scratch": found} if self.encoder.which == "online" else {}
        return {"finetuned": found, **scratch}

    monkeypatch.setattr(compare.Evaluation, "_compute", compute)
    monkeypatch.setattr(views, "IMAGES", 64)
    return done


def of_run(workdir, **given):
    return settings.of_encoder({"workdir": str(workdir), **QUICK, **given})


def keras_file(path, size=16, channels=3):
    """A small network of somebody else's, whose output is a map."""
    images = keras.Input((size, size, channels))
    x = keras.layers.Rescaling(1 / 255)(images)
    keras.Model(images, keras.layers.Conv2D(4, 3)(x)).save(path)
    return str(path)


def test_run__all_rows(workdir, computed, tmp_path, capsys):
    config = of_run(workdir)
    file = keras_file(tmp_path / "theirs.keras", size=20)
    compare.run(config, FilesConfig(baseline=file))
    out = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in out.splitlines() if "|" in line]
    names = ["raw pixels", "untrained", "online, step 4", "theirs.keras"]
    assert rows == [
        *("encoder", "-" * len(rows[1]), *names, "from scratch"),
        *("encoder", "-" * len(rows[8]), *names),
    ]
    assert "top-1 on 360 images of test, 1437 of train with labels" in out
    assert "64 held-out images, two views of each by --views=digits" in out
    assert max(len(line) for line in out.splitlines() if "|" in line) <= 100
    said = out.strip().splitlines()[-1]
    assert said.startswith("Online, step 4: better than untrained: kNN 0.900 (0.865 ")
    assert "; better than raw pixels: kNN 0.900" in said
    assert "; worse than theirs.keras: kNN 0.900" in said
    assert " untrained: view retrieval 0." in said
    path = results.path_of(
        workdir,
        {
            "mode": "evaluate",
            "protocol": None,
            "dataset": "digits",
            "encoder": "online",
        },
    )
    stored = json.loads(path.read_text())
    assert stored["verdict"].lower() + "." == said.lower()
    # What is refused for too few labels is computed first, and nothing twice.
    assert computed[0] == ("finetune", "online", 0.01)
    assert len(computed) == len(set(computed)) == 12
    compare.run(config, FilesConfig(baseline=file))
    assert len(computed) == 12 and capsys.readouterr().out == out


def test_fractions__few_labels_only_where_a_rate_can_be_chosen(workdir):
    config = of_run(workdir, eval_lr=None)
    assert compare._fractions(config, compare.Evaluation(config)) == [0.1]
    config = of_run(workdir)
    assert compare._fractions(config, compare.Evaluation(config)) == [0.01, 0.1]


def test_evaluations__without_labels(workdir, computed, monkeypatch):
    monkeypatch.setattr(labelled, "open_splits", lambda *args: None)
    found, encoder = compare.evaluations(of_run(workdir))
    assert not computed
    assert not any(found.rates.values()) and encoder.step == 4
    text = compare.table(found)
    assert "kNN" not in text and "view top-1, %" in text
    assert "raw pixels: " not in compare.sentence(found)
    assert "untrained: view retrieval" in compare.sentence(found)


def numbers(top1, n=512):
    return {"view_top1": top1, "view_images": n, "view_held_out": True}


def found(knn, views):
    """Of rates by row: untrained, ours, another."""
    names = ("raw pixels", "untrained", "online, step 9", "baseline X")
    rates = {
        name: {"kNN": Rate(rate, 5000)} for name, rate in zip(names, knn, strict=True)
    }
    measures = {name: numbers(v) for name, v in zip(names[1:], views, strict=True)}
    return compare.Found("online, step 9", rates, measures, "")


def test_sentence__every_comparison_in_its_words():
    said = compare.sentence(found([0.35, 0.3, 0.36, 0.9], [0.04, 0.22, 0.5]))
    assert said.startswith("online, step 9: better than untrained: kNN 0.360 (")
    assert "; not distinguishable from raw pixels: kNN 0.360" in said
    assert "; worse than baseline X: kNN 0.360" in said
    assert "; better than untrained: view retrieval 0.220" in said
    assert verdict.NOTHING not in said


def test_sentence__nothing_was_learned():
    said = compare.sentence(found([0.3, 0.336, 0.172, 0.2], [0.008, 0.006, 0.006]))
    assert "worse than untrained: kNN 0.172" in said
    assert said.endswith(verdict.NOTHING)


# Checkpoints.


def test_open_encoder__best_last_or_a_step(workdir):
    steps = {
        which: restore.open_encoder(of_run(workdir, checkpoint=which)).step
        for which in ("last", "2", "4", "best")
    }
    entries = [
        json.loads(line) for line in (workdir / "epochs.jsonl").read_text().splitlines()
    ]
    best = max(entries[1:], key=lambda e: e["view_top1"])
    assert steps == {"last": 4, "2": 2, "4": 4, "best": best["step"]}
    with pytest.raises(Refused, match="--checkpoint: received '3', accepted: last, or"):
        restore.open_encoder(of_run(workdir, checkpoint="3"))


def test_result__holds_what_the_untrained_network_measured(workdir):
    result = json.loads((workdir / "result.json").read_text())
    assert result["untrained"]["epoch"] == 0
    for name in ("view_top1", "lidar", "target_projection_rankme"):
        assert {name} <= result.keys() & result["untrained"].keys()


def test_pretraining__best_by_knn_needs_labels(tmp_path):
    images = np.zeros((40, 16, 16, 3), np.uint8)
    changed = {"keep_best": "knn", "knn_every": 1, "workdir": str(tmp_path)}
    config = Config.from_dict(SETTINGS | changed)
    with pytest.raises(Refused, match="--keep_best: received 'knn', accepted: view_to"):
        train.Pretraining(config, source=from_arrays(images))


# Baselines.


def images(n=3, size=16):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(("size", "length"), [(16, 768), (64, 3072)])
def test_pixels__are_the_image_or_a_small_one(size, length):
    encoder = baseline.pixels(Config.from_dict({"image_size": size}))
    features = encoder.network(images(size=size)).numpy()
    assert features.shape == (3, length)
    if size == 16:
        np.testing.assert_array_equal(features, images().reshape(3, -1))
    assert encoder.copy()(images(size=size)).shape == (3, length)


def test_baseline__a_keras_file(tmp_path):
    file = keras_file(tmp_path / "theirs.keras", size=20)
    found = baseline.open_baseline(file, Config.from_dict({"image_size": 16}))
    assert (found.which, found.image_size) == ("baseline theirs.keras", 20)
    expected = keras.saving.load_model(file)(images(size=20)).numpy().mean(axis=(1, 2))
    for network in (found.network, found.copy()):
        np.testing.assert_allclose(network(images(size=20)), expected, rtol=1e-5)


def test_baseline__another_run_and_an_export(workdir, exported):
    config = Config.from_dict({"image_size": 8})
    run = baseline.open_baseline(str(workdir), config)
    assert (run.which, run.step, run.image_size) == ("baseline mine", 4, 16)
    other = baseline.open_baseline(str(exported), config)
    assert (other.step, other.network(images()).shape) == (7, (3, 4))


@pytest.mark.parametrize("name", ["MobileNetV2", "mobilenetv2"])
def test_baseline__an_application_with_weights_from_a_file(name, tmp_path, monkeypatch):
    real = keras.applications.MobileNetV2

    def small(**options):
        """At its usual size it takes seconds."""
        shape = {"input_shape": (32, 32, 3)}
        return real(**{**options, **shape, "alpha": 0.35})

    monkeypatch.setattr(keras.applications, "MobileNetV2", small)
    keras.utils.set_random_seed(0)
    source = small(include_top=False, weights=None, pooling="avg")
    file = str(tmp_path / "their.weights.h5")
    source.save_weights(file)
    config = Config.from_dict({"image_size": 16})
    found = baseline.open_baseline(f"{name}:{file}", config)
    assert found.image_size == 32 and found.which == "baseline their.weights.h5"
    # As its authors prepare images: to [-1, 1].
    expected = source(images(size=32) / np.float32(127.5) - 1)
    for network in (found.network, found.copy()):
        np.testing.assert_allclose(network(images(size=32)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "^--baseline: received 'resnet5', accepted: a keras.applications"),
        ("none.keras", "received 'none.keras' that cannot be loaded"),
        ("{tmp}", "^--baseline: received '.*', accepted: a keras.applications name"),
        ("{tmp}/text.keras", "text.keras' that cannot be loaded"),
        ("{tmp}/gray.keras", r"gray.keras', which takes \(None, 16, 16, 1\), accepted"),
        ("VGG16:none.h5", "received 'VGG16:none.h5', accepted: NAME:FILE of a file"),
        ("VGG16:{tmp}/text.keras", "whose weights cannot be had"),
    ],
)  # fmt: skip
def test_baseline__refused_in_one_line(name, message, tmp_path, monkeypatch):
    (tmp_path / "text.keras").write_text("no network")
    keras_file(tmp_path / "gray.keras", channels=1)
    config = Config.from_dict({"image_size": 16})
    with pytest.raises(Refused, match=message) as error:
        baseline.open_baseline(name.format(tmp=tmp_path), config)
    assert "\n" not in str(error.value)


def test_baseline__no_network_to_fetch_weights_from(monkeypatch):
    def offline(**options):
        if options.get("weights") == "imagenet":
            raise Exception("URL fetch failure on https://...: None -- timed out")
        return keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()])

    monkeypatch.setattr(keras.applications, "VGG16", offline)
    accepted = r"'VGG16' whose weights cannot be had \(URL fetch.*accepted: VGG16, or V"
    with pytest.raises(Refused, match=accepted):
        baseline.open_baseline("VGG16", Config())


def test_views__resized_for_a_network_of_another_size():
    from tf_dpred.evaluation.views import HeldOutViews

    made = HeldOutViews(images(4, 16), images(4, 16), True)
    assert made.resized(16) is made
    large = made.resized(32)
    assert large.first.shape == (4, 32, 32, 3) and large.first.dtype == np.uint8
    assert abs(large.first.mean() - made.first.mean()) < 3
    assert dataclasses.replace(large, held_out=False).held_out is False
