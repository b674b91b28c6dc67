"""The random views against their specification, from outside."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tf_dpred.config import Config
from tf_dpred.data import photometric, random_views, views
from tf_dpred.data.views import ViewSpec, view_pair
from tf_dpred.errors import Refused

COUNT = 4000
NOTHING = ViewSpec(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    flip_probability=0.0,
    jitter_probability=0.0,
    grayscale_probability=0.0,
)
# Bluish, no two channels, columns or values alike, so that every operation shows.
MARK = np.array([[[20, 60, 130], [40, 90, 180]], [[10, 30, 50], [5, 70, 160]]]) / 255


def only(**changes) -> ViewSpec:
    return dataclasses.replace(NOTHING, **changes)


def distorted(image, spec, count=COUNT, seed=0):
    """`count` versions of one image in [0, 1] as integers, [count, H, W, 3]."""
    draws = tf.random.stateless_uniform([count, random_views.NUM_DRAWS], [seed, 1])
    crops = np.tile(np.rint(255 * image).astype(np.uint8), (count, 1, 1, 1))
    distort = random_views.distort(tf.constant(crops), draws, spec)
    return distort.numpy().astype(int)


def assert_frequency(happened, probability):
    """Two-sided binomial test at the fixed seed of the test."""
    test = stats.binomtest(int(happened.sum()), len(happened), probability)
    assert test.pvalue > 0.01, (happened.mean(), probability)


@pytest.mark.parametrize(
    ("name", "which", "expected"),
    [
        # BYOL, Table 6.
        ("byol", "first", (0.08, 1, "bicubic", 0.5, 0.4, 0.4, 0.2, 0.1, 0.2, 1.0, 0.0)),
        (
            "byol",
            "second",
            (0.08, 1, "bicubic", 0.5, 0.4, 0.4, 0.2, 0.1, 0.2, 0.1, 0.2),
        ),
        (
            "simclr",
            "first",
            (0.08, 1, "bicubic", 0.5, 0.8, 0.8, 0.8, 0.2, 0.2, 0.5, 0.0),
        ),
        # The DirectPred authors' recipes.
        (
            "stl10",
            "first",
            (0.08, 1, "bilinear", 0.5, 0.8, 0.8, 0.8, 0.2, 0.2, 1.0, 0.0),
        ),
        (
            "cifar",
            "first",
            (0.08, 1, "bilinear", 0.5, 0.4, 0.4, 0.4, 0.1, 0.2, 0.0, 0.0),
        ),
    ],
)
def test_view_pair__published_values(name, which, expected):
    spec = getattr(view_pair(name), which)
    assert (
        *spec.crop_scale,
        spec.interpolation,
        spec.flip_probability,
        spec.brightness,
        spec.contrast,
        spec.saturation,
        spec.hue,
        spec.grayscale_probability,
        spec.blur_probability,
        spec.solarize_probability,
    ) == expected
    assert spec.crop_ratio == (3 / 4, 4 / 3)
    assert spec.jitter_probability == 0.8
    assert spec.blur_sigma == (0.1, 2.0)


@pytest.mark.parametrize(
    ("name", "corner"),
    # Of nine taps with sigma 2, zeros outside leave the corner 36 %; BYOL's blur has 10
    # taps, made 9, at 96 pixels.
    [("stl10", 1.0), ("byol", 0.36)],
)
def test_distort__a_frame_only_where_the_recipe_has_one(name, corner):
    spec = dataclasses.replace(
        view_pair(name).first.without_colour(),
        blur_probability=1.0,
        blur_sigma=(2.0, 2.0),
    )
    found = distorted(np.ones((96, 96, 3)), spec, count=3) / 255
    np.testing.assert_allclose(found[:, 0, 0], corner, atol=0.01)
    np.testing.assert_allclose(found[:, 48, 48], 1.0, atol=0.01)


@pytest.mark.parametrize("name", [n for n in views.VIEWS if n != "byol"])
def test_view_pair__views_alike_except_byol(name):
    assert view_pair(name).first == view_pair(name).second


def test_view_pair__digits_are_never_mirrored():
    assert view_pair("digits").first.flip_probability == 0.0


def test_view_pair__strength_scales_simclr():
    view = view_pair("simclr", 0.5).first
    assert (view.brightness, view.contrast, view.saturation, view.hue) == (
        0.4,
        0.4,
        0.4,
        0.1,
    )


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("byl", 1.0, "--views: received 'byl', accepted: byol, simclr, simsiam, stl10"),
        ("byol", 0.5, "received 0.5, accepted: 1 unless --views=simclr"),
        ("simclr", -1.0, "--view_strength: received -1.0, accepted: at least 0"),
    ],
)
def test_view_pair__bad_arguments(name, strength, message):
    with pytest.raises(Refused, match=message) as error:
        view_pair(name, strength)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kernel", "size", "taps"), [(0.1, 224, 23), (9, 96, 9), (5, 32, 5), (0.1, 32, 3)]
)
def test_blur_taps__odd(kernel, size, taps):
    assert random_views.blur_taps(ViewSpec(blur_kernel=kernel), size) == taps


def test_distort__nothing():
    np.testing.assert_array_equal(
        distorted(MARK, NOTHING, 5), np.tile(np.rint(MARK * 255), (5, 1, 1, 1))
    )


@pytest.mark.parametrize(
    ("field", "probability"),
    [
        ("flip_probability", 0.5),
        ("jitter_probability", 0.8),
        ("grayscale_probability", 0.2),
        ("blur_probability", 0.1),
        ("solarize_probability", 0.2),
    ],
)
def test_distort__probability(field, probability):
    spec = only(**{field: probability}, blur_kernel=3, blur_sigma=(1.0, 2.0))
    results = distorted(MARK, spec)
    clean = np.rint(MARK * 255)
    mirrored, gray = clean[:, ::-1], results[..., 0] == results[..., 2]
    happened = {
        "flip_probability": (results == mirrored).all((1, 2, 3)),
        "grayscale_probability": gray.all((1, 2)),
    }.get(field, (results != clean).any((1, 2, 3)))
    assert_frequency(happened, probability)
    # Whatever was not chosen is untouched.
    np.testing.assert_array_equal(results[~happened] - clean, 0)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_distort__certain_probabilities(probability):
    results = distorted(MARK, only(solarize_probability=probability))
    solarized = (results != np.rint(MARK * 255)).any((1, 2, 3))
    assert solarized.mean() == probability


def test_distort__byol_probabilities_differ_between_views():
    pair = view_pair("byol")
    step = np.zeros((32, 32, 3))
    step[:, 16:] = 0.4
    for spec, blur in ((pair.first, 1.0), (pair.second, 0.1)):
        plain = dataclasses.replace(
            spec,
            jitter_probability=0.0,
            flip_probability=0.0,
            blur_sigma=(1.0, 2.0),
            solarize_probability=0.0,
        )
        results = distorted(step, plain, 2000)
        # A pixel beside the step and far from the borders.
        assert_frequency(results[:, 8, 15, 0] > 0, blur)


def test_distort__brightness_is_uniform_and_additive():
    spec = only(
        jitter_probability=1.0, brightness=0.4, contrast=0.0, saturation=0.0, hue=0.0
    )
    image = np.full((2, 2, 3), 0.5)
    shift = (distorted(image, spec)[:, 0, 0, 0] - 128) / 255
    assert stats.kstest(shift, "uniform", (-0.4, 0.8)).pvalue > 0.01


def test_distort__blend_brightness_is_a_uniform_factor():
    spec = only(
        jitter_probability=1.0,
        jitter_style="blend",
        brightness=0.8,
        contrast=0.0,
        saturation=0.0,
        hue=0.0,
    )
    image = np.full((2, 2, 3), 0.5)
    factor = distorted(image, spec)[:, 0, 0, 0] / 128
    assert stats.kstest(factor, "uniform", (0.2, 1.6)).pvalue > 0.01


def test_distort__contrast_is_uniform():
    spec = only(
        jitter_probability=1.0, brightness=0.0, contrast=0.4, saturation=0.0, hue=0.0
    )
    image = np.full((1, 2, 3), 0.2)
    image[0, 1] = 0.8
    results = distorted(image, spec)
    factor = (results[:, 0, 1, 0] - results[:, 0, 0, 0]) / 255 / 0.6
    assert stats.kstest(factor, "uniform", (0.6, 0.8)).pvalue > 0.01


def test_distort__sigma_is_uniform():
    spec = only(blur_probability=1.0, blur_kernel=9, blur_sigma=(0.5, 2.0))
    point = np.zeros((9, 9, 3))
    point[4, 4] = 1.0
    peak = distorted(point, spec)[:, 4, 4, 0] / 255
    sigmas = np.linspace(0.5, 2.0, 500)
    taps = np.arange(-4, 5)
    weights = np.exp(-0.5 * (taps / sigmas[:, None]) ** 2)
    peaks = (weights[:, 4] / weights.sum(1)) ** 2
    found = np.interp(-peak, -peaks, sigmas)
    # 8 bits resolve the small peaks of a large sigma badly: compare quantiles.
    quantiles = np.quantile(found, [0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(quantiles, 0.5 + 1.5 * np.arange(0.1, 1, 0.2), atol=0.05)


def test_distort__orders_are_equally_likely(monkeypatch):
    seen = []

    def spy(images, order, *amounts, style, choose):
        seen.append(order.numpy())
        return images

    monkeypatch.setattr(photometric, "jitter", spy)
    distorted(MARK, only(jitter_probability=1.0), 24 * 200)
    counts = np.bincount(seen[0], minlength=24)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("byol", "second"),  # uses every operation
        pytest.param("byol", "first", marks=pytest.mark.slow),
        *(  # whose two views are alike
            pytest.param(name, "first", marks=pytest.mark.slow)
            for name in views.VIEWS
            if name != "byol"
        ),
    ],
)
def test_distort__compiled_each_and_together(name, which):
    spec = getattr(view_pair(name), which)
    crops = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    draws = tf.random.stateless_uniform([24, random_views.NUM_DRAWS], [4, 1])
    eager = random_views.distort(tf.constant(crops), draws, spec).numpy()
    assert (eager != crops).any(axis=(1, 2, 3)).sum() > 12
    for compiled in (
        random_views.distort_each(spec),
        random_views.distort_together(spec),
    ):
        # One level: where float32 rounds differently the last bit may.
        found = compiled(tf.constant(crops), draws).numpy()
        np.testing.assert_allclose(found.astype(int), eager, atol=1)
        assert (found != eager).mean() < 1e-3


def augment(image, spec, size, seed):
    """One random view of one image, as the host makes it."""
    draws = tf.random.stateless_uniform([1, random_views.NUM_DRAWS], seed)
    crops = tf.stack(random_views.random_crops(image, [spec], size, draws))
    return random_views.distort_each(spec)(crops, draws)[0]


@pytest.mark.parametrize(
    "name",
    [
        "byol",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in views.VIEWS
            if name != "byol"
        ),
    ],
)
def test_augment__depends_on_the_seed_alone(name):
    pair = view_pair(name)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)

    def view(seed):
        return augment(tf.constant(image), pair.first, 32, seed)

    first = view([1, 2])
    tf.random.set_seed(5)
    assert first.dtype == tf.uint8 and first.shape == (32, 32, 3)
    np.testing.assert_array_equal(first, view([1, 2]))
    assert (first.numpy() != view([1, 3]).numpy()).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", views.VIEWS)
def test_augment__same_inside_tf_data(name):
    pair = view_pair(name)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)

    def view(index):
        return augment(tf.constant(image), pair.second, 32, tf.stack([index, 9]))

    stream = tf.data.Dataset.range(6).map(view)
    for index, graph in enumerate(stream):
        eager = view(tf.constant(index, tf.int64))
        # One level: where float32 rounds differently the last bit may.
        np.testing.assert_allclose(graph.numpy().astype(int), eager, atol=1)


def test_augment__crops_at_random():
    image = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3))
    spec = only(crop_scale=(0.25, 0.25), interpolation="bilinear")

    def left(index):
        view = augment(tf.constant(image), spec, 16, tf.stack([index, 3]))
        return tf.cast(view[0, 0, 0], tf.int32)

    lefts = np.array(list(tf.data.Dataset.range(1000).map(left).as_numpy_iterator()))
    # Crops are 128 wide: their left side is uniform in 0..128 (the pixel adds 3.5).
    assert stats.kstest(lefts, "uniform", (3.5, 129)).pvalue > 0.01


def turned(spec, count=COUNT):
    """Which of the 8 symmetries each crop of a 2 x 2 image got, [count]."""
    image = np.array([[[10], [20]], [[30], [40]]], np.uint8).repeat(3, axis=-1)
    draws = tf.random.stateless_uniform([count, random_views.NUM_DRAWS], [0, 1])

    def crop(its_draws):
        return random_views.random_crops(
            tf.constant(image), [spec], 2, its_draws[None]
        )[0]

    found = tf.data.Dataset.from_tensor_slices(draws).map(crop).batch(count)
    found = next(iter(found)).numpy()[..., 0]
    ups = (image[..., 0], image[::-1, :, 0])
    sides = [np.rot90(up, quarters) for up in ups for quarters in range(4)]
    return np.argmax([(found == side).all((1, 2)) for side in sides], axis=0)


def test_random_crops__turns_and_flips():
    assert not turned(only()).any()
    flipped = turned(only(vertical_flip_probability=0.3))
    assert set(flipped) == {0, 4}
    assert_frequency(flipped == 4, 0.3)
    quarter = turned(only(rotate90_probability=1.0))
    for number in range(4):
        assert_frequency(quarter == number, 0.25)
    both = turned(only(vertical_flip_probability=0.5, rotate90_probability=0.4))
    # Turned by 0 too, and the flip is drawn by itself.
    assert_frequency(np.isin(both, (0, 4)), 0.7)
    assert_frequency(both >= 4, 0.5)
    assert_frequency(both == 5, 0.5 * 0.1)


def test_random_crops__turns_leave_the_rest_of_a_view_alone():
    """The bits that decide a turn are none that decide a flip or a jitter."""
    draws = tf.random.stateless_uniform([COUNT, random_views.NUM_DRAWS], [0, 1])
    first = draws[:, random_views.image_ops.CROP_DRAWS :].numpy()
    last = np.modf(first * 4096)[0]
    assert stats.kstest(last.ravel(), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef(first.T, last.T)[:11, 11:]).max() < 0.06


CHANGES = {
    "crop_scale": "0.2,1",
    "crop_ratio": "1,2",
    "interpolation": "bilinear",
    "flip": 0.0,
    "vertical_flip": 0.5,
    "rotate90": 0.25,
    "rotate": 15.0,
    "jitter": "0.1,0.2,0.3,0.05",
    "jitter_probability": 0.7,
    "jitter_style": "blend",
    "gray": 0.1,
    "blur": 0.6,
    "blur_sigma": "0.5,1",
    "solarize": 0.4,
}
CHANGED = ViewSpec(
    crop_scale=(0.2, 1.0),
    crop_ratio=(1.0, 2.0),
    interpolation="bilinear",
    flip_probability=0.0,
    vertical_flip_probability=0.5,
    rotate90_probability=0.25,
    rotation=15.0,
    jitter_probability=0.7,
    brightness=0.1,
    contrast=0.2,
    saturation=0.3,
    hue=0.05,
    jitter_style="blend",
    grayscale_probability=0.1,
    blur_probability=0.6,
    blur_sigma=(0.5, 1.0),
    solarize_probability=0.4,
)


def test_of_config__every_setting_of_both_views_and_of_the_second():
    byol = view_pair("byol")
    both = views.of_config(Config.from_dict({"views": "byol", **CHANGES}))
    assert both == (CHANGED, CHANGED)
    second = {f"view2_{name}": value for name, value in CHANGES.items()}
    config = Config.from_dict({"views": "byol", **second})
    assert views.of_config(config) == (byol.first, CHANGED)
    # The second one's own wins over that of both.
    mixed = Config.from_dict({"views": "byol", "blur": 0.3, "view2_blur": 0.2})
    found = views.of_config(mixed)
    assert (found.first.blur_probability, found.second.blur_probability) == (0.3, 0.2)
    assert found.second.solarize_probability == 0.2  # as byol has it


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("crop_scale", "0.2", "2 numbers from 0.0001 to 1, with commas"),
        ("crop_scale", "1,0.2", "the first not above the second"),
        ("crop_scale", "0,1", "2 numbers from 0.0001 to 1"),
        ("view2_jitter", "0.4,0.4,0.4", "4 numbers from 0 to 2"),
        ("blur_sigma", "a,b", "2 numbers from 0.01 to 100"),
        ("blur_sigma", "nan,1", "2 numbers from 0.01 to 100"),
        ("flip", 1.5, "at least 0.0 and at most 1.0"),
        ("rotate", 200.0, "at least 0.0 and at most 180.0"),
        ("mean", "0.5", "3 numbers, one for each of --channels"),
        ("std", "0,0,0", "numbers from 0.001 to 1"),
    ],
)
def test_of_config__refused(name, value, accepted):
    with pytest.raises(Refused) as refusal:
        Config.from_dict({name: value})
    assert str(refusal.value).startswith(f"--{name}: received {value!r}, accepted: ")
    assert accepted in str(refusal.value)
