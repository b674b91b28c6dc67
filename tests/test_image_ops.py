"""Image operations: BYOL's numbers, numpy oracles, eager against tf.data."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tf_dpred.data import image_ops

# Operation and factor of each array in golden/image_ops.npz.
GOLDEN = {
    "brightness-0.4": lambda x: image_ops.brightness(x, -0.4),
    "brightness0.25": lambda x: image_ops.brightness(x, 0.25),
    "contrast0.6": lambda x: image_ops.contrast(x, 0.6),
    "contrast1.4": lambda x: image_ops.contrast(x, 1.4),
    "saturation0.8": lambda x: image_ops.saturation(x, 0.8),
    "saturation1.2": lambda x: image_ops.saturation(x, 1.2),
    "hue-0.1": lambda x: image_ops.hue(x, -0.1),
    "hue0.08": lambda x: image_ops.hue(x, 0.08),
    "grayscale": image_ops.grayscale,
    "solarize0.5": image_ops.solarize,
    "blur23_sigma0.1": lambda x: image_ops.gaussian_blur(x, 0.1, 23),
    "blur23_sigma0.7": lambda x: image_ops.gaussian_blur(x, 0.7, 23),
    "blur23_sigma2.0": lambda x: image_ops.gaussian_blur(x, 2.0, 23),
}


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("key", GOLDEN)
def test_operation__golden(golden, key):
    arrays = golden("image_ops")
    result = GOLDEN[key](tf.constant(arrays["image"]))
    np.testing.assert_allclose(result, arrays[key], rtol=0, atol=2e-6)


def test_operation__every_golden_array_is_used(golden):
    assert set(golden("image_ops")) == {"image", *GOLDEN}


def test_operation__same_inside_tf_data():
    image = tf.constant(random_images(16, 24, 3))
    stream = tf.data.Dataset.from_tensors(image).map(
        lambda x: {key: operation(x) for key, operation in GOLDEN.items()}
    )
    for key, result in stream.get_single_element().items():
        expected = GOLDEN[key](image)
        np.testing.assert_allclose(result, expected, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    "operation",
    [
        image_ops.brightness,
        image_ops.contrast,
        image_ops.saturation,
        image_ops.hue,
        lambda x, factor: image_ops.blend(x, image_ops.luma(x), factor),
        lambda x, factor: image_ops.gaussian_blur(x, factor, 9),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "blend", "blur"],
)
def test_operation__one_factor_per_image(operation):
    images = random_images(3, 16, 16, 3)
    factors = np.array([0.3, 0.9, 1.7], np.float32)
    batch = operation(tf.constant(images), factors)
    for image, factor, result in zip(images, factors, batch, strict=True):
        expected = operation(tf.constant(image), factor)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_hue_and_saturation__colorsys():
    image = random_images(4, 5, 3)
    image[0, 0] = 0.0
    image[0, 1] = 1.0
    image[0, 2] = 0.4
    image[0, 3] = (0.0, 0.7, 0.7)
    hue, saturation = np.empty_like(image), np.empty_like(image)
    for place in np.ndindex(4, 5):
        h, s, v = colorsys.rgb_to_hsv(*image[place].astype(float))
        hue[place] = colorsys.hsv_to_rgb((h + 0.35) % 1, s, v)
        saturation[place] = colorsys.hsv_to_rgb(h, min(1.6 * s, 1.0), v)
    np.testing.assert_allclose(image_ops.hue(image, 0.35), hue, atol=2e-6)
    np.testing.assert_allclose(image_ops.saturation(image, 1.6), saturation, atol=2e-6)


def test_solarize__threshold_fires_on_unit_images():
    result = image_ops.solarize(tf.constant([0.0, 0.49, 0.5, 1.0]))
    np.testing.assert_allclose(result, [0.0, 0.49, 0.5, 0.0])


def test_blend__numpy_oracle():
    image = random_images(6, 7, 3)
    gray = image @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    oracle = 0.3 * image + 0.7 * gray[..., None]
    result = image_ops.blend(image, image_ops.luma(tf.constant(image)), 0.3)
    np.testing.assert_allclose(result, oracle, atol=1e-6)


def draw_boxes(count, height, width, scale, ratio):
    """`count` boxes of `sample_crop`, int [count, 4]."""

    def draw(index):
        return image_ops.sample_crop([index, 7], height, width, scale, ratio)

    boxes = tf.data.Dataset.range(count).map(draw).batch(count)
    return next(iter(boxes)).numpy()


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


def test_sample_crop__area_uniform_and_aspect_log_uniform():
    # Up to half of the area every draw fits, so nothing is rejected.
    ratio = (3 / 4, 4 / 3)
    _, _, h, w = draw_boxes(3000, 1000, 1000, (0.08, 0.5), ratio).T
    area, aspect = h * w / 1e6, np.log(w / h)
    low, width = np.log(ratio[0]), np.log(ratio[1] / ratio[0])
    assert stats.kstest(area, "uniform", (0.08, 0.42)).pvalue > 0.01
    assert stats.kstest(aspect, "uniform", (low, width)).pvalue > 0.01
    assert abs(np.corrcoef(area, aspect)[0, 1]) < 0.06


@pytest.mark.parametrize("size", [(600, 800), (96, 96)])
def test_sample_crop__against_rejection_sampling(size):
    arguments = (2000, *size, (0.08, 1.0), (3 / 4, 4 / 3))
    boxes, oracle = draw_boxes(*arguments), oracle_boxes(*arguments)
    for column in range(4):
        test = stats.ks_2samp(boxes[:, column], oracle[:, column])
        assert test.pvalue > 0.01, ("top", "left", "height", "width")[column]


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (3, 500), (400, 300)])
def test_sample_crop__inside_the_image(size):
    top, left, h, w = draw_boxes(300, *size, (0.08, 1.0), (3 / 4, 4 / 3)).T
    assert top.min() >= 0 and left.min() >= 0 and h.min() >= 1 and w.min() >= 1
    assert (top + h).max() <= size[0] and (left + w).max() <= size[1]


def test_sample_crop__falls_back_to_the_central_crop():
    # A tenth of the area at an aspect of 3/4 to 4/3 is higher than this image.
    box = draw_boxes(1, 10, 1000, (0.1, 0.2), (3 / 4, 4 / 3))[0]
    assert box.tolist() == [0, 493, 10, 13]


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
def test_crop_and_resize__cuts_the_box(method):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    result = image_ops.crop_and_resize(
        tf.constant(image), tf.constant([3, 5, 8, 8]), 8, method
    )
    np.testing.assert_allclose(result * 255.0, image[3:11, 5:13], atol=1e-4)


def test_crop_and_resize__bicubic_stays_in_range():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 255
    result = image_ops.crop_and_resize(image, tf.constant([0, 0, 8, 8]), 32, "bicubic")
    assert float(tf.reduce_min(result)) == 0.0 and float(tf.reduce_max(result)) == 1.0


def test_center_box__short_side():
    assert image_ops.center_box(256, 300, 0.875).numpy().tolist() == [16, 38, 224, 224]
    assert image_ops.center_box(32, 32, 1.0).numpy().tolist() == [0, 0, 32, 32]


def test_decode__png_and_arrays():
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    colour = np.repeat(gray, 3, axis=-1)
    for image in (tf.io.encode_png(gray), tf.constant(gray), tf.constant(colour)):
        np.testing.assert_array_equal(image_ops.decode(image), colour)


def test_to_uint8__rounds_and_clips():
    values = tf.constant([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.2])
    assert image_ops.to_uint8(values).numpy().tolist() == [0, 0, 0, 1, 255, 255]
