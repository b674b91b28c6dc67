"""The training step of a run, with the same batch every time.

    echo | python -m tools.benchmark.step --backbone=resnet18 --batch_size=64

Takes the flags of `tf_dpred.main`.
"""

from __future__ import annotations

import numpy as np
from absl import app

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import Config
from tf_dpred.main import parse
from tools.benchmark.clock import SECONDS
from tools.peers.serve import rate, serve


def model_and_batch(config: Config):
    """The compiled model of a run, with its EMA, and a batch of noise.

    Two views; with `--augment_on=device` two crops and their draws.
    """
    import tensorflow as tf

    from tf_dpred import build, schedules
    from tf_dpred.callbacks.target_ema import TargetEMA
    from tf_dpred.data.random_views import NUM_DRAWS
    from tf_dpred.data.views import view_pair
    from tf_dpred.system import devices

    strategy = devices.setup(config.training)
    with strategy.scope():
        model = build.model(config, 1000, view_pair(config.data.views))
    if model.has_separate_target:
        objective = config.objective
        schedule = schedules.ema_momentum(
            objective.tau_schedule, objective.tau_base, 1000
        )
        TargetEMA(schedule).set_model(model)
    size = config.data.image_size
    shape = [2, config.training.batch_size, size, size, 3]
    generator = np.random.default_rng(0)
    batch = [*generator.integers(0, 256, shape, dtype=np.uint8)]
    if not config.data.on_host:
        batch += [*generator.random((2, shape[1], NUM_DRAWS), dtype=np.float32)]
    return strategy, model, tuple(tf.constant(tensor) for tensor in batch)


def main(argv: list[str]) -> None:
    import tensorflow as tf

    config = tf_dpred_flags.config_from_flags()
    strategy, model, batch = model_and_batch(config)
    model.make_train_function()
    same = tf.data.Dataset.from_tensors(batch).repeat()
    same = iter(strategy.experimental_distribute_dataset(same))

    def step() -> None:
        float(model.train_function(same)["loss"])  # waits for the device

    step(), step()
    size = config.training.batch_size * config.training.steps_per_execution
    serve(
        lambda: {"images/s": rate(step, size, SECONDS.value)},
        batch=config.training.batch_size,
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
