"""`make bench`: images/s of the input and of the training step, cost of a checkpoint.

    python tools/benchmark.py
    python tools/benchmark.py --flagfile=configs/imagenet.cfg --data_dir=DIR

Takes the flags of `tf_dpred.main`. The slower of the two numbers is what a run gets at
best; where both share the same cores, as on a CPU, it gets less. A checkpoint is
compared with 100 steps of the same process.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from absl import app, flags

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.main import parse

SECONDS = flags.DEFINE_float("seconds", 10.0, "how long to measure each part")


def rate(step, batch_size: int, seconds: float) -> float:
    """Images per second of `step()`, after two calls to warm up."""
    step(), step()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        calls += 1
    return calls * batch_size / (time.perf_counter() - start)


def main(argv: list[str]) -> None:
    import tensorflow as tf

    from tf_dpred import runtime, train
    from tf_dpred.callbacks.checkpoint import Checkpoints
    from tf_dpred.data import pipeline
    from tf_dpred.data.views import view_pair

    config = tf_dpred_flags.config_from_flags()
    data, training = config.data, config.training
    strategy = runtime.setup(training)
    source, pair = train.training_source(config), view_pair(data.views)
    views = pipeline.training_views(
        source, pair, data.image_size, training.batch_size, seed=training.seed
    )
    batches = iter(views)
    input_rate = rate(lambda: next(batches), training.batch_size, SECONDS.value)

    steps = pipeline.steps_per_epoch(source, training.batch_size)
    with strategy.scope():
        model = train.build_model(config, steps, pair)
    if model.has_separate_target:
        model.install_target_update(lambda step: None)
    model.make_train_function()
    same = tf.data.Dataset.from_tensors(next(batches)).repeat()
    same = iter(strategy.experimental_distribute_dataset(same))

    def step() -> None:
        float(model.train_function(same)["loss"])  # waits for the device

    step_rate = rate(step, training.batch_size, SECONDS.value)
    print(
        f"{data.dataset}, {config.network.backbone} x {config.network.width:g}, "
        f"{data.image_size} pixels, batch {training.batch_size}, {training.precision}"
    )
    print(f"input only  {input_rate:8.1f} images/s")
    print(f"step only   {step_rate:8.1f} images/s")
    with tempfile.TemporaryDirectory(dir=".") as directory:
        saver = Checkpoints(model, Path(directory), steps_per_epoch=steps)
        seconds = []
        for _ in range(5):
            step()
            start = time.perf_counter()
            saver.save()
            seconds.append(time.perf_counter() - start)
        size = max(path.stat().st_size for path in Path(directory).iterdir())
    median = sorted(seconds)[2]
    share = median / (100 * training.batch_size / step_rate)
    print(
        f"checkpoint  {median:8.2f} s, {size / 1e6:.0f} MB: {share:.2%} of the time if "
        "written every 100 steps"
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
