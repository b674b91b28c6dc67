"""One, four and five channels through views, training, evaluation, export and embed."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from images import picture

from tf_dpred import Pretraining
from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import image_files, image_ops, photometric, random_views, views
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.source import from_arrays
from tf_dpred.encoders import embed, export, settings
from tf_dpred.errors import Refused
from tf_dpred.evaluation import evaluate

SMALL = {
    "width": 0.125,
    "image_size": 16,
    "batch_size": 4,
    "projector_hidden": 16,
    "projector_dim": 8,
    "quality_every": 1,
    "knn_every": 1,
    "knn_k": 2,
    "checkpoint_every": 0,
}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """Two classes of stacks, five channels of very different brightness."""
    folder = tmp_path_factory.mktemp("stacks")
    factors = np.array([1, 4, 16, 64, 200], np.uint16)
    for index in range(16):
        split, name = ("train", "val")[index // 8], "ab"[index % 2]
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        planes = [picture(24, 20, seed=9 * index + c)[..., 0] for c in range(5)]
        values = np.stack(planes, -1).astype(np.uint16) * factors
        path = folder / split / name / f"{index}.tif"
        tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")
    return folder


@pytest.fixture(scope="module")
def trained(stacks, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    given = {
        **SMALL,
        "dataset": "folder",
        "data_dir": str(stacks),
        "workdir": str(workdir),
        "views": "microscopy",
        "value_range": "percentile",
        "normalize": "data",
    }
    Pretraining(Config.from_dict({**given, "epochs": 1})).train()
    return workdir, given


def test_training__records_what_the_images_say_and_goes_on(trained):
    workdir, given = trained
    flags = json.loads((workdir / "flags.json").read_text())["flags"]
    assert flags["channels"] == 5
    highs = [float(text) for text in flags["value_range"].split(",")[1::2]]
    assert highs == sorted(highs) and highs[-1] > 40 * highs[0]
    assert len(flags["mean"].split(",")) == 5
    # No channel is nearly black any more.
    assert min(map(float, flags["mean"].split(","))) > 0.2
    assert Pretraining(Config.from_dict({**given, "epochs": 2})).train()["epoch"] == 2


def test_evaluation_export_and_embed__of_five_channels(trained, stacks, tmp_path):
    workdir, _ = trained
    config = settings.of_encoder({"workdir": str(workdir)})
    evaluate.knn(config, FilesConfig())
    path = export.write(config)
    encoder = tf.saved_model.load(str(path))
    files = sorted(stacks.rglob("*.tif"))[:3]
    found = embed.open_file_encoder(settings.of_encoder({"export_dir": str(path)}))(
        files
    )["representation"]
    pixels = Pixels.of(config)
    images = [
        image_files.decode(image_files.read(str(file), pixels), pixels)
        for file in files
    ]
    expected = encoder(tf.stack(images))["representation"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    card = json.loads((path / "model_card.json").read_text())
    assert card["input"]["channels"] == 5
    assert card["input"]["value_range"] == config.pixels.value_range
    with pytest.raises(tf.errors.InvalidArgumentError, match="height, width, 5"):
        encoder(tf.zeros([1, 16, 16, 3]))


@pytest.mark.parametrize("channels", [1, 4])
def test_training__on_arrays_of_one_and_four_channels(channels, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, channels), np.uint8)
    source = from_arrays(images, channels=channels)
    given = {**SMALL, "workdir": str(tmp_path), "knn_every": 0, "epochs": 1}
    run = Pretraining(Config.from_dict(given), source=source)
    assert run.model.online.input_shape == (None, 16, 16, channels)
    run.train()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"views": "byol"},
            "--views: received 'byol', accepted: views of 5 channels without "
            "saturation, hue, gray",
        ),
        ({"views": "digits", "jitter": "0.4,0.4,0,0.1"}, "--jitter: .* without hue: "),
        ({"views": "digits", "view2_gray": 0.1}, "--view2_gray: .* without gray: "),
        ({"mean": "0.5,0.5,0.5"}, "--mean: .* accepted: 5 numbers, one for each"),
        ({"std": "0.5"}, "--std: .* accepted: 5 numbers"),
        ({"value_range": "0,1,0,1"}, "two numbers, or two for each of 5 channels"),
    ],
)
def test_five_channels__what_is_refused(given, line):
    with pytest.raises(Refused, match=line):
        views.of_config(Config.from_dict({"channels": 5, **given}))


def test_five_channels__what_acts():
    config = Config.from_dict(
        {"channels": 5, "views": "microscopy", "solarize": 0.5, "rotate": 10.0}
    )
    pair = views.of_config(config)
    assert pair.first.brightness == pair.first.contrast == 0.4


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("style", ["hsv", "blend"])
def test_distort__any_number_of_channels(channels, style):
    """A channel goes the same way alone as beside its equals."""
    spec = views.ViewSpec(
        saturation=0.0,
        hue=0.0,
        jitter_probability=1.0,
        grayscale_probability=0.0,
        jitter_style=style,
        blur_probability=0.5,
        solarize_probability=0.3,
    )
    one = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), np.uint8)
    draws = tf.random.stateless_uniform([3, random_views.NUM_DRAWS], [1, 2])
    alone = random_views.distort(tf.constant(one), draws, spec)
    crops = tf.constant(np.repeat(one, channels, -1))
    found = random_views.distort(crops, draws, spec).numpy()
    assert found.shape == (3, 12, 12, channels)
    most = np.abs(found.astype(int) - alone.numpy()).max()
    assert most <= 1 and found.std() > 10


def test_luma__of_three_channels_and_of_others():
    planes = tf.reshape(tf.range(5.0), [5, 1, 1])
    assert float(photometric.luma(planes)[0, 0, 0]) == 2.0
    expected = 0.587 + 2 * 0.114
    assert abs(float(photometric.luma(planes[:3])[0, 0, 0]) - expected) < 1e-6


def test_as_rgb__of_any_number():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 6)
    assert image_ops.as_rgb(image).tolist() == image[..., :3].tolist()
    assert image_ops.as_rgb(image[..., :1]).tolist() == [[[0, 0, 0], [6, 6, 6]]]
    assert image_ops.as_rgb(image[..., :2]).tolist() == [[[0, 1, 0], [6, 7, 0]]]
