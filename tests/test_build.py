"""From a Config to the parts of a run."""

import pytest

from tf_dpred import build
from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.callbacks.json_lines import EpochLog
from tf_dpred.callbacks.preemption import Preemption
from tf_dpred.callbacks.target_ema import TargetEMA
from tf_dpred.config import Config
from tf_dpred.records.workdir import Workdir


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
