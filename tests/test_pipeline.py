"""The stream of batches: what it depends on, what it skips, what it never repeats."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.data import image_files, pipeline, random_views
from tf_dpred.data.datasets import open_source
from tf_dpred.data.device_views import ViewsFromCrops
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.source import from_arrays
from tf_dpred.data.views import ViewPair, ViewSpec, view_pair
from tf_dpred.errors import Refused

PLAIN = ViewSpec(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip_probability=0.0,
    jitter_probability=0.0,
    grayscale_probability=0.0,
)
CLEAN = ViewPair(PLAIN, PLAIN)


def numbered(count):
    """Images whose every pixel is their index."""
    index = np.arange(count, dtype=np.uint8)
    return from_arrays(np.tile(index[:, None, None, None], (1, 4, 4, 3)))


def noise(count=22, side=12):
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3))
    return from_arrays(images.astype(np.uint8))


def write_folder(root, count=22):
    rng = np.random.default_rng(0)
    for index in range(count):
        height, width = rng.integers(8, 20, 2)
        image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        (root / f"{index}.png").write_bytes(tf.io.encode_png(image).numpy())
    return open_source("folder", None, str(root))


def take(stream, count):
    return [
        tuple(view.numpy() for view in batch)
        for batch in itertools.islice(stream, count)
    ]


def indices(batches):
    return [batch[0][:, 0, 0, 0].tolist() for batch in batches]


def assert_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def whole(folder):
    """Two epochs of the folder, from the start; to build such a stream takes long."""
    return take(pipeline.training_views(folder, view_pair("cifar"), 16, 4, seed=3), 11)


@pytest.fixture
def source(request):
    if request.param == "arrays":
        return noise()
    directory = request.getfixturevalue("tfds_dir")
    return open_source("cifar10", "train[:22]", directory, shuffle_buffer=8)


of_both_kinds = pytest.mark.parametrize("source", ["arrays", "tfds"], indirect=True)


def test_training_views__shape_and_type():
    stream = pipeline.training_views(noise(), view_pair("byol"), 16, 4, seed=0)
    spec = tf.TensorSpec([4, 16, 16, 3], tf.uint8)
    assert stream.element_spec == (spec, spec)


def test_training_views__each_example_once_an_epoch():
    stream = pipeline.training_views(numbered(22), CLEAN, 4, 5, seed=0)
    batches = indices(take(stream, 12))
    epochs = [list(itertools.chain(*batches[start : start + 4])) for start in (0, 4, 8)]
    for epoch in epochs:
        assert len(set(epoch)) == 20 and set(epoch) <= set(range(22))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    # Which two are left out differs from epoch to epoch.
    assert set().union(*epochs) == set(range(22))


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [(22, 5, [5, 5, 5, 5, 2]), (20, 5, [5, 5, 5, 5]), (3, 5, [3]), (2, 8, [2])],
)
def test_training_views__last_batch_is_kept(count, batch, sizes):
    """PyTorch's drop_last=False: every example is in every epoch."""
    stream = pipeline.training_views(
        numbered(count), CLEAN, 4, batch, seed=0, keep_last=True
    )
    batches = indices(take(stream, 2 * len(sizes)))
    assert [len(b) for b in batches] == 2 * sizes
    for epoch in (batches[: len(sizes)], batches[len(sizes) :]):
        assert sorted(itertools.chain(*epoch)) == list(range(count))
    if count > batch:
        # The full batches are those of a run without the last one.
        without = pipeline.training_views(numbered(count), CLEAN, 4, batch, seed=0)
        full = [b for b in batches if len(b) == batch]
        assert full == indices(take(without, len(full)))


@of_both_kinds
def test_training_views__last_batch_resumes_bit_for_bit(source):
    arguments = (source, view_pair("cifar"), 16, 5)
    settings = {"seed": 3, "keep_last": True}
    whole = take(pipeline.training_views(*arguments, **settings), 10)
    for epoch, step in ((0, 4), (1, 3), (0, 9)):
        resumed = pipeline.training_views(
            *arguments, start_epoch=epoch, start_step=step, **settings
        )
        first = 5 * epoch + step
        assert_same(whole[first:], take(resumed, 10 - first))


def test_training_views__last_batch_made_on_the_device():
    pair = view_pair("byol")
    settings = {"seed": 3, "keep_last": True}
    whole = take(pipeline.training_views(noise(5), pair, 12, 3, **settings), 2)
    parts = pipeline.training_views(noise(5), pair, 12, 3, distorted=False, **settings)
    made = take(parts.map(ViewsFromCrops(pair)), 2)
    for a, b in zip(whole, made, strict=True):
        assert len(a[0]) == len(b[0])
        np.testing.assert_allclose(a[0].astype(int), b[0], atol=1)


@pytest.mark.parametrize(
    ("count", "keep_last", "message"),
    [
        (21, True, "--keep_last_batch: .* one image, as 5 does of the 21 of"),
        (1, True, "--keep_last_batch: "),
        (4, False, "--batch_size: received 5, accepted: 2 to 4"),
    ],
)
def test_steps_per_epoch__refuses(count, keep_last, message):
    with pytest.raises(Refused, match=message):
        pipeline.steps_per_epoch(numbered(count), 5, keep_last)


def test_steps_per_epoch__of_the_papers():
    """CIFAR-10 with batch 128: 390 full batches, and the authors' 391."""
    source = dataclasses.replace(numbered(2), num_examples=50_000)
    assert pipeline.steps_per_epoch(source, 128) == 390
    assert pipeline.steps_per_epoch(source, 128, keep_last=True) == 391


def test_training_views__order_is_shuffled_evenly():
    stream = pipeline.training_views(numbered(8), CLEAN, 4, 8, seed=0)
    orders = np.array(indices(take(stream, 300)))
    means = orders.mean(axis=0)
    # Standard error of the mean of 0..7 over 300 epochs: .13.
    np.testing.assert_allclose(means, 3.5, atol=0.45)


@of_both_kinds
def test_training_views__resumes_bit_for_bit(source):
    arguments = (source, view_pair("cifar"), 16, 5)
    whole = take(pipeline.training_views(*arguments, seed=3), 11)
    for epoch, step in ((0, 3), (1, 2)):
        resumed = pipeline.training_views(
            *arguments, seed=3, start_epoch=epoch, start_step=step
        )
        rest = whole[epoch * 4 + step :]
        assert_same(take(resumed, len(rest)), rest)


def test_training_views__resumes_bit_for_bit_on_a_folder(folder, whole, monkeypatch):
    """Also where the chunks are smaller than a batch."""
    arguments = (folder, view_pair("cifar"), 16, 4)
    monkeypatch.setattr(pipeline, "ATTEMPTED_IMAGES", 2)
    resumed = pipeline.training_views(*arguments, seed=3, start_step=2)
    assert_same(take(resumed, 9), whole[2:])


def test_training_views__parts_of_a_batch(monkeypatch):
    arguments = (noise(), view_pair("cifar"), 16, 4)
    whole = take(pipeline.training_views(*arguments, seed=3), 7)
    monkeypatch.setattr(pipeline, "CHUNK_IMAGES", 1)
    for worker in range(2):
        own = pipeline.training_views(*arguments, seed=3, share=(worker, 2))
        rows = slice(2 * worker, 2 * worker + 2)
        assert_same(take(own, 7), [tuple(v[rows] for v in pair) for pair in whole])


@pytest.mark.parametrize("way", ["load", "attempt"])
def test_training_views__load_only_where_an_attempt_fails(folder, whole, way):
    def fails(example):
        with tf.control_dependencies([tf.debugging.Assert(False, ["not to be used"])]):
            return tf.nest.map_structure(tf.identity, folder.load(example))

    broken = dataclasses.replace(folder, **{way: fails})
    stream = pipeline.training_views(broken, view_pair("cifar"), 16, 4, seed=3)
    assert_same(take(stream, 3), whole[:3])


def test_training_views__start_step_beyond_an_epoch():
    arguments = (numbered(22), CLEAN, 4, 5)
    late = pipeline.training_views(*arguments, seed=3, start_step=6)
    usual = pipeline.training_views(*arguments, seed=3, start_epoch=1, start_step=2)
    assert_same(take(late, 4), take(usual, 4))


def test_training_views__global_seed_has_no_say(tfds_dir):
    source = open_source("cifar10", "train[:22]", tfds_dir, shuffle_buffer=8)
    streams = []
    for global_seed in (0, 17):
        tf.random.set_seed(global_seed)
        stream = pipeline.training_views(source, view_pair("cifar"), 8, 4, seed=3)
        streams.append(take(stream, 6))
    assert_same(*streams)


def test_training_views__seeds_and_epochs_differ():
    arguments = (noise(), view_pair("cifar"), 8, 22)
    one = take(pipeline.training_views(*arguments, seed=0), 2)
    other = take(pipeline.training_views(*arguments, seed=1), 1)
    assert (one[0][0] != one[1][0]).any()
    assert (one[0][0] != other[0][0]).any()


def test_training_views__both_views_show_the_same_image_differently():
    stream = pipeline.training_views(noise(), view_pair("cifar"), 8, 11, seed=0)
    for first, second in take(stream, 2):
        assert (first != second).any(axis=(1, 2, 3)).all()
    clean = pipeline.training_views(noise(), CLEAN, 12, 11, seed=0)
    for first, second in take(clean, 2):
        np.testing.assert_array_equal(first, second)


def test_training_views__views_of_equal_images_differ():
    images = np.tile(
        noise(1).examples(None).get_single_element()["image"], (8, 1, 1, 1)
    )
    stream = pipeline.training_views(
        from_arrays(images), view_pair("cifar"), 8, 8, seed=0
    )
    batches = take(stream, 3)
    seen = {view.tobytes() for batch in batches for views in batch for view in views}
    assert len(seen) == 3 * 2 * 8


def test_training_views__equal_crop_and_distortion_of_each_example():
    pair = view_pair("cifar")
    single = noise(1)
    image = single.examples(None).get_single_element()["image"]
    epoch_seeds = tf.random.split(
        tf.random.fold_in([3, 0], tf.constant(0, tf.int64)), 2
    )
    shape = [pipeline.DRAWN_AT_ONCE, 2, random_views.NUM_DRAWS]
    block_seed = tf.random.fold_in(epoch_seeds[1], tf.constant(0, tf.int64))
    draws = tf.random.stateless_uniform(shape, block_seed)[0]
    batch = take(pipeline.training_views(single, pair, 16, 1, seed=3), 1)[0]
    specs = (pair.first, pair.second)
    crops = random_views.random_crops(image, specs, 16, draws)
    for view, spec, crop, drawn in zip(batch, specs, crops, draws, strict=True):
        expected = random_views.distort(crop[None], drawn[None], spec)
        np.testing.assert_allclose(view.astype(int), expected.numpy(), atol=1)


def test_first_images__those_that_training_begins_with():
    first = pipeline.first_images(numbered(22), Preprocessing(), 4, 6, seed=3)
    stream = pipeline.training_views(numbered(22), CLEAN, 4, 6, seed=3)
    np.testing.assert_array_equal(first, take(stream, 1)[0][0])


@pytest.mark.parametrize("start", [0, 3, 300, 512])
def test_draws__depend_on_the_place_alone(start):
    seed = tf.constant([1, 2])
    whole = np.array(list(pipeline._draws(seed, tf.constant(0, tf.int64), 700, 2)))
    late = list(pipeline._draws(seed, tf.constant(start, tf.int64), 700, 2))
    np.testing.assert_array_equal(late, whole[start:])
    assert len({row.tobytes() for row in whole}) == 700
    other = next(iter(pipeline._draws(seed + 1, tf.constant(0, tf.int64), 1, 2)))
    assert (other.numpy() != whole[0]).all()


@pytest.mark.parametrize("replicas", [1, 2])
def test_training_views__distorted_on_the_device(replicas):
    pair = view_pair("cifar")
    arguments = (noise(), pair, 16, 8)
    split = {"seed": 3, "start_step": 1, "micro_batches": 2, "replicas": replicas}
    on_host = take(pipeline.training_views(*arguments, **split), 3)
    later = pipeline.training_views(*arguments, **split, distorted=False)
    finish = ViewsFromCrops(pair)
    for batch, expected in zip(later, on_host, strict=False):
        for view, other in zip(finish(*batch), expected, strict=True):
            assert view.dtype == tf.uint8
            np.testing.assert_allclose(view.numpy().astype(int), other, atol=1)


def test_training_views__skipped_examples_are_not_decoded(monkeypatch):
    decoded = []
    decode = image_files.decode_stored

    def spy(image, pixels):
        tf.py_function(lambda pixel: decoded.append(int(pixel)), [image[0, 0, 0]], [])
        return decode(image, pixels)

    monkeypatch.setattr(image_files, "decode_stored", spy)
    monkeypatch.setattr(pipeline, "PARALLEL_CALLS", 1)
    stream = pipeline.training_views(numbered(22), CLEAN, 4, 2, seed=0, start_step=9)
    # What was decoded first is what was asked for first, not the 18 examples before.
    asked_for = list(itertools.chain(*indices(take(stream, 2))))
    assert decoded[:4] == asked_for


def test_training_views__skipped_files_are_not_read(tmp_path):
    source = write_folder(tmp_path, 8)
    seed = tf.constant(5, tf.int64)
    images = [source.load(e)[0].numpy() for e in source.examples(seed)]
    for example in source.examples(seed).take(5):
        Path(example["file"].numpy().decode()).unlink()
    rest = [source.load(e)[0].numpy() for e in source.examples(seed, 5)]
    assert len(rest) == 3
    for found, expected in zip(rest, images[5:], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_training_views__one_view_with_labels():
    """The labels follow their images, and the order is that of pairs of views."""
    images = np.random.default_rng(0).integers(0, 256, (22, 12, 12, 3), np.uint8)
    source = from_arrays(images, np.arange(22))
    spec = view_pair("cifar").first.without_colour()
    batches = take(
        pipeline.training_views(source, (spec,), 8, 5, seed=3, labels=True), 6
    )
    assert [(x.shape, y.shape) for x, y in batches] == [((5, 8, 8, 3), (5,))] * 6
    order_seed, _ = pipeline._epoch_seeds(3, tf.constant(0, tf.int64))
    expected = [int(e["label"]) for e in source.examples(order_seed[0]).take(20)]
    assert np.concatenate([y for _, y in batches[:4]]).tolist() == expected


def test_steps_per_epoch__floor():
    assert pipeline.steps_per_epoch(numbered(22), 5) == 4
    assert pipeline.steps_per_epoch(numbered(22), 22) == 1


def test_steps_per_epoch__batch_too_large():
    message = (
        "^--batch_size: received 23, accepted: 2 to 22, the images of .*; or more "
        r"images \(--data_dir, --split, --train_size\)"
    )
    with pytest.raises(Refused, match=message):
        pipeline.steps_per_epoch(numbered(22), 23)
    with pytest.raises(Refused, match=message):
        pipeline.training_views(numbered(22), CLEAN, 4, 23, seed=0)


@pytest.mark.parametrize(
    ("batch_size", "size", "chunk"),
    [(512, 32, 128), (256, 224, 16), (7, 224, 7), (100, 96, 50), (8, 2048, 1)],
)
def test_chunk_size__divides_the_batch(batch_size, size, chunk):
    assert pipeline.chunk_size(batch_size, size, 128) == chunk
    assert pipeline.chunk_size(batch_size, size, 1) == 1


def test_evaluation_images__stored_order_and_last_batch():
    batches = list(pipeline.evaluation_images(numbered(7), Preprocessing(), 4, 3))
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    assert np.concatenate([i[:, 0, 0, 0] for i, _ in batches]).tolist() == list(
        range(7)
    )
    assert np.concatenate([labels for _, labels in batches]).tolist() == [-1] * 7


def test_evaluation_images__labels_and_pixels():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    source = from_arrays(images, np.arange(5))
    ((batch, labels),) = pipeline.evaluation_images(source, Preprocessing(), 8, 16)
    np.testing.assert_array_equal(batch, images)
    assert labels.numpy().tolist() == [0, 1, 2, 3, 4]
    assert batch.dtype == tf.uint8 and labels.dtype == tf.int64


def test_evaluation_images__static_shape():
    dataset = pipeline.evaluation_images(noise(), Preprocessing(), 16, 4)
    assert dataset.element_spec[0].shape.as_list() == [None, 16, 16, 3]
