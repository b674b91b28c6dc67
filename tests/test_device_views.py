"""Views that the training step makes are those that the host would have made."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys
from test_recovery import pretraining

from tf_dpred.config import DataConfig
from tf_dpred.data import (
    cache,
    device_crops,
    device_views,
    image_ops,
    pipeline,
    random_views,
)
from tf_dpred.data.random_views import NUM_DRAWS
from tf_dpred.data.source import from_arrays
from tf_dpred.data.views import ViewSpec, view_pair
from tf_dpred.errors import Refused

SETTINGS = {"views": "cifar", "train_size": 24, "epochs": 1, "accumulation_steps": 2}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def drawn(count, seed=1):
    return np.random.default_rng(seed).random((count, NUM_DRAWS), dtype=np.float32)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    "height, width, size", [(32, 32, 32), (20, 13, 24), (40, 56, 16), (1, 9, 8)]
)
def test_random_crops__pixels_of_the_host(method, height, width, size):
    count = 32
    images, draws = noise(count, height, width, 3), drawn(count)
    spec = ViewSpec(interpolation=method)
    found = device_crops.random_crops(tf.constant(images), spec, size, draws)
    expected = [
        random_views.random_crops(image, [spec], size, draw[np.newaxis])[0]
        for image, draw in zip(images, draws, strict=True)
    ]
    difference = np.abs(found.numpy().astype(int) - np.stack(expected))
    assert found.dtype == tf.uint8
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 5e-3  # halves, which either way rounds


TURNS = [
    {"vertical_flip_probability": 0.5},
    {"rotate90_probability": 0.7},
    {"rotation": 180.0},
    {"vertical_flip_probability": 1.0, "rotate90_probability": 1.0, "rotation": 20.0},
]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("compiled", [False, True])
def test_random_crops__turned_as_on_the_host(turns, compiled):
    count, size = 32, 16
    images, draws = noise(count, 18, 14, 3), drawn(count)
    spec = ViewSpec(interpolation="bilinear", **turns)

    def crops(images, draws):
        return device_crops.random_crops(images, spec, size, draws)

    found = tf.function(crops, jit_compile=compiled)(tf.constant(images), draws)
    straight = device_crops.random_crops(
        tf.constant(images), ViewSpec(interpolation="bilinear"), size, draws
    )
    assert np.mean(found != straight) > 0.3  # they are turned
    expected = [
        random_views.random_crops(image, [spec], size, draw[np.newaxis])[0]
        for image, draw in zip(images, draws, strict=True)
    ]
    difference = np.abs(found.numpy().astype(int) - np.stack(expected))
    assert np.mean(difference > 0) < 1e-2
    assert np.mean(difference > 1) < 1e-3  # a box that rounding makes another one


def test_crop_and_resize__of_every_box_of_a_small_image():
    image = noise(5, 6, 3)
    boxes = [
        (top, left, height, width)
        for top in range(5)
        for left in range(6)
        for height in range(1, 6 - top)
        for width in range(1, 7 - left)
    ]
    images = np.broadcast_to(image, (len(boxes), *image.shape))
    for method in ("bilinear", "bicubic"):
        found = device_crops.crop_and_resize(tf.constant(images), boxes, 7, method)
        expected = [image_ops.crop_and_resize(image, b, 7, method) for b in boxes]
        difference = np.abs(found.numpy().astype(int) - np.stack(expected))
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 2e-2  # halves, which either way rounds


def test_sample_crops__same_boxes_when_compiled():
    count, scale, ratio = 1000, (0.08, 1.0), (3 / 4, 4 / 3)
    draws = drawn(count)[:, : image_ops.CROP_DRAWS]

    def boxes(draws):
        many = [scale] * count, [ratio] * count
        return image_ops.sample_crops(draws, 32, 32, *many)

    compiled = tf.function(boxes, jit_compile=True)(tf.constant(draws)).numpy()
    expected = boxes(draws).numpy()
    for place in range(0, count, 50):
        one = draws[place : place + 1]
        alone = image_ops.sample_crops(one, 32, 32, [scale], [ratio])
        np.testing.assert_array_equal(alone, expected[place : place + 1])
    # Where a side lies on the border between two pixels, rounding decides.
    assert np.mean(compiled != expected) <= 1e-3
    assert np.abs(compiled - expected).max() <= 1


@pytest.mark.parametrize(("held", "replicas"), [(False, 1), (True, 2)])
def test_feed__views_of_the_host(held, replicas):
    pair = view_pair("cifar")
    source = from_arrays(noise(20, 18, 18, 3), name="noise")
    if held:
        on_device = DataConfig(image_size=16, augment_on="device", cache="device")
        fed = device_views.feed(on_device, pair, source)
        assert fed.source.image_size is None  # indices
    else:
        on_device = DataConfig(image_size=16, augment_on="device")
        fed = device_views.feed(on_device, pair, source)
        assert fed.source is source
    split = {"seed": 3, "start_step": 1, "micro_batches": 2, "replicas": replicas}
    arguments = (pair, 16, 8)
    on_host = pipeline.training_views(source, *arguments, **split)
    later = pipeline.training_views(
        fed.source, *arguments, **split, distorted=fed.distorted, cropped=fed.cropped
    )
    assert all(spec.shape[0] == 8 for spec in later.element_spec)
    make = tf.function(fed.make_views, jit_compile=True)
    for batch, expected in zip(later.take(3), on_host.take(3), strict=True):
        for view, other in zip(make(*batch), expected, strict=True):
            difference = np.abs(view.numpy().astype(int) - other.numpy())
            assert difference.max() <= 2
            assert np.mean(difference > 1) < 1e-3


def test_feed__on_the_host_the_step_makes_nothing():
    source = from_arrays(noise(4, 8, 8, 3))
    fed = device_views.feed(DataConfig(), view_pair("digits"), source)
    assert fed == (source, True, True, None)


def test_feed__images_of_many_sizes_are_cropped_on_the_host():
    many = dataclasses.replace(from_arrays(noise(4, 8, 8, 3)), image_size=None)
    config = DataConfig(augment_on="device")
    fed = device_views.feed(config, view_pair("digits"), many)
    assert (fed.source, fed.distorted, fed.cropped) == (many, False, True)
    assert type(fed.make_views) is device_views.ViewsFromCrops


@pytest.mark.parametrize("how", [{}, {"cache": "device"}])
def test_augment_on_device__trains_as_on_the_host(how, tmp_path):
    def trained(name, **settings):
        run = pretraining(str(tmp_path / name), **SETTINGS, **settings)
        result = run.train()
        return result["loss"], toys.arrays(run.model.variables)

    loss, expected = trained("host")
    on_device, found = trained("device", augment_on="device", **how)
    # A pixel in a thousand differs by one level.
    assert on_device == pytest.approx(loss, rel=1e-3)
    for value, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            value, other, rtol=0, atol=2e-3 * np.abs(other).max()
        )


def test_cache_device__continues_to_the_bit(tmp_path):
    settings = SETTINGS | {"augment_on": "device", "cache": "device", "epochs": 2}
    whole = pretraining(str(tmp_path / "whole"), **settings)
    whole.train()
    part = str(tmp_path / "part")
    pretraining(part, **{**settings, "epochs": 1}).train()
    resumed = pretraining(part, **settings)
    resumed.train()
    for value, other in zip(
        toys.arrays(resumed.model.variables),
        toys.arrays(whole.model.variables),
        strict=True,
    ):
        np.testing.assert_array_equal(value, other)


def test_cache_read__images_of_two_sizes():
    both = from_arrays(noise(2, 6, 8, 3), name="two sizes")
    second = from_arrays(noise(1, 8, 8, 3))

    def examples(seed):
        del seed
        mixed = [both, second]
        datasets = [
            source.examples(None).map(
                lambda e: {"image": tf.io.encode_png(e["image"]), "label": e["label"]}
            )
            for source in mixed
        ]
        return datasets[0].concatenate(datasets[1])

    mixed = dataclasses.replace(both, examples=examples, num_examples=3)
    with pytest.raises(Refused, match="image 2 of two sizes train is of 8 x 8 pixels"):
        cache.read(mixed)


def test_cache__needs_views_on_the_device():
    with pytest.raises(Refused, match="--cache: received 'device'"):
        DataConfig(cache="device")


def test_distort_each__is_not_compiled_beside_a_tpu(monkeypatch):
    spec = ViewSpec(blur_probability=0.5, solarize_probability=0.3)
    crops, draws = tf.constant(noise(4, 12, 12, 3)), tf.constant(drawn(4))
    compiled = random_views.distort_each(spec)(crops, draws)
    random_views.distort_each.cache_clear()
    devices = tf.config.list_logical_devices

    def with_tpu(kind=None):
        return ["TPU:0"] if kind == "TPU" else devices(kind)

    monkeypatch.setattr(tf.config, "list_logical_devices", with_tpu)
    function = random_views.distort_each(spec)
    random_views.distort_each.cache_clear()
    assert not function._jit_compile
    difference = np.abs(function(crops, draws).numpy().astype(int) - compiled.numpy())
    assert difference.max() <= 1


def test_make_views__of_held_images_is_saved_without_them():
    stored = tf.Variable(noise(5, 9, 9, 3), trainable=False)
    held = device_views.ViewsFromIndices(view_pair("cifar"), 8, stored)
    config = keras.saving.serialize_keras_object(held)
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is device_views.ViewsFromImages
    draws = drawn(2, seed=1), drawn(2, seed=2)
    views = held(tf.constant([4, 0], tf.int64), *draws)
    again = loaded(tf.gather(stored, [4, 0]), *draws)
    for view, same in zip(views, again, strict=True):
        np.testing.assert_array_equal(view, same)
