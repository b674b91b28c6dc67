"""What a program gives to a run: trained, recorded, and used by other programs."""

import json
import logging
import shutil

import keras
import numpy as np
import pytest
from absl import flags
from keras import layers

from tf_dpred import main
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config
from tf_dpred.data.source import from_arrays
from tf_dpred.encoders import restore, settings
from tf_dpred.errors import Refused
from tf_dpred.records import checkpoints
from tf_dpred.records import own as records_own
from tf_dpred.train import Pretraining
from tf_dpred.views import TwoViews, ViewPair, ViewSpec

SIZE = 12
SETTINGS = {
    "image_size": SIZE,
    "projector_hidden": 8,
    "projector_dim": 4,
    "batch_size": 8,
    "epochs": 2,
    "knn_k": 3,
    "log_every": 99,  # no pictures
}
GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (24, SIZE, SIZE, 3), np.uint8)
LABELS = np.arange(24) % 3


def source(**kwargs):
    return from_arrays(IMAGES, LABELS, name="mine", **kwargs)


def backbone(before=None, units=4):
    """With weights that are equal every time."""
    images = keras.Input((SIZE, SIZE, 3))
    x = before(images) if before else layers.Rescaling(1 / 255)(images)
    kernel = keras.initializers.HeNormal(seed=0)
    x = layers.Conv2D(units, 3, 2, kernel_initializer=kernel)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name="my_net")


def augmentation():
    return keras.Sequential([layers.RandomFlip(), layers.RandomTranslation(0.2, 0.2)])


class Stop(keras.callbacks.Callback):
    """Ends the process, as a power cut would, after a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.steps_done == self.step:
            raise RuntimeError("power cut")


def pretraining(workdir, *, own=True, **kwargs):
    names = (Config().to_dict().keys() & kwargs.keys()) - {"views", "backbone"}
    config = {name: kwargs.pop(name) for name in names}
    config = Config.from_dict(SETTINGS | config | {"workdir": str(workdir)})
    if own:
        kwargs = {
            "source": source(),
            "backbone": backbone(),
            "views": augmentation(),
            **kwargs,
        }
    return Pretraining(config, **kwargs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A whole run of everything that can be given."""
    workdir = tmp_path_factory.mktemp("supplied") / "run"
    pretraining(workdir, callbacks=[keras.callbacks.TerminateOnNaN()]).train()
    return workdir


def command(*arguments):
    """The exit code of the program, in this process."""
    flags.FLAGS.unparse_flags()
    main.parse(["main", *map(str, arguments)])
    return main.main(["main"])


def last(workdir):
    return checkpoints.load_latest(workdir / "checkpoints")[1]


def test_train__records_what_was_given(trained):
    record = json.loads((trained / "flags.json").read_text())
    own = record["own"]
    assert own["source"] == record["flags"]["dataset"] == "mine"
    assert own["backbone"]["name"] == record["flags"]["backbone"] == "my_net"
    assert own["views"]["name"] == "Sequential (RandomFlip, RandomTranslation)"
    assert own["callbacks"] == ["TerminateOnNaN"]
    assert record["flags"]["split"] == "train"
    stored = json.loads((trained / "views.json").read_text())["views"]
    assert stored[0]["class_name"] == "Sequential"
    result = json.loads((trained / "result.json").read_text())
    assert set(result["knn_by_epoch"]) == {"0", "2"}  # of the source's own labels


@pytest.mark.parametrize("given_again", [True, False])
def test_train__goes_on_to_the_same_bits(trained, given_again, tmp_path):
    """Also where backbone and views come from the work directory."""
    with pytest.raises(RuntimeError, match="power cut"):
        pretraining(tmp_path, checkpoint_every=2, callbacks=[Stop(5)]).train()
    again = {"own": True} if given_again else {"own": False, "source": source()}
    run = pretraining(tmp_path, **again)
    assert run.restored.name == "step-00000004.npz"
    run.train()
    whole, broken = last(trained), last(tmp_path)
    assert whole.keys() == broken.keys()
    assert not [n for n in whole if whole[n].tobytes() != broken[n].tobytes()]


def test_main__evaluation_asks_for_a_data_set(trained, capsys):
    assert command("--mode=knn", f"--workdir={trained}") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "tf_dpred: --dataset: received 'mine (given by a program)', accepted: the name "
        "of a labelled data set"
    )
    assert command("--mode=knn", f"--workdir={trained}", "--dataset=digits") == 0
    assert "online, step 6" in capsys.readouterr().out


def test_main__export_and_what_else_uses_the_run(trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    assert command("--mode=export", f"--workdir={workdir}") == 0
    card = json.loads((workdir / "export" / "6" / "model_card.json").read_text())
    assert card["dataset"] == "mine" and card["own"]["source"] == "mine"
    assert card["input"]["mean"] == [0, 0, 0]
    np.testing.assert_allclose(card["input"]["std"], [1 / 255] * 3)
    page = (workdir / "export" / "6" / "model_card.md").read_text()
    assert page.startswith("# my_net, self-supervised on mine\n")
    for mode in ("diagnose", "report"):
        assert command(f"--mode={mode}", f"--workdir={workdir}") == 0
    html = (workdir / "report.html").read_text()
    assert "my_net" in html and "mine" in html and "RandomTranslation" in html
    assert command("--mode=preview", f"--workdir={workdir}") == 2
    assert "images that a program gave it (mine)" in capsys.readouterr().err
    export = f"--export_dir={workdir}"
    assert command("--mode=knn", export, "--dataset=digits") == 0
    untrained = ["--encoder=untrained", "--dataset=digits"]
    assert command("--mode=knn", export, *untrained) == 2
    assert "which holds the backbone untrained" in capsys.readouterr().err
    assert command("--mode=knn", f"--workdir={workdir}", *untrained) == 0


def test_open_encoder__the_network_that_was_trained(trained):
    encoder = restore.open_encoder(settings.of_encoder({"workdir": str(trained)}))
    run = pretraining(trained)
    images = IMAGES.astype(np.float32)
    expected = run.model.online(images, training=False)
    for found, wanted in zip(encoder.network(images), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    started = settings.of_encoder({"workdir": str(trained), "encoder": "untrained"})
    found = restore.open_encoder(started).bare()(images)
    np.testing.assert_allclose(
        found, backbone()(images, training=False), rtol=1e-4, atol=1e-5
    )
    run.lock.release()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"backbone": backbone(units=5)},
            r"a run on other backbone \(my_net -> my_net\)",
        ),
        (
            {"backbone": backbone(layers.Lambda(lambda x: x / 255.0))},
            r"a run on other backbone \(my_net -> my_net\), accepted: Pretraining",
        ),
        (
            {"views": layers.RandomTranslation(0.2, 0.2)},
            r"a run on other views \(Sequential .*\) -> RandomTranslation\)",
        ),
        ({"views": "cifar"}, "settings .*views: 'digits' -> 'cifar'"),
        ({"own": False}, r"a run on images that a program gave it \(mine\)"),
        (
            {"source": from_arrays(IMAGES[::-1], LABELS, name="mine")},
            "which holds a run on 24 other images",
        ),
        ({"own": False, "source": from_arrays(IMAGES)}, "dataset: 'mine' -> 'arrays'"),
    ],
)
def test_init__another_run_than_the_directory_holds(trained, kwargs, message):
    with pytest.raises(Refused, match=f"--workdir: received .*({message})"):
        pretraining(trained, **kwargs)


class Scaled(layers.Layer):
    """Known to this program alone."""

    def call(self, images):
        return images / 255.0


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: backbone(layers.Lambda(lambda x: x / 255)), "ambda"),
        (lambda: backbone(Scaled()), "other programs do not know Scaled"),
    ],
)
def test_train__says_at_its_start_what_cannot_be_stored(
    make, reason, tmp_path, caplog, capsys
):
    own = {"backbone": make(), "views": lambda image: (image, 255 - image)}
    pretraining(tmp_path, epochs=1, **own).train()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    of_backbone = next(line for line in warnings if "the backbone cannot be" in line)
    assert reason in of_backbone and "restore.open_encoder" in of_backbone
    assert any(
        "the views <lambda>" in line or "cannot be stored (a function)" in line
        for line in warnings
    )
    assert not (tmp_path / "backbone.keras").exists()
    assert command("--mode=export", f"--workdir={tmp_path}") == 2
    assert "accepted: one with its backbone.keras" in capsys.readouterr().err
    config = settings.of_encoder({"workdir": str(tmp_path)})
    assert restore.open_encoder(config, backbone=make()).step == 3
    with pytest.raises(Refused, match=r"accepted: Pretraining\(..., views=...\)"):
        pretraining(tmp_path, own=False, source=source(), backbone=make())


def test_init__labels_of_its_own(tmp_path):
    """Searched and classified images: red ones and blue ones."""
    red = np.zeros((6, SIZE, SIZE, 3), np.uint8)
    red[..., 0] = np.arange(200, 206)[:, None, None]
    labelled = (
        from_arrays(np.concatenate([red, red[..., ::-1]]), np.repeat([0, 1], 6)),
        from_arrays(np.stack([red[2], red[3, ..., ::-1]]), np.array([0, 1])),
    )
    run = pretraining(tmp_path, source=from_arrays(IMAGES), labelled=labelled, epochs=1)
    assert run.train()["knn_by_epoch"] == {0: 1.0, 1: 1.0}


def test_init__no_labels(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    run = pretraining(tmp_path, source=from_arrays(IMAGES))
    assert "no kNN monitor" in caplog.text
    run.lock.release()


def test_init__settings_that_mean_nothing(tmp_path, caplog):
    run = pretraining(tmp_path, train_size=5, width=0.25)
    assert "--train_size=5 means nothing for a source" in caplog.text
    assert "--width=0.25 means nothing for a backbone" in caplog.text
    assert run.config.data.train_size is None and run.config.network.width == 1.0
    assert run.steps_per_epoch == 3
    run.lock.release()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"source": IMAGES}, "--source: received 'ndarray', accepted: a Source"),
        ({"labelled": IMAGES}, "--labelled: received 'ndarray', accepted: a Source"),
        (
            {"labelled": (source(), from_arrays(IMAGES))},
            r"--labelled: received \['mine train', 'arrays train'\], accepted: sources",
        ),
        (
            {"backbone": "resnet50"},
            "--backbone: received 'resnet50', accepted: a",
        ),
        ({"callbacks": [TargetEMA(0.5)]}, "--callbacks: received 'TargetEMA'"),
        ({"callbacks": [print]}, "--callbacks: received 'builtin_function_or_method'"),
        ({"views": "bool"}, "--views: received 'bool', accepted: one of byol"),
        ({"views": TwoViews("cifar", 32)}, r"received 'TwoViews\(image_size=32\)'"),
        (
            {"augment_on": "device"},
            "--augment_on: received 'device', accepted: host with views",
        ),
    ],
)
def test_init__refused(kwargs, message, tmp_path):
    with pytest.raises(Refused, match=message):
        pretraining(tmp_path, **kwargs)


def test_init__two_views(tmp_path):
    """A named recipe is a setting; one of specs is stored as other layers are."""
    run = pretraining(tmp_path / "named", views=TwoViews("cifar", SIZE))
    assert run.config.data.views == "cifar" and "views" not in run.own
    run.lock.release()
    pair = ViewPair(ViewSpec(blur_kernel=3), ViewSpec(crop_scale=(0.5, 1.0)))
    own = pretraining(tmp_path / "own", views=TwoViews(pair, SIZE), epochs=1)
    own.train()
    again = pretraining(tmp_path / "own", own=False, source=source(), epochs=1)
    assert again.pair.views.pair == pair
    again.lock.release()


def test_store_backbone__a_full_disk_is_an_error_that_names_the_file(tmp_path):
    class Model:
        def save(self, path):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as failed:
        records_own._store_backbone(tmp_path / "backbone.keras", Model())
    assert failed.value.filename == str(tmp_path / "backbone.keras")
