"""Clean images as an encoder expects them."""

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.data import views
from tf_dpred.data.preprocessing import PREPROCESSING, Preprocessing
from tf_dpred.errors import Refused


def test_of_views__published_normalisation_and_crops():
    of = Preprocessing.of_views
    assert of("byol").mean == (0.485, 0.456, 0.406)
    assert of("byol").std == (0.229, 0.224, 0.225)
    assert of("cifar").mean == (0.4914, 0.4822, 0.4465)
    assert of("cifar").std == (0.2023, 0.1994, 0.2010)
    assert of("stl10").mean == (0, 0, 0) and of("stl10").std == (1, 1, 1)
    assert {name: of(name).crop_fraction for name in PREPROCESSING} == {
        "byol": 0.875,
        "simclr": 0.875,
        "stl10": 1.0,
        "cifar": 1.0,
        "digits": 1.0,
    }


def test_of_views__fits_the_views():
    assert list(PREPROCESSING) == list(views.VIEWS)
    for name, preprocessing in PREPROCESSING.items():
        pair = views.view_pair(name)
        assert pair.first.interpolation == preprocessing.interpolation
        assert pair.second.interpolation == preprocessing.interpolation


def test_of_views__unknown_name():
    with pytest.raises(Refused, match="--views: received 'byl', accepted: byol, simc"):
        Preprocessing.of_views("byl")


def test_evaluation_view__central_and_deterministic():
    image = np.zeros((64, 96, 3), np.uint8)
    image[4:60, 20:76] = np.random.default_rng(0).integers(0, 256, (56, 56, 3))
    preprocessing = Preprocessing(crop_fraction=0.875, interpolation="bicubic")
    result = preprocessing.evaluation_view(tf.constant(image), 56)
    np.testing.assert_array_equal(result, image[4:60, 20:76])


def test_evaluation_view__leaves_images_of_the_right_size_alone():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    result = Preprocessing.of_views("cifar").evaluation_view(tf.constant(image), 32)
    np.testing.assert_array_equal(result, image)
