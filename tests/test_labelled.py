"""Labelled images: which splits, which of their images, in which batches."""

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.config import Config
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.source import from_arrays
from tf_dpred.data.views import view_pair
from tf_dpred.errors import Refused
from tf_dpred.evaluation import labelled


def write_splits(root, *paths):
    """A folder with a small image at each of the paths."""
    png = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png)
    return Config.from_dict({"dataset": "folder", "data_dir": str(root)})


def test_open_splits__within_the_limits():
    config = Config.from_dict({"dataset": "digits"})
    train, test = labelled.open_splits(config, BadImages(), (50, 20))
    assert (train.split, train.num_examples) == ("train", 50)
    assert (test.split, test.num_examples) == ("test", 20)


@pytest.mark.parametrize("flag", ["eval_train_split", "eval_test_split"])
@pytest.mark.parametrize("open_them", ["training's monitor", "an evaluation"])
def test_open_splits__blames_the_flag_of_the_split(flag, open_them):
    config = Config.from_dict({"dataset": "digits", flag: "validation"})
    with pytest.raises(Refused, match=f"^--{flag}: received 'validation'"):
        if open_them == "an evaluation":
            labelled.require_splits(config)
        else:
            labelled.open_splits(config, BadImages())


@pytest.mark.parametrize(
    "paths",
    [["a.png"], ["train/a.png", "val/b.png"]],
    ids=["no test split", "no classes"],
)
def test_open_splits__none_without_labels(paths, tmp_path):
    config = write_splits(tmp_path, *paths)
    assert labelled.open_splits(config, BadImages()) is None
    with pytest.raises(Refused, match="--dataset: received 'folder', accepted: a data"):
        labelled.require_splits(config)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 1.0])
def test_balanced_subset__same_count_of_every_class(fraction):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 200))
    chosen = labelled.balanced_subset(labels, fraction, seed=3)
    assert np.bincount(labels[chosen]).tolist() == [round(200 * fraction)] * 10
    assert np.all(np.diff(chosen) > 0)
    again = labelled.balanced_subset(labels, fraction, seed=3)
    np.testing.assert_array_equal(chosen, again)
    if fraction < 1:
        other = labelled.balanced_subset(labels, fraction, seed=4)
        assert set(other) != set(chosen)


def test_balanced_subset__smaller_within_larger_and_never_empty():
    labels = np.array([0] * 90 + [1] * 8 + [2] * 2)
    small = labelled.balanced_subset(labels, 0.01, seed=0)
    large = labelled.balanced_subset(labels, 0.3, seed=0)
    assert np.bincount(labels[small]).tolist() == [1, 1, 1]
    assert np.bincount(labels[large]).tolist() == [10, 8, 2]
    assert set(small) <= set(large)


def numbered_images(count):
    """Images whose first pixel tells their index; their labels are the indices."""
    images = np.zeros([count, 9, 9, 3], np.uint8)
    images[:] = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return from_arrays(images, np.arange(count))


def labels_in(source, seed=None):
    return [int(e["label"]) for e in source.examples(seed)]


def test_hold_out__disjoint_complete_and_the_same_in_any_order():
    source = numbered_images(50)
    kept, held = labelled.hold_out(source, 7, seed=0)
    assert (kept.num_examples, held.num_examples) == (43, 7)
    first = labels_in(held)
    assert sorted(first + labels_in(kept)) == list(range(50))
    assert sorted(labels_in(held, seed=5)) == sorted(first)
    assert sorted(labels_in(labelled.hold_out(source, 7, seed=1)[1])) != sorted(first)


def test_gather__keeps_images_and_labels_together():
    few = labelled.gather(numbered_images(20), np.array([2, 3, 11]))
    found = [(int(e["image"][0, 0, 0]), int(e["label"])) for e in few.examples(None)]
    assert found == [(2, 2), (3, 3), (11, 11)]
    assert sorted(labels_in(few, seed=1)) == [2, 3, 11]


def test_training_batches__an_epoch_has_every_image_and_is_seeded():
    source, pair = numbered_images(12), view_pair("cifar")

    def epochs(seed):
        batches = labelled.training_batches(source, pair, 8, 4, seed=seed).take(6)
        return [(images.numpy(), labels.numpy()) for images, labels in batches]

    found = epochs(0)
    labels = np.concatenate([y for _, y in found])
    assert sorted(labels[:12]) == sorted(labels[12:]) == list(range(12))
    assert list(labels[:12]) != list(labels[12:])
    for images, y in found:
        assert images.shape == (4, 8, 8, 3)
        np.testing.assert_array_equal(images[:, 0, 0, 0], y)
    for a, b in zip(found, epochs(0), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
    assert any((a[1] != b[1]).any() for a, b in zip(found, epochs(1), strict=True))


@pytest.mark.parametrize(("views", "flips"), [("cifar", True), ("digits", False)])
def test_training_batches__flips_unless_a_mirror_image_is_another_class(views, flips):
    """And no colour is changed: what is red alone stays so."""
    images = np.zeros([200, 16, 16, 3], np.uint8)
    images[..., 0] = np.arange(0, 240, 15)  # red grows to the right
    source = from_arrays(images, np.zeros(200, int))
    pair = view_pair(views)
    batch, _ = next(iter(labelled.training_batches(source, pair, 16, 200, seed=0)))
    assert not np.any(batch[..., 1:])
    red = batch.numpy()[:, 8, :, 0].astype(int)
    mirrored = np.mean(red[:, 0] > red[:, -1])
    assert 0.35 < mirrored < 0.65 if flips else mirrored == 0
    assert np.all(red[:, 0] != red[:, -1])
