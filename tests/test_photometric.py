"""Colour and blur: BYOL's numbers, numpy oracles, eager against compiled in tf.data."""

import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance
from scipy import ndimage

from tf_dpred.data import choice, photometric


def on_pixels(operation):
    """An operation on planes, [..., 3, H, W], as one on pixels, [..., H, W, 3]."""

    def call(images, *factors):
        planes = np.moveaxis(np.asarray(images), -1, -3)
        planes = operation(tf.constant(planes), *factors)
        return np.moveaxis(np.asarray(planes), -3, -1)

    return call


# Operation and factor of each array in golden/image_ops.npz.
GOLDEN = {
    "brightness-0.4": lambda x: photometric.brightness(x, -0.4),
    "brightness0.25": lambda x: photometric.brightness(x, 0.25),
    "contrast0.6": lambda x: photometric.contrast(x, 0.6),
    "contrast1.4": lambda x: photometric.contrast(x, 1.4),
    "saturation0.8": lambda x: photometric.saturation(x, 0.8),
    "saturation1.2": lambda x: photometric.saturation(x, 1.2),
    "hue-0.1": lambda x: photometric.hue(x, -0.1),
    "hue0.08": lambda x: photometric.hue(x, 0.08),
    "grayscale": photometric.grayscale,
    "solarize0.5": photometric.solarize,
    "blur23_sigma0.1": lambda x: photometric.gaussian_blur(x, 0.1, 23),
    "blur23_sigma0.7": lambda x: photometric.gaussian_blur(x, 0.7, 23),
    "blur23_sigma2.0": lambda x: photometric.gaussian_blur(x, 2.0, 23),
}


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@pytest.mark.parametrize("key", GOLDEN)
def test_operation__golden(golden, key):
    arrays = golden("image_ops")
    result = on_pixels(GOLDEN[key])(arrays["image"])
    np.testing.assert_allclose(result, arrays[key], rtol=0, atol=2e-6)


def test_operation__every_golden_array_is_used(golden):
    assert set(golden("image_ops")) == {"image", *GOLDEN}


def test_operation__compiled_inside_tf_data():
    image = tf.constant(random_images(3, 16, 24))

    @tf.function(jit_compile=True)
    def all_of_them(image):
        return {key: operation(image) for key, operation in GOLDEN.items()}

    stream = tf.data.Dataset.from_tensors(image).map(all_of_them)
    for key, result in stream.get_single_element().items():
        expected = GOLDEN[key](image)
        np.testing.assert_allclose(result, expected, atol=2e-6, err_msg=key)


@pytest.mark.parametrize(
    "operation",
    [
        photometric.brightness,
        photometric.contrast,
        photometric.saturation,
        photometric.hue,
        lambda x, factor: photometric.blend(x, photometric.luma(x), factor),
        lambda x, factor: photometric.gaussian_blur(x, factor, 9),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "blend", "blur"],
)
def test_operation__one_factor_per_image(operation):
    images = random_images(4, 3, 16, 16)
    factors = np.array([0.3, 0.9, 1.3, 1.7], np.float32)
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
    for operation, factor, oracle in (
        (photometric.hue, 0.35, hue),
        (photometric.saturation, 1.6, saturation),
    ):
        result = on_pixels(operation)(image, factor)
        np.testing.assert_allclose(result, oracle, atol=2e-6)


@pytest.mark.parametrize("taps", [1, 3, 5, 9, 23])
def test_blur__numpy_oracle(taps):
    image, sigma = random_images(3, 12, 17), 1.3
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    margin = taps // 2
    oracle = np.pad(image, [(0, 0), (margin, margin), (margin, margin)])
    oracle = sum(w * oracle[:, i : i + 12] for i, w in enumerate(weights))
    oracle = sum(w * oracle[:, :, i : i + 17] for i, w in enumerate(weights))
    result = photometric.gaussian_blur(tf.constant(image), sigma, taps)
    np.testing.assert_allclose(result, oracle, atol=2e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("taps", [3, 9, 23])
def test_blur__reflects_as_scipy(taps, compiled):
    """SciPy's "mirror" repeats no pixel of the border, like torchvision's "reflect"."""
    image, sigma = random_images(3, 24, 17), 1.3
    weights = np.exp(-0.5 * ((np.arange(taps) - taps // 2) / sigma) ** 2)
    oracle = image.astype(np.float64)
    for axis in (1, 2):
        oracle = ndimage.correlate1d(
            oracle, weights / weights.sum(), axis=axis, mode="mirror"
        )
    blur = tf.function(photometric.gaussian_blur, jit_compile=compiled)
    found = blur(tf.constant(image), sigma, taps, "reflect")
    np.testing.assert_allclose(found, oracle, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_blur__corners_of_a_white_image(sigma):
    white = tf.ones([3, 12, 12])
    kept = photometric.gaussian_blur(white, sigma, 9, "reflect")
    np.testing.assert_allclose(kept, 1, atol=1e-6)
    # Of nine taps, the corner keeps the middle and one side, in both directions.
    weights = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    corner = (weights[4:].sum() / weights.sum()) ** 2
    dark = photometric.gaussian_blur(white, sigma, 9, "zeros")[0, 0, 0]
    np.testing.assert_allclose(dark, corner, atol=1e-6)
    assert sigma < 1 or corner == pytest.approx(0.36, abs=0.01)


def test_solarize__threshold_fires_on_unit_images():
    result = photometric.solarize(tf.constant([0.0, 0.49, 0.5, 1.0]))
    np.testing.assert_allclose(result, [0.0, 0.49, 0.5, 0.0])


def test_blend__numpy_oracle():
    image = random_images(6, 7, 3)
    gray = image @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    oracle = 0.3 * image + 0.7 * gray[..., None]
    result = on_pixels(lambda x: photometric.blend(x, photometric.luma(x), 0.3))(image)
    np.testing.assert_allclose(result, oracle, atol=1e-6)


@pytest.mark.parametrize("amount", [-0.8, -0.4, 0.4, 0.8])
@pytest.mark.parametrize(
    ("index", "enhance"),
    [
        (0, ImageEnhance.Brightness),
        (1, ImageEnhance.Contrast),
        (2, ImageEnhance.Color),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_jitter__blend_is_pillows(index, enhance, amount):
    """torchvision's jitter of a picture is Pillow's, which rounds to 256 levels.

    The image is coloured and unevenly lit, so that the anchors differ: the mean of its
    gray (110), of its values (97), and of each channel (59, 139, 94).
    """
    rng = np.random.default_rng(0)
    light = np.linspace(0.2, 1.8, 40)[:, None, None] * np.array([60, 140, 95])
    pixels = np.clip(light + rng.normal(0, 20, (40, 30, 3)), 0, 255).astype(np.uint8)
    expected = np.asarray(enhance(Image.fromarray(pixels)).enhance(1 + amount), float)
    amounts = [tf.constant([amount if i == index else 0.0]) for i in range(4)]
    found = 255 * on_pixels(
        lambda x: photometric.jitter(
            x, tf.constant([0]), *amounts, style="blend", choose=choice.select
        )
    )((pixels / 255).astype(np.float32)[None])
    # Pillow rounds its anchor and cuts the fraction of its result off.
    assert np.abs(found[0] - expected).max() < 1.0 + abs(amount)
    assert np.abs(found[0] - pixels).max() > 10


@pytest.mark.parametrize("way", ["select", "branch"])
def test_jitter__every_order_and_clipping_between(way):
    images = np.tile(random_images(1, 3, 4, 4), (24, 1, 1, 1))
    amounts = (0.4, -0.4, 0.9, 0.1)

    def jitter(images, orders, choose):
        filled = (tf.fill([len(images)], amount) for amount in amounts)
        return photometric.jitter(images, orders, *filled, style="hsv", choose=choose)

    if way == "select":
        result = jitter(tf.constant(images), tf.range(24), choice.select)
    else:
        result = [jitter(images[i : i + 1], [i], choice.branch)[0] for i in range(24)]
    single = (
        lambda x: photometric.brightness(x, 0.4),
        lambda x: photometric.contrast(x, 0.6),
        lambda x: photometric.saturation(x, 1.9),
        lambda x: photometric.hue(x, 0.1),
    )
    for row, order in enumerate(photometric.ORDERS):
        expected = images[row]
        for index in order:
            expected = np.clip(single[index](tf.constant(expected)), 0, 1)
        np.testing.assert_allclose(result[row], expected, atol=2e-6)
    assert len({np.asarray(r).tobytes() for r in result}) > 12


@pytest.mark.parametrize("style", photometric.JITTER_STYLES)
def test_jitter__zero_amounts_change_nothing(style):
    images = random_images(24, 3, 5, 5)
    result = photometric.jitter(
        tf.constant(images),
        tf.range(24),
        *[tf.zeros([24])] * 4,
        style=style,
        choose=choice.select,
    )
    np.testing.assert_allclose(result, images, atol=1e-6)
