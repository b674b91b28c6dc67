"""The numbers of docs/method.md on where the package differs from the papers' code."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred.config import NetworkConfig
from tf_dpred.data import image_ops, pipeline, views
from tf_dpred.data.source import from_arrays
from tf_dpred.networks.heads import projector
from tf_dpred.networks.resnet import resnet

PAGE = (Path(__file__).parent.parent / "docs/method.md").read_text()
IMAGENET, CIFAR = 1_281_167, 50_000


def test_steps__of_an_epoch_and_of_a_run():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    source = dataclasses.replace(from_arrays(images), num_examples=IMAGENET)
    ours = 300 * pipeline.steps_per_epoch(source, 4096)
    byols = 300 * IMAGENET // 4096
    assert f"{ours:,}" == "93,600" and f"{byols:,}" == "93,835"
    assert "93,600" in PAGE and "93,835" in PAGE
    assert 1 - ours / byols == pytest.approx(0.0025, abs=1e-4)
    small = dataclasses.replace(source, num_examples=CIFAR)
    assert pipeline.steps_per_epoch(small, 128) == 390
    assert pipeline.steps_per_epoch(small, 128, keep_last=True) == 391
    assert CIFAR % 128 == 80


def test_stem__spread_beside_pytorchs():
    kernel = resnet("resnet18", 32, stem="small").get_layer("stem").kernel.numpy()
    pytorch = 1 / math.sqrt(27) / math.sqrt(3)  # U(+-1/sqrt(inputs)), 3 x 3 x 3 inputs
    assert kernel.std() == pytest.approx(0.059, abs=0.003)
    assert pytorch == pytest.approx(0.111, abs=5e-4)
    assert (0.111 / 0.059) ** 2 == pytest.approx(3.5, abs=0.05)


def test_dense__biases_start_at_zero():
    biases = [v for v in projector(NetworkConfig(), 512).variables if v.name == "bias"]
    assert len(biases) == 2 and not any(bias.numpy().any() for bias in biases)
    assert 1 / math.sqrt(512) / math.sqrt(3) == pytest.approx(0.026, abs=5e-4)


@pytest.mark.parametrize(
    ("height", "width", "one_in"),
    [(32, 32, 3e9), (375, 500, 8e5), (256, 512, 500)],
)
def test_crop__how_often_no_draw_fits(height, width, one_in):
    """The share of single draws that fail, to the power of ten."""
    spec = views.ViewSpec()
    rng = np.random.default_rng(0)
    area = rng.uniform(*spec.crop_scale, 200_000) * height * width
    aspect = np.exp(rng.uniform(*np.log(spec.crop_ratio), 200_000))
    fits = (np.rint(np.sqrt(area * aspect)) <= width) & (
        np.rint(np.sqrt(area / aspect)) <= height
    )
    expected = np.mean(~fits) ** image_ops.CROP_TRIES
    assert 1 / expected == pytest.approx(one_in, rel=0.25)


def test_crop__falls_back_to_the_largest_central_one():
    draws = tf.ones([1, image_ops.CROP_DRAWS]) * 0.999  # nearly all of it, and broad
    box = image_ops.sample_crops(draws, 60, 20, [(0.08, 1.0)], [(3 / 4, 4 / 3)])
    # 20 wide, 20 / (3/4) high, in the middle of 60 rows.
    np.testing.assert_array_equal(box, [[16, 0, 27, 20]])
