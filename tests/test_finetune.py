"""Training on few labels."""

import keras
import numpy as np
import pytest

from tf_dpred.data import pipeline
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.data.source import from_arrays
from tf_dpred.data.views import view_pair
from tf_dpred.errors import Refused
from tf_dpred.evaluation import finetune
from tf_dpred.networks.normalization import BatchNormalization


def striped(count, seed=0):
    """Two classes: bright on the left half, or bright at the top."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = generator.integers(0, 60, (count, 8, 8, 3)).astype(np.uint8)
    images[labels == 0, :, :4] += 150
    images[labels == 1, :4] += 150
    return from_arrays(images, labels)


def encoder(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, padding="same"),
            BatchNormalization(name="bn"),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
        ]
    )


OPTIONS = {"epochs": 6, "batch_size": 16, "seed": 0}
PAIR, CLEAN = view_pair("digits"), Preprocessing.of_views("digits")


def test_train__learns_and_moves_everything():
    network, source = encoder(), striped(64)
    before = [v.numpy() for v in network.variables]
    model = finetune.train(network, source, PAIR, rate=0.4, **OPTIONS)
    test = pipeline.evaluation_images(striped(40, seed=1), CLEAN, 8, 16)
    top1, top5 = finetune.accuracy(model, test)
    assert top1 > 0.9
    assert top5 == 1.0  # two classes
    for old, variable in zip(before, network.variables, strict=True):
        assert np.any(old != variable.numpy()), variable.path


def test_train__a_seed_is_a_run():
    def weights(seed):
        options = OPTIONS | {"epochs": 1, "seed": seed}
        model = finetune.train(encoder(), striped(32), PAIR, rate=0.1, **options)
        return model.get_weights()

    first, again, other = weights(0), weights(0), weights(1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(first, other, strict=True))


def test_choose_rate__by_held_out_images(monkeypatch):
    sizes = []

    def train(network, source, pair, *, rate, **options):
        sizes.append(source.num_examples)
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
        model.rate = rate
        return model

    def accuracy(model, dataset):
        held = sum(len(labels) for _, labels in dataset)
        assert held == 12
        return {0.02: 0.5, 0.1: 0.75, 0.4: 0.75}[model.rate], 1.0

    monkeypatch.setattr(finetune, "train", train)
    monkeypatch.setattr(finetune, "accuracy", accuracy)
    chosen = finetune.choose_rate(encoder, striped(60), PAIR, CLEAN, **OPTIONS)
    assert chosen == 0.1
    assert sizes == [48] * 3


def test_choose_rate__one_image_a_class():
    with pytest.raises(Refused, match="--eval_lr: received None with 2 labelled"):
        finetune.choose_rate(encoder, striped(2), PAIR, CLEAN, **OPTIONS)
