"""Clean images as an encoder expects them."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.config import Config
from tf_dpred.data import pipeline, views
from tf_dpred.data.preprocessing import PREPROCESSING, Preprocessing
from tf_dpred.data.source import from_arrays
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
        "simsiam": 0.875,
        "stl10": 1.0,
        "cifar": 1.0,
        "digits": 1.0,
        "satellite": 0.875,
        "histology": 0.875,
        "microscopy": 0.875,
        "documents": 0.875,
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


def test_of__mean_std_and_interpolation_of_a_run():
    config = Config.from_dict(
        {"views": "byol", "mean": "0.5,0.4,0.3", "interpolation": "bilinear"}
    )
    byol = Preprocessing.of_views("byol")
    expected = replace(byol, mean=(0.5, 0.4, 0.3), interpolation="bilinear")
    assert Preprocessing.of(config) == expected
    assert Preprocessing.of(Config.from_dict({"views": "byol"})) == byol


def test_with_measured__mean_and_std_of_the_training_images():
    images = np.random.default_rng(0).integers(0, 100, (30, 8, 8, 3), dtype=np.uint8)
    images[..., 2] = 51
    config = Config.from_dict({"normalize": "data", "image_size": 8, "std": "1,1,0.5"})
    found = pipeline.with_measured(config, from_arrays(images)).data
    mean = images.mean((0, 1, 2)) / 255
    assert found.mean == f"{mean[0]:.4f},{mean[1]:.4f},0.2000"
    assert found.std == "1,1,0.5"
    measured = Config.from_dict({"normalize": "data", "image_size": 8})
    found = pipeline.with_measured(measured, from_arrays(images)).data
    std = images.std((0, 1, 2)) / 255
    assert found.std == f"{std[0]:.4f},{std[1]:.4f},0.0010"
    as_recipe = Config()
    assert pipeline.with_measured(as_recipe, from_arrays(images)) is as_recipe
