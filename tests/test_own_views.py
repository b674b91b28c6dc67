"""Views that a user makes: seeded by example, or refused in one line."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_dpred.data import pipeline
from tf_dpred.data.own_views import OwnViews
from tf_dpred.data.source import from_arrays
from tf_dpred.errors import Refused

SIDE, SIZE, BATCH = 20, 16, 8


def source(side=SIDE):
    images = np.random.default_rng(0).integers(0, 256, (24, side, side, 3), np.uint8)
    return from_arrays(images)


def sequential():
    return keras.Sequential(
        [layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomCrop(SIZE, SIZE)]
    )


def crop(image, seed):
    return tf.image.stateless_random_crop(image, [SIZE, SIZE, 3], seed)


def of_layers():
    """A function with layers of its own, which nothing but a call finds."""
    flip, gray = layers.RandomFlip(), [layers.RandomGrayscale(0.5)]

    def both(image):
        image = tf.cast(image, tf.float32)[None]
        return flip(image)[0], gray[0](flip(image))[0]

    return both


def traced():
    layer = layers.RandomTranslation(0.2, 0.2)

    @tf.function
    def view(image):
        return layer(tf.cast(image, tf.float32)[None])[0]

    return view


def branching(image, seed):
    if tf.random.stateless_uniform([], seed) > 0.5:  # by AutoGraph
        image = 255 - image
    return crop(image, seed)


def of_numpy(image, seed):
    def noise(pixels, seed):
        noise = np.random.default_rng(np.abs(seed)).normal(0, 9, pixels.shape)
        return np.uint8(np.clip(pixels + noise, 0, 255))

    return tf.numpy_function(noise, [image, seed], tf.uint8)


def of_keras_random(image):
    return tf.cast(image, tf.float32) + 20 * keras.random.normal((SIDE, SIDE, 3))


def gray(image, *, seed=None):
    return tf.image.rgb_to_grayscale(crop(image, seed))


ACCEPTED = {
    "layers": sequential,
    "two": lambda: (layers.RandomCrop(SIZE, SIZE), layers.RandomFlip()),
    "many kinds": lambda: keras.Sequential(
        [layers.RandAugment(), layers.RandomErasing(), layers.RandomPerspective()]
    ),
    "function of layers": of_layers,
    "tf.function": traced,
    "stateless": lambda: crop,
    "AutoGraph": lambda: branching,
    "NumPy with the seed": lambda: of_numpy,
    "keras.random": lambda: of_keras_random,
    "gray": lambda: gray,
}


def batches(views, start=(0, 0), count=1, **kwargs):
    epoch, step = start
    stream = pipeline.training_views(
        source(),
        views,
        SIZE,
        BATCH,
        seed=3,
        start_epoch=epoch,
        start_step=step,
        **kwargs,
    )
    return [np.stack(batch) for batch in stream.take(count)]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=[pytest.mark.slow] * (name == "many kinds"))
        for name, make in ACCEPTED.items()
    ],
)
def test_training_views__a_function_of_example_and_epoch(make):
    """Whole, begun in the middle, by two workers, and made anew: the same bits."""
    views = OwnViews(make(), SIZE)
    views.check(source())
    whole = batches(views, count=5)  # an epoch has 3 steps
    assert whole[0].shape == (2, BATCH, SIZE, SIZE, 3) and whole[0].dtype == np.uint8
    again = OwnViews(make(), SIZE)
    again.check(source())
    for found in (batches(again, (1, 0), 2), batches(views, (0, 3), 2)):
        np.testing.assert_array_equal(found, whole[3:])
    for worker in (0, 1):
        part = batches(views, share=(worker, 2))[0]
        np.testing.assert_array_equal(part, whole[0][:, 4 * worker : 4 * worker + 4])
    assert not np.array_equal(whole[0][0], whole[0][1])  # the views of an image
    assert not np.array_equal(whole[0], whole[3])


def test_training_views__each_epoch_has_its_own_views():
    """The same image in two epochs, found again by its own colour."""
    images = np.tile(np.arange(16, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 3))
    images[:, :, :4] += 100
    views = OwnViews(layers.RandomFlip("horizontal"), 8)
    stream = pipeline.training_views(from_arrays(images), views, 8, 16, seed=0)
    seen = {index: set() for index in range(16)}
    for batch in stream.take(8):
        for view in np.concatenate(batch):
            seen[int(view.min())].add(bool(view[0, 0, 0] >= 100))
    assert sum(len(kinds) == 2 for kinds in seen.values()) == 16


def test_check__resizes_what_keeps_the_size_of_its_image():
    views = OwnViews(layers.RandomFlip(), SIZE)
    assert views.check(source(32)).shape == (8, 2, SIZE, SIZE, 3)


def test_check__says_where_epochs_are_equal(caplog):
    OwnViews((lambda image: image, lambda image: 255 - image), SIZE).check(source())
    assert "the same in every epoch" in caplog.text


generator = tf.random.Generator.from_seed(0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: lambda image: tf.image.random_crop(image, [SIZE, SIZE, 3]),
            "which uses RandomUniformInt, which has a state of its own: .*stateless",
        ),
        (
            lambda: lambda image: image + tf.cast(generator.normal([1]), tf.uint8),
            "which uses Rng",
        ),
        (
            lambda: lambda image: tf.cast(image, tf.float32) + 99 * random.random(),
            "which uses numbers of NumPy, Python or the time",
        ),
        (
            lambda: (
                lambda image: tf.numpy_function(
                    np.random.permutation, [image], tf.uint8
                )
            ),
            "which uses numbers of NumPy",
        ),
        (
            lambda: keras.Sequential(
                [layers.RandomFlip(), layers.BatchNormalization()]
            ),
            "which uses .*moving_mean",
        ),
        (
            lambda: keras.Sequential([layers.MixUp()]),
            r"\(MixUp\)', accepted: layers of",
        ),
        (
            lambda: [layers.RandomFlip()] * 2,
            "'list', accepted: TwoViews, a Keras layer",
        ),
        (lambda: "byol", "'str', accepted: "),
        (lambda: lambda a, b, c: a, "of 3 arguments, accepted: "),
        (lambda: lambda image: (image,) * 3, "which gives 3 views, accepted: one"),
        (lambda: lambda image: image[0], r"with views \(20, 3\), accepted: views"),
        (lambda: lambda image: image, "two equal views, accepted: views that differ"),
        (lambda: lambda image: 1 / 0, r"\(ZeroDivisionError: division by zero\)"),
        (
            lambda: lambda image, seed: crop(tf.cast(image, tf.float32) / 255, seed),
            r"of values from 0 to 1, accepted: values in \[0, 255\]",
        ),
        (
            lambda: lambda image: tf.image.per_image_standardization(image),
            r"of values from -1\.\d+ to 1\.\d+, accepted: values in",
        ),
        (
            lambda: layers.RandomCrop(12, 12),
            "of 12 x 12 with --image_size=16, accepted: views of the size",
        ),
    ],
)
def test_check__refused(make, message):
    with pytest.raises(Refused, match=f"^--views: received .*{message}") as error:
        OwnViews(make(), SIZE).check(source())
    assert "\n" not in str(error.value)


def test_check__layers_that_need_a_known_size(tmp_path):
    """A folder has images of any size: refused with the way out, which works."""
    from tf_dpred.data.datasets import open_source

    for index, side in enumerate((20, 30)):
        pixels = np.random.default_rng(index).integers(0, 256, (side, 24, 3), np.uint8)
        (tmp_path / f"{index}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    folder = open_source("folder", None, str(tmp_path))
    last = layers.RandomCrop(SIZE, SIZE)
    with pytest.raises(Refused, match=r"RandomCrop.*Resizing in front of other"):
        OwnViews(last, SIZE).check(folder)
    resized = keras.Sequential([layers.Resizing(18, 18), layers.RandomCrop(SIZE, SIZE)])
    assert OwnViews(resized, SIZE).check(folder).shape == (8, 2, SIZE, SIZE, 3)
