"""Decoding, crops and resizing against their specification and numpy oracles."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from tf_dpred.data import image_files, image_ops


def draw_boxes(count, height, width, scale, ratio):
    """`count` boxes of `sample_crops`, int [count, 4]."""
    draws = tf.random.stateless_uniform([count, image_ops.CROP_DRAWS], [5, 7])
    each = [scale] * count, [ratio] * count
    return image_ops.sample_crops(draws, height, width, *each).numpy()


def oracle_boxes(count, height, width, scale, ratio):
    """The same distribution by rejection, one box at a time."""
    rng = np.random.default_rng(3)
    boxes = []
    while len(boxes) < count:
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        h, w = round(np.sqrt(area / aspect)), round(np.sqrt(area * aspect))
        if h <= height and w <= width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            boxes.append((top, left, h, w))
    return np.array(boxes)


def test_sample_crops__area_uniform_and_aspect_log_uniform():
    # Up to half of the area every draw fits, so nothing is rejected.
    ratio = (3 / 4, 4 / 3)
    _, _, h, w = draw_boxes(3000, 1000, 1000, (0.08, 0.5), ratio).T
    area, aspect = h * w / 1e6, np.log(w / h)
    low, width = np.log(ratio[0]), np.log(ratio[1] / ratio[0])
    assert stats.kstest(area, "uniform", (0.08, 0.42)).pvalue > 0.01
    assert stats.kstest(aspect, "uniform", (low, width)).pvalue > 0.01
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.06


@pytest.mark.parametrize("size", [(600, 800), (96, 96)])
def test_sample_crops__against_rejection_sampling(size):
    arguments = (2000, *size, (0.08, 1.0), (3 / 4, 4 / 3))
    boxes, oracle = draw_boxes(*arguments), oracle_boxes(*arguments)
    for column in range(4):
        test = stats.ks_2samp(boxes[:, column], oracle[:, column])
        assert test.pvalue > 0.01, ("top", "left", "height", "width")[column]


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 500), (400, 300)])
def test_sample_crops__inside_the_image(size):
    top, left, h, w = draw_boxes(300, *size, (0.08, 1.0), (3 / 4, 4 / 3)).T
    assert top.min() >= 0 and left.min() >= 0 and h.min() >= 1 and w.min() >= 1
    assert (top + h).max() <= size[0] and (left + w).max() <= size[1]


def test_sample_crops__falls_back_to_the_central_crop():
    # A tenth of the area at an aspect of 3/4 to 4/3 is higher than this image.
    box = draw_boxes(1, 10, 1000, (0.1, 0.2), (3 / 4, 4 / 3))[0]
    assert box.tolist() == [0, 493, 10, 13]


def test_sample_crops__each_of_its_own_distribution():
    scales, ratios = [(0.1, 0.2), (0.3, 0.4)], [(1.0, 1.0), (2.0, 2.0)]
    draws = tf.random.stateless_uniform([2, image_ops.CROP_DRAWS], [5, 7])
    together = image_ops.sample_crops(draws, 1000, 900, scales, ratios).numpy()
    for box, drawn, scale, ratio in zip(together, draws, scales, ratios, strict=True):
        alone = image_ops.sample_crops(drawn[None], 1000, 900, [scale], [ratio])
        np.testing.assert_array_equal(box, alone[0])
    _, _, h, w = together.T
    assert 0.1 < h[0] * w[0] / 9e5 < 0.2 and h[0] == w[0]
    assert 0.3 < h[1] * w[1] / 9e5 < 0.4 and abs(w[1] / h[1] - 2) < 0.01


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_crop_and_resize__cuts_the_box(method):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    result = image_ops.crop_and_resize(
        tf.constant(image), tf.constant([3, 5, 8, 8]), 8, method
    )
    np.testing.assert_array_equal(result, image[3:11, 5:13])


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_crop_and_resize__large_crops_are_equal_to_the_bit(method, monkeypatch):
    """They are resized without a float32 copy."""
    image = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    boxes = [(0, 0, 61, 83), (7, 9, 31, 17), (50, 2, 5, 80), (1, 1, 1, 1)]
    for box in boxes:
        for size in (8, 33, 96):
            found = []
            for large in (0, 2**24):
                monkeypatch.setattr(image_ops, "LARGE_CROP", large)
                found.append(
                    image_ops.crop_and_resize(image, tf.constant(box), size, method)
                )
            np.testing.assert_array_equal(*found)


def test_crop_and_resize__bicubic_stays_in_range():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    result = image_ops.crop_and_resize(image, tf.constant([0, 0, 8, 8]), 32, "bicubic")
    oracle = tf.image.resize(image, [32, 32], "bicubic")
    assert float(tf.reduce_min(oracle)) < -5 and float(tf.reduce_max(oracle)) > 260
    np.testing.assert_array_equal(result, np.clip(np.rint(oracle), 0, 255))


def test_center_box__short_side():
    assert image_ops.center_box(256, 300, 0.875).numpy().tolist() == [16, 38, 224, 224]
    assert image_ops.center_box(32, 32, 1.0).numpy().tolist() == [0, 0, 32, 32]


def test_decode_stored__png_and_arrays():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    colour = np.repeat(gray, 3, axis=-1)
    for image in (tf.io.encode_png(gray), tf.constant(gray), tf.constant(colour)):
        np.testing.assert_array_equal(image_files.decode_stored(image), colour)


def test_to_uint8__rounds_and_clips():
    values = tf.constant([-9.0, -0.1, 0.0, 0.499, 0.501, 254.6, 255.0, 300.0])
    assert image_ops.to_uint8(values).numpy().tolist() == [0, 0, 0, 0, 1, 255, 255, 255]


@pytest.mark.parametrize("degrees", [0.0, 90.0, -90.0, 180.0, 15.0, -3.0, 200.0])
def test_rotate__against_scipy(degrees):
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    radians = np.deg2rad(degrees)
    cosine, sine = np.cos(radians), np.sin(radians)
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    offset = 4 - matrix @ [4, 4]
    expected = np.stack(
        [
            ndimage.affine_transform(
                image[..., c].astype(float), matrix, offset, order=1, mode="reflect"
            )
            for c in range(3)
        ],
        axis=-1,
    )
    found = image_ops.rotate(tf.constant(image), tf.constant(degrees)).numpy()
    assert np.abs(found - expected).max() <= 0.51
    if degrees == 90.0:
        assert np.array_equal(found, np.rot90(image))
