"""`TwoViews`: in a pipeline, image by image and batch by batch, and as a layer."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.data.random_views import NUM_DRAWS, distort_each, random_crops
from tf_dpred.data.views import view_pair
from tf_dpred.errors import Refused
from tf_dpred.views import TwoViews, ViewPair, ViewSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)


def test_call__the_views_of_the_recipe():
    """The pixels that the program's own pipeline makes of the same numbers."""
    pair, seed = view_pair("byol"), [5, 7]
    draws = tf.random.stateless_uniform([6, 2, NUM_DRAWS], tf.constant(seed, tf.int64))
    found = TwoViews("byol", 16)(IMAGES, seed=seed)
    for place in range(2):
        crops = [
            random_crops(tf.constant(image), pair, 16, d)[place]
            for image, d in zip(IMAGES, draws, strict=True)
        ]
        expected = distort_each(pair[place])(tf.stack(crops), draws[:, place])
        np.testing.assert_array_equal(found[place], expected)


def test_call__in_a_pipeline_of_images_and_of_batches():
    images = tf.data.Dataset.from_tensor_slices(IMAGES)
    views = TwoViews("cifar", image_size=16, seed=1)
    by_image = images.map(views, num_parallel_calls=2).batch(3)
    by_batch = images.batch(3).map(views)
    for dataset in (by_image, by_batch):
        first, second = next(iter(dataset))
        assert first.shape == second.shape == (3, 16, 16, 3)
        assert first.dtype == second.dtype == tf.uint8
        assert not np.array_equal(first, second)
        assert not np.array_equal(next(iter(dataset))[0], first)


def test_call__seeds():
    views = TwoViews("digits", 16)
    same = [np.stack(views(IMAGES, seed=[1, 2])) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert not np.array_equal(same[0], np.stack(views(IMAGES, seed=[1, 3])))
    one, another = (TwoViews("digits", 16, seed=3)(IMAGES) for _ in range(2))
    np.testing.assert_array_equal(one, another)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32", "float64"])
def test_call__types_and_gray(dtype):
    views = TwoViews("digits", 16)
    expected = views(IMAGES, seed=[0, 0])
    np.testing.assert_array_equal(views(IMAGES.astype(dtype), seed=[0, 0]), expected)
    assert views(IMAGES[0, ..., :1].astype(dtype))[0].shape == (16, 16, 3)


def test_call__values_in_0_1():
    with pytest.raises(tf.errors.InvalidArgumentError, match="received values up to"):
        TwoViews("digits", 16)((IMAGES / 255).astype(np.float32))
    dark = np.zeros((2, 20, 30, 3), np.float32)
    assert TwoViews("digits", 16)(dark)[0].shape == (2, 16, 16, 3)


def test_call__no_images():
    with pytest.raises(ValueError, match=r"TwoViews: received images \(20, 30\)"):
        TwoViews("digits", 16)(IMAGES[0, ..., 0])


@pytest.mark.parametrize(
    "recipe", ["simclr", ViewPair(ViewSpec(), ViewSpec(blur_sigma=(0.1, 1.0)))]
)
def test_layer__saved_with_a_model(recipe, tmp_path):
    inputs = keras.Input((20, 30, 3))
    model = keras.Model(inputs, TwoViews(recipe, 16, seed=4)(inputs))
    assert [output.shape for output in model.outputs] == [(None, 16, 16, 3)] * 2
    model.save(tmp_path / "views.keras")
    loaded = keras.saving.load_model(tmp_path / "views.keras")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    config = json.loads(json.dumps(model.layers[-1].get_config()))
    assert TwoViews.from_config(config).pair == model.layers[-1].pair


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "bool"}, "--views: received 'bool', accepted: byol"),
        ({"strength": 0.5}, "--view_strength: received 0.5, accepted: 1 unless"),
    ],
)
def test_init__refused(arguments, message):
    with pytest.raises(Refused, match=message):
        TwoViews(**arguments)


def test_fit__a_users_pipeline():
    """The views of `map` are what `DirectPred.fit` takes."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    representation = keras.layers.Dense(4, activation="relu")(x)
    projection = keras.layers.Dense(3)(representation)
    network = keras.Model(images, [representation, projection])
    from tf_dpred import SGD, DirectPred, predictors

    model = DirectPred(network, None, predictors.Direct())
    model.compile(SGD(0.1), run_eagerly=True)
    views = tf.data.Dataset.from_tensor_slices(IMAGES).map(TwoViews("cifar", 8))
    history = model.fit(views.batch(3), verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert model.steps_done == 2
