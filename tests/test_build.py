"""From a Config to the parts of a run."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import build
from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.callbacks.json_lines import EpochLog
from tf_dpred.callbacks.preemption import Preemption
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config
from tf_dpred.data.views import view_pair
from tf_dpred.errors import Refused
from tf_dpred.networks.encoder import weights_by_layer
from tf_dpred.records.workdir import Workdir

SMALL = {"width": 1 / 16, "image_size": 16, "projector_dim": 8, "projector_hidden": 8}


@pytest.mark.parametrize("warmup_epochs", [0.99, 0.999, 1.999])
def test_learning_rate__a_warm_up_that_rounds_to_the_whole_run(warmup_epochs):
    """Of 2 x 3 steps the last one has the peak, or is already below it."""
    values = {"warmup_epochs": warmup_epochs, "epochs": 2, "lr_schedule": "cosine"}
    config = Config.from_dict({**values, "base_lr": 1.0, "batch_size": 256})
    rate = build.learning_rate(config, 3)
    assert float(rate(0)) == 0.0
    assert max(float(rate(step)) for step in range(6)) == pytest.approx(1.0)


def test_callbacks__their_order(tmp_path):
    """Those that add to the logs, the user's, those that show, those that save."""
    import keras
    import toys

    model = toys.compiled()
    extra = keras.callbacks.Callback()
    found = build.callbacks(
        Config(), Workdir(tmp_path), model, None, 5, extra=[extra]
    ).in_order
    assert isinstance(found[0], TargetEMA)
    assert [type(c) for c in found[-3:]] == [EpochLog, Checkpointing, Preemption]
    place = list(found).index(extra)
    assert [type(c).__name__ for c in found[:place]] == ["TargetEMA", "StopOnNonFinite"]
    assert [type(c).__name__ for c in found[place + 1 : -3]] == [
        "CollapseWarning",
        "Progress",
        "TensorBoard",
        "TheoryMonitor",
        "Pictures",
    ]


def test_callbacks__a_worker_that_is_not_the_chief_shows_nothing(tmp_path):
    import toys

    found = build.callbacks(
        Config(), Workdir(tmp_path), toys.compiled(), None, 5, is_chief=False
    )
    names = [type(c).__name__ for c in found.in_order]
    assert names[2:] == ["EpochLog", "Checkpointing", "Preemption"]
    assert found.theory is None


def test_model__a_warm_start_has_rates_by_stage():
    config = Config.from_dict(
        {
            **SMALL,
            "layer_lr_decay": 0.5,
            "projector_only_epochs": 2,
            "base_lr": 0.64,
            "batch_size": 100,
        }
    )
    model = build.model(config, 10, view_pair("digits"))
    weights = weights_by_layer(*model.online.layers)
    index = {id(v): i for i, v in enumerate(model.learned_variables)}
    optimizer = model.optimizer

    def rate(layer, variable, step):
        own = optimizer._rates[index[id(weights[layer, variable])]]
        return 0.25 if own is None else float(own(step))

    assert rate("projector_dense1", "kernel", 0) == 0.25
    for layer, expected in {
        "stage4_block2_conv1": 0.125,
        "stage4_block2_conv1_bn": 0.125,
        "stage1_block1_conv1": 0.25 / 16,
        "stem": 0.25 / 32,
    }.items():
        variable = "gamma" if layer.endswith("_bn") else "kernel"
        assert rate(layer, variable, 19) == 0
        assert rate(layer, variable, 20) == pytest.approx(expected, rel=1e-6)


def test_model__frozen_layers_stay_in_both_networks():
    config = Config.from_dict({**SMALL, "freeze": "stem,stage1"})
    model = build.model(config, 10, view_pair("digits"))
    networks = (model.online, model.target)
    before = [weights_by_layer(*network.layers) for network in networks]
    before = [{key: w.numpy() for key, w in found.items()} for found in before]
    views = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    pairs = tf.data.Dataset.from_tensors(tuple(views))
    model.fit(pairs, epochs=2, verbose=0, callbacks=[TargetEMA(0.5)])
    for network, old in zip(networks, before, strict=True):
        new = weights_by_layer(*network.layers)
        same = {key for key in new if np.array_equal(new[key].numpy(), old[key])}
        assert same == {key for key in new if key[0].startswith(("stem", "stage1_"))}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"freeze": "stem,stage9"}, "--freeze: received 'stem,stage9' with 'stage9', "),
        ({"layer_lr_decay": 0.5, "optimizer": "adamw"}, "--optimizer: received 'ada"),
    ],
)
def test_model__warm_start_refused(given, message):
    with pytest.raises(Refused, match=f"^{re.escape(message)}"):
        build.model(Config.from_dict({**SMALL, **given}), 10, view_pair("digits"))
