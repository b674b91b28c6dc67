"""TFDS data sets that are not as one hopes: labels, broken images, withheld labels."""

import numpy as np
import pytest
import tensorflow as tf
from images import picture
from PIL import Image
from test_recovery import pretraining

from tf_dpred.config import Config
from tf_dpred.data import pipeline
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.datasets import default_splits, open_source
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.errors import Refused, RunFailed, TooManyBadImages
from tf_dpred.evaluation import labelled, views

BROKEN = b"\xff\xd8\xff no more"
COUNT = 24


def make(directory, label, labels, broken=(), encoding="jpeg"):
    """Writes the TFDS data set `faults`, of splits train and test -> its folder.

    Args:
      directory: below which it is written.
      label: the feature.
      labels: (split, index) -> its value.
      broken: indices of train whose image cannot be decoded.
    """
    import tensorflow_datasets as tfds

    folder = directory / "pictures"
    folder.mkdir()
    for index in range(COUNT):
        path = folder / f"{index:02}.{encoding}"
        Image.fromarray(picture(seed=index)).save(path)
        if index in broken:
            path.write_bytes(BROKEN)

    class Faults(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "faults"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(encoding_format=encoding)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, _):
            return {"train": self._generate("train"), "test": self._generate("test")}

        def _generate_examples(self, split):
            raise NotImplementedError

        def _generate(self, split):
            for index in range(COUNT):
                replaced = split == "test" and index in broken
                path = folder / f"{COUNT - 1 if replaced else index:02}.{encoding}"
                yield index, {"image": str(path), "label": labels(split, index)}

    Faults(data_dir=str(directory)).download_and_prepare()
    return str(directory)


def class_label():
    import tensorflow_datasets as tfds

    return tfds.features.ClassLabel(num_classes=3)


def by_index(_, index):
    return index % 3


@pytest.fixture(scope="module")
def with_broken(tmp_path_factory):
    directory = tmp_path_factory.mktemp("broken")
    return make(directory, class_label(), by_index, broken=(0, 1, 5, 11))


def stored(directory, **kwargs):
    source = open_source("faults", "train", directory, **kwargs)
    return source, [e["image"].numpy() for e in source.examples(None)]


def test_tfds__broken_images_are_named_counted_and_replaced(with_broken, tmp_path):
    record = tmp_path / "bad.txt"
    register = BadImages(record=record)
    source, contents = stored(with_broken, bad_images=register)
    batches = pipeline.evaluation_images(source, Preprocessing(), 24, 64)
    ((images, labels),) = batches.as_numpy_iterator()
    bad = [index for index, content in enumerate(contents) if content == BROKEN]
    assert len(register) == len(bad) == 4
    first = next(index for index in range(COUNT) if index not in bad)
    for index in bad:
        np.testing.assert_array_equal(images[index], images[first])
        assert labels[index] == labels[first]
    lines = [line.split("\t") for line in record.read_text().splitlines()]
    ids = [e["id"].numpy().decode() for e in source.examples(None)]
    assert sorted(name for name, _ in lines) == sorted(ids[index] for index in bad)
    assert ids[0].startswith("faults-train.tfrecord-00000-of-00001__")
    assert all(reason for _, reason in lines)


def test_tfds__views_where_none_is_broken_are_those_of_before(with_broken):
    """The attempts at whole chunks change nothing."""
    import dataclasses

    from tf_dpred.data.views import view_pair

    good = open_source("faults", "test", with_broken)
    plain = dataclasses.replace(good, attempt=None)
    found, expected = (
        next(
            pipeline.training_views(
                source, view_pair("cifar"), 16, 8, seed=1
            ).as_numpy_iterator()
        )
        for source in (good, plain)
    )
    np.testing.assert_array_equal(found, expected)


def test_tfds__pretraining_with_broken_images(with_broken, tmp_path, caplog):
    given = {"dataset": "faults", "data_dir": with_broken, "views": "cifar"}
    run = pretraining(
        str(tmp_path), **given, train_size=None, batch_size=8, knn_every=1
    )
    assert np.isfinite(run.train()["loss"])
    assert "4 image files could not be used" in caplog.text
    assert len((tmp_path / "bad_images.txt").read_text().splitlines()) == 4


def test_tfds__more_broken_images_than_allowed(with_broken):
    source = open_source("faults", "train", with_broken, bad_images=BadImages(2))
    message = "--max_bad_images: received 2, and 3 .* faults-train.tfrecord-00000-of"
    with pytest.raises(TooManyBadImages, match=message), named_errors():
        list(pipeline.evaluation_images(source, Preprocessing(), 24, 8))


@pytest.mark.parametrize("kind", ["scalar", "text", "several"])
def test_tfds__a_label_that_is_no_class(kind, tmp_path, caplog):
    import tensorflow_datasets as tfds

    label, value = {
        "scalar": (tfds.features.Scalar(tf.int64), 3),
        "text": (tfds.features.Text(), "cat"),
        "several": (tfds.features.Sequence(class_label()), [1, 2]),
    }[kind]
    directory = make(tmp_path, label, lambda *_: value, encoding="png")
    assert default_splits("faults", directory) == ("train", None)
    # TFDS may say something of its own.
    (said,) = [line for line in caplog.messages if "unlabelled" in line]
    assert said.startswith("faults is taken as unlabelled: its feature 'label' is ")
    source = open_source("faults", "train", directory)
    assert source.num_classes is None
    example = next(iter(source.examples(None)))
    assert int(example["label"]) == -1
    assert source.load(example)[0].shape == (24, 36, 3)


def config_of(directory, **settings):
    given = {"dataset": "faults", "data_dir": directory, "eval_test_split": "test"}
    return Config.from_dict(given | settings)


def test_tfds__withheld_labels_are_refused(tmp_path):
    directory = make(
        tmp_path, class_label(), lambda split, index: -1 if split == "test" else 0
    )
    assert default_splits("faults", directory) == ("train", None)
    message = (
        "^--eval_test_split: received 'test' of faults, whose labels are withheld "
        r"\(-1\), accepted: a split with labels"
    )
    with pytest.raises(Refused, match=message):
        labelled.require_splits(config_of(directory))
    # They are not needed to train, or for views of images that are not trained on.
    assert open_source("faults", "test", directory).num_examples == COUNT
    config = config_of(directory, eval_test_split=None)
    source, held_out = views.held_out_source(config, BadImages())
    assert (source.split, held_out) == ("test", True)


def test_tfds__some_withheld_labels_end_the_evaluation(tmp_path):
    """They would count as wrong answers; the first example alone is known before."""

    def labels(split, index):
        return -1 if split == "test" and index == COUNT - 1 else 0

    directory = make(tmp_path, class_label(), labels)
    source = open_source("faults", "test", directory, split_flag="eval_test_split")
    message = "^an example without label is evaluated: label -1 of .*faults-test.tfrec"
    with pytest.raises(RunFailed, match=message), named_errors():
        list(pipeline.evaluation_images(source, Preprocessing(), 24, 8))


def test_tfds__a_damaged_record_is_one_line(tmp_path):
    from pathlib import Path

    directory = make(tmp_path, class_label(), by_index)
    source = open_source("faults", "train", directory)
    (path,) = Path(directory).rglob("faults-train.tfrecord*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RunFailed, match="corrupted record"), named_errors():
        list(pipeline.evaluation_images(source, Preprocessing(), 24, 8))
