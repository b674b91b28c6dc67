"""Digits, folders, arrays and TFDS: contents, order, labels and every error line."""

import ast
import functools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import data
from tf_dpred.config import Config
from tf_dpred.data import folder, image_files
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.datasets import default_splits, open_source
from tf_dpred.data.source import from_arrays
from tf_dpred.errors import Refused
from tf_dpred.evaluation import views

RNG = np.random.default_rng(0)
WEBP = ".webp" in folder.EXTENSIONS


def picture(height=10, width=12):
    return RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)


def save(path, image=None):
    """Writes an image in the format that its extension names."""
    image = picture() if image is None else image
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()
    if kind in (".jpg", ".jpeg"):
        path.write_bytes(tf.io.encode_jpeg(image).numpy())
    elif kind == ".png":
        path.write_bytes(tf.io.encode_png(image).numpy())
    else:
        pytest.importorskip("PIL.Image").fromarray(image).save(path)


def labels_of(source, **kwargs):
    return [int(e["label"]) for e in source.examples(None, **kwargs)]


def images_of(source, seed=None, skip=0):
    """Encoded or decoded, as they are stored."""
    return [
        e["image"].numpy() if "image" in e else tf.io.read_file(e["file"]).numpy()
        for e in source.examples(seed, skip)
    ]


def assert_refuses(message, function, *args, **kwargs):
    """Refused in one line that contains `message`."""
    with pytest.raises(Refused, match=re.escape(message)) as error:
        function(*args, **kwargs)
    assert "\n" not in str(error.value)


# Arrays ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 5, 6, 3), (3, 5, 6, 1), (3, 5, 6)])
def test_from_arrays__shapes(shape):
    images = RNG.integers(0, 256, shape).astype(np.uint8)
    source = from_arrays(images, [0, 4, 1])
    found = np.stack(images_of(source))
    expected = np.broadcast_to(images.reshape(3, 5, 6, -1), (3, 5, 6, 3))
    np.testing.assert_array_equal(found, expected)
    assert (source.num_examples, source.num_classes) == (3, 5)
    assert labels_of(source) == [0, 4, 1]


def test_from_arrays__without_labels():
    source = from_arrays(np.zeros((2, 4, 4, 3), np.uint8))
    assert source.num_classes is None and labels_of(source) == [-1, -1]


def test_from_arrays__element_spec():
    spec = from_arrays(np.zeros((2, 4, 4, 3), np.uint8)).examples(None).element_spec
    assert spec["image"].dtype == tf.uint8 and spec["image"].shape == (4, 4, 3)
    assert spec["label"] == tf.TensorSpec([], tf.int64)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3)), None, "received float64 of shape (2, 4, 4, 3)"),
        (np.zeros((2, 4, 4, 0), np.uint8), None, "shape (2, 4, 4, 0), accepted: uint8"),
        (
            np.zeros((4, 4), np.uint8),
            None,
            "shape (4, 4), accepted: uint8 [N, H, W, channels] or [N, H, W]",
        ),
        (np.zeros((0, 4, 4, 3), np.uint8), None, "Invalid images: received none"),
        (np.zeros((2, 4, 4), np.uint8), [1], "Invalid labels: received shape (1,)"),
    ],
)
def test_from_arrays__bad_arguments(images, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        from_arrays(images, labels)


def test_examples__shuffle_is_complete_and_by_seed_alone():
    images = np.arange(50, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    source = from_arrays(images)

    def order(seed, skip=0):
        return [image[0, 0, 0] for image in images_of(source, seed, skip)]

    assert order(None) == list(range(50))
    assert sorted(order(1)) == list(range(50)) and order(1) != order(None)
    assert order(1) == order(tf.constant(1, tf.int64)) != order(2)
    assert order(1, 45) == order(1)[45:]
    assert order(None, tf.constant(45, tf.int64)) == order(None)[45:]


# Digits ------------------------------------------------------------------------------


def test_digits__splits():
    train, test = (open_source("digits", split, None) for split in ("train", "test"))
    assert (train.num_examples, test.num_examples) == (1437, 360)
    assert train.num_classes == test.num_classes == 10
    assert default_splits("digits", None) == ("train", "test")
    counts = np.bincount(labels_of(test), minlength=10)
    assert counts.min() >= 34 and counts.max() <= 38
    seen = {image.tobytes() for image in images_of(train)}
    assert not seen & {image.tobytes() for image in images_of(test)}


def test_digits__pixels_are_the_bundled_ones_enlarged():
    source = open_source("digits", None, None)
    image = images_of(source)[0]
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert (image[..., 0] == image[..., 2]).all()
    from sklearn.datasets import load_digits

    small = load_digits().images * 255 / 16
    # Areas of 4 x 4 average to a pixel of the original, but for the interpolation.
    means = image[..., 0].reshape(8, 4, 8, 4).mean((1, 3))
    distance = np.abs(small - means).mean((1, 2))
    nearest = int(distance.argmin())
    assert load_digits().target[nearest] == labels_of(source)[0]
    assert distance[nearest] < 15 < np.sort(distance)[1]


def test_digits__same_every_time():
    first, again = (images_of(open_source("digits", "test", None)) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_open_source__limit():
    few = open_source("digits", "train", None, limit=200)
    assert few.num_examples == 200 and few.num_classes == 10
    labels = labels_of(few)
    assert len(labels) == 200 and len(set(labels)) == 10
    assert labels == labels_of(open_source("digits", "train", None, limit=200))
    assert open_source("digits", None, None, limit=10**6).num_examples == 1437
    with pytest.raises(ValueError, match="received 0, accepted: at least 1"):
        open_source("digits", None, None, limit=0)


def test_digits__unknown_split():
    assert_refuses(
        "--split: received 'val', accepted: train, test of digits",
        open_source,
        "digits",
        "val",
        None,
    )


@pytest.mark.parametrize("kind", ["digits", "folder", "cifar10"])
def test_open_source__blames_the_flag_that_gave_the_split(kind, tmp_path, request):
    directory = str(tmp_path)
    if kind == "cifar10":
        directory = request.getfixturevalue("tfds_dir")
    save(tmp_path / "train" / "1.png")
    assert_refuses(
        "--eval_test_split: received 'tset', accepted: train",
        open_source,
        kind,
        "tset",
        directory,
        split_flag="eval_test_split",
    )


# Folder ------------------------------------------------------------------------------


def test_folder__formats_nested_and_hidden(tmp_path):
    names = ["b/x.JPG", "a/deep/er/y.jpeg", "z.png", "b/w.bmp", "b/v.gif"]
    names += ["c/u.webp"] if WEBP else []
    for name in names:
        save(tmp_path / name)
    save(tmp_path / ".hidden.png")
    save(tmp_path / ".git" / "x.png")
    (tmp_path / "notes.txt").write_text("not an image")
    source = open_source("folder", None, str(tmp_path))
    assert source.num_examples == len(names)
    assert (source.split, source.num_classes) == ("train", None)
    found = images_of(source)
    assert found == [(tmp_path / name).read_bytes() for name in sorted(names)]
    for encoded in found:
        assert image_files.decode_stored(tf.constant(encoded)).shape == (10, 12, 3)


@pytest.mark.skipif(not WEBP, reason="this TensorFlow does not decode WebP")
def test_folder__webp_pixels(tmp_path):
    image = picture()
    path = tmp_path / "x.webp"
    pytest.importorskip("PIL.Image").fromarray(image).save(path, lossless=True)
    decoded = image_files.decode_stored(tf.constant(path.read_bytes()))
    np.testing.assert_array_equal(decoded, image)


@pytest.mark.parametrize("test_name", ["val", "validation", "test"])
def test_folder__imagenet_layout(tmp_path, test_name):
    for name in ("train/dog/1.png", "train/cat/2.png", "train/cat/3.png"):
        save(tmp_path / name)
    save(tmp_path / test_name / "dog" / "deep" / "4.png")
    train = open_source("folder", None, str(tmp_path))
    test = open_source("folder", test_name, str(tmp_path))
    assert default_splits("folder", str(tmp_path)) == ("train", test_name)
    assert (train.num_examples, train.num_classes) == (3, 2)
    assert labels_of(train) == [0, 0, 1]
    assert (test.num_classes, labels_of(test)) == (2, [1])


def test_folder__splits_without_classes(tmp_path):
    save(tmp_path / "train" / "1.png")
    save(tmp_path / "train" / "cat" / "2.png")
    save(tmp_path / "test" / "cat" / "3.png")
    for split in ("train", "test"):
        source = open_source("folder", split, str(tmp_path))
        assert source.num_classes is None and set(labels_of(source)) == {-1}
    assert default_splits("folder", str(tmp_path)) == ("train", None)


def test_folder__classes_without_test_split(tmp_path):
    for name in ("cat/1.png", "dog/2.png"):
        save(tmp_path / name)
    source = open_source("folder", None, str(tmp_path))
    assert (source.num_classes, labels_of(source)) == (None, [-1, -1])
    assert default_splits("folder", str(tmp_path)) == ("train", None)


def test_folder__limit_takes_every_class(tmp_path):
    for index in range(40):
        save(tmp_path / "train" / f"class{index // 20}" / f"{index:02d}.png")
    save(tmp_path / "val" / "class0" / "x.png")
    source = open_source("folder", "train", str(tmp_path), limit=10)
    assert source.num_examples == 10 and source.num_classes == 2
    assert set(labels_of(source)) == {0, 1}


def test_folder__shuffle_and_skip(tmp_path):
    for index in range(9):
        save(tmp_path / f"{index}.png")
    source = open_source("folder", None, str(tmp_path))
    assert sorted(images_of(source, 4)) == sorted(images_of(source))
    assert images_of(source, 4) != images_of(source)
    assert images_of(source, 4, 6) == images_of(source, 4)[6:]


def test_folder__errors(tmp_path):
    assert_refuses("with no images in", open_source, "folder", None, str(tmp_path))
    assert_refuses(".jpeg, .jpg, .png", open_source, "folder", None, str(tmp_path))
    assert_refuses("--data_dir: received None", open_source, "folder", None, None)
    missing = str(tmp_path / "nowhere")
    for function in (open_source, default_splits):
        args = (
            ("folder", None, missing)
            if function is open_source
            else ("folder", missing)
        )
        assert_refuses(
            f"--data_dir: received {missing!r}, accepted: an existing", function, *args
        )
    save(tmp_path / "train" / "cat" / "1.png")
    save(tmp_path / "val" / "cow" / "2.png")
    assert_refuses("accepted: train, val", open_source, "folder", "test", str(tmp_path))
    evaluated = functools.partial(open_source, split_flag="eval_test_split")
    assert_refuses("the class 'cow' in", evaluated, "folder", "val", str(tmp_path))
    assert open_source("folder", "val", str(tmp_path)).num_classes is None


def test_folder__a_test_split_of_other_classes_is_passed_over(tmp_path, caplog):
    """Pre-training needs no labels; whoever names the split is refused."""
    for path in ("train/cat/1", "train/dog/2", "val/cow/3", "test/dog/4"):
        save(tmp_path / f"{path}.png")
    assert default_splits("folder", str(tmp_path)) == ("train", "test")
    assert "val is not evaluated on: its class 'cow' is not in train" in caplog.text
    shutil.rmtree(tmp_path / "test")
    config = Config.from_dict({"dataset": "folder", "data_dir": str(tmp_path)})
    source, held_out = views.held_out_source(config, BadImages())
    assert (source.split, source.num_classes, held_out) == ("val", None, True)


# TensorFlow Datasets -----------------------------------------------------------------


def test_tfds__stored_order_and_pixels(tfds_dir):
    source = open_source("cifar10", "test", tfds_dir)
    assert (source.num_examples, source.num_classes) == (10_000, 10)
    first = next(iter(source.examples(None)))
    assert first["image"].dtype == tf.string and first["label"].dtype == tf.int64
    assert image_files.decode_stored(first["image"]).shape == (32, 32, 3)
    assert first["id"].numpy().startswith(b"cifar10-test.tfrecord")


def test_tfds__default_splits(tfds_dir):
    assert default_splits("cifar10", tfds_dir) == ("train", "test")
    assert default_splits("imagenet2012", tfds_dir) == ("train", "validation")


def test_tfds__split_syntax_and_limit(tfds_dir):
    def opened(split, **kwargs):
        return open_source("cifar10", split, tfds_dir, **kwargs)

    assert opened("train[:30]").num_examples == 30
    assert opened("train+test").num_examples == 60_000
    assert opened("train[:30]", limit=100).num_examples == 30
    few = opened("train", limit=20)
    assert few.num_examples == 20
    assert images_of(few) == images_of(opened("train[:20]"))
    # A shuffle keeps the choice.
    assert sorted(images_of(few, 3)) == sorted(images_of(few))


def test_tfds__shuffle_by_seed_alone(tfds_dir):
    source = open_source("cifar10", "train[:40]", tfds_dir, shuffle_buffer=16)
    stored, one = images_of(source), images_of(source, 1)
    assert one != stored and sorted(one) == sorted(stored)
    tf.random.set_seed(9)
    assert images_of(source, tf.constant(1, tf.int64)) == one
    assert images_of(source, 2) != one
    assert images_of(source, 1, 35) == one[35:]
    assert images_of(source, None, 35) == stored[35:]


def test_tfds__unknown_split(tfds_dir):
    message = "--split: received 'trian', accepted: train, test of cifar10"
    assert_refuses(message, open_source, "cifar10", "trian", tfds_dir)


@pytest.mark.parametrize("function", [open_source, default_splits])
def test_tfds__unknown_name(function):
    args = ("cifar11", None, None) if function is open_source else ("cifar11", None)
    assert_refuses(
        "--dataset: received 'cifar11' (did you mean cifar1", function, *args
    )
    assert_refuses("accepted: digits, folder, or the name of a", function, *args)


def test_tfds__data_set_without_images(tmp_path):
    assert_refuses(
        "accepted: data sets with a feature 'image'",
        open_source,
        "iris",
        None,
        str(tmp_path),
    )


def test_tfds__missing_data_dir(tmp_path):
    missing = str(tmp_path / "nowhere")
    message = f"--data_dir: received {missing!r}, accepted: an existing"
    assert_refuses(message, open_source, "cifar10", None, missing)


def test_tfds__preparation_that_fails(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(self, **kwargs):
        raise ConnectionError("no route to host\nand more lines")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    message = "that TFDS can prepare (no route to host)"
    assert_refuses(message, open_source, "cifar10", None, str(tmp_path))


@pytest.mark.parametrize("path", sorted(Path(data.__file__).parent.glob("*.py")))
def test_import__leaves_heavy_packages_alone(path):
    heavy = {"tensorflow_datasets", "sklearn", "matplotlib"}
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Import):
            assert not heavy & {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            assert statement.module.split(".")[0] not in heavy


def test_folder__a_name_like_test_is_no_split_without_train(tmp_path):
    for name in ("a/1.png", "b/2.png", "test/3.png"):
        save(tmp_path / name)
    assert default_splits("folder", str(tmp_path)) == ("train", None)
    assert open_source("folder", None, str(tmp_path)).num_examples == 3


def test_folder__images_outside_the_splits_make_it_one_split(tmp_path):
    for name in ("train/1.png", "test/2.png", "extra/3.png"):
        save(tmp_path / name)
    assert open_source("folder", None, str(tmp_path)).num_examples == 3
