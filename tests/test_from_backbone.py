"""A model of a user's own backbone: its arguments, precision, shapes and copies."""

import copy
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import toys
from keras import layers

from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.data.device_views import ViewsFromCrops
from tf_dpred.data.random_views import NUM_DRAWS
from tf_dpred.data.views import view_pair
from tf_dpred.model import DirectPred
from tf_dpred.optimizers import SGD
from tf_dpred.predictors import Direct

VIEWS = np.random.default_rng(0).uniform(0, 255, (2, 8, 6, 6, 3)).astype(np.float32)


def backbone(channels=3, dtype=None):
    return keras.Sequential(
        [keras.Input((6, 6, channels)), layers.Conv2D(4, 3, dtype=dtype)]
    )


def model(made=None, **kwargs):
    kwargs = {"projector": (4,), "normalize": ([0.5] * 3, [0.25] * 3), **kwargs}
    return DirectPred.from_backbone(made or backbone(), **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"projector": 128}, "Invalid projector: received 128, accepted"),
        ({"projector": ("a",)}, "Invalid projector: received ('a',), accepted"),
        ({"projector": (8, 2.5)}, "Invalid projector: received (8, 2.5), accepted"),
        ({"predictor": Direct}, "Invalid predictor: received <class"),
        ({"predictor": None}, "Invalid predictor: received None, accepted"),
        ({"normalize": (0.5, 0.25)}, "of 3 channels each"),
        ({"normalize": 0.5}, "of 3 channels each"),
        ({"normalize": "imagenet"}, "Invalid normalize: received 'imagenet'"),
        ({"normalize": ([0.5] * 3, [0.0] * 3)}, "std above 0"),
        ({"normalize": ([0.5] * 3, [0.25] * 2)}, "of 3 channels each"),
        ({"normalize": ([np.nan] * 3, [0.25] * 3)}, "of 3 channels each"),
        # Broadcasting made three channels of one, which no layer noticed.
        ({"made": backbone(1)}, "accepted: (mean, std), of 1 channels each"),
    ],
)
def test_from_backbone__an_argument_of_another_kind(kwargs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**kwargs)


@pytest.mark.parametrize("schedule", ["cosine", None, [0.9], 1.5, float("nan")])
def test_target_ema__no_momentum(schedule):
    with pytest.raises(ValueError, match=r"received .*accepted: .*\[0, 1\]"):
        TargetEMA(schedule)


@pytest.mark.parametrize(
    ("dtype", "scales"), [("mixed_float16", True), ("mixed_bfloat16", False)]
)
def test_from_backbone__precision_of_the_backbone_alone(dtype, scales, tmp_path):
    """Gradients pass through float16 there, and would vanish without a scale."""
    made = model(backbone(dtype=dtype))
    made.compile(SGD(0.1), run_eagerly=True)
    made.fit(*VIEWS, verbose=0, callbacks=[TargetEMA(0.9)])
    assert (made.loss_scale is not None) == scales
    made.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for name, value in toys.state_of(made).items():
        np.testing.assert_array_equal(toys.state_of(loaded)[name], value)


def test_model__shapes_and_names_of_its_numbers():
    made = model()
    assert (made.input_shape, made.output_shape) == ((None, 6, 6, 3), (None, 4))
    made.compile(SGD(0.1), run_eagerly=True)
    named = made.evaluate(*VIEWS, verbose=0, return_dict=True)
    in_order = made.evaluate(*VIEWS, verbose=0)
    assert dict(zip(made.metrics_names, in_order, strict=True)) == named


@pytest.mark.parametrize("number", [8, None])
def test_fit__a_batch_that_is_no_multiple_of_its_micro_batches(number):
    made = model(accumulation_steps=3)
    made.compile(SGD(0.1))
    data = tf.data.Dataset.from_tensor_slices(tuple(VIEWS))
    data = data.batch(8, drop_remainder=number is not None)
    errors = (ValueError, tf.errors.InvalidArgumentError)
    with pytest.raises(errors, match=r"A batch: .*accumulation_steps=3") as raised:
        made.fit(data, verbose=0, callbacks=[TargetEMA(0.9)])
    assert "8" in str(raised.value)


def test_save__views_made_on_the_device(tmp_path):
    """As of `--augment_on=device`: copied, saved and loaded without other code."""
    made = model(make_views=ViewsFromCrops(view_pair("cifar")))
    made.save(tmp_path / "m.keras")
    crops = tf.cast(VIEWS, tf.uint8)
    draws = tf.random.stateless_uniform([2, 8, NUM_DRAWS], [0, 0])
    expected = made.make_views(*crops, *draws)
    for other in (
        keras.saving.load_model(tmp_path / "m.keras"),
        keras.models.clone_model(made),
        copy.deepcopy(made),
    ):
        assert other.make_views.pair == view_pair("cifar")
        for view, same in zip(expected, other.make_views(*crops, *draws), strict=True):
            np.testing.assert_array_equal(view, same)


def outputs(make):
    images = keras.Input((6, 6, 3))
    return keras.Model(images, make(layers.Flatten()(images)))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"online": backbone()}, "Invalid online: received outputs of shape [(None, 4"),
        ({"online": None}, "Invalid online: received None"),
        ({"target": backbone()}, "Invalid target: received outputs of shape"),
        (
            {"target": model(projector=(5,)).online},
            "Invalid target: received weights of other shapes than online has",
        ),
        (
            {"predictor": model(projector=(5,)).predictor},
            "received one for projections of 5, accepted: a new one, or one for 4.",
        ),
    ],
)
def test_init__parts_that_do_not_fit(parts, message):
    made = model()
    parts = {"online": made.online, "target": None, "predictor": Direct(), **parts}
    with pytest.raises(ValueError, match=re.escape(message)):
        DirectPred(**parts)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            keras.Model(
                both := [keras.Input((6, 6, 3)), keras.Input((6, 6, 3))],
                layers.Add()(both),
            ),
            "with inputs of shape .*accepted: one input",
        ),
        (
            outputs(lambda x: {"a": x}),
            r"by name, \['a'\], accepted: one output",
        ),
        (outputs(lambda x: [x, x]), "accepted: one output"),
    ],
)
def test_from_backbone__several_inputs_or_outputs(made, message):
    with pytest.raises(ValueError, match=message):
        model(made)
