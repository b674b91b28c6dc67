"""How long a step of a run waits for a checkpoint.

    echo | python -m tools.benchmark.checkpoint --backbone=resnet18 --batch_size=64

Takes the flags of `tf_dpred.main`. Writes to the current directory's file system.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from absl import app

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.main import parse
from tools.benchmark.step import model_and_batch
from tools.peers.serve import serve


def main(argv: list[str]) -> None:
    from tf_dpred.callbacks.checkpointing import Checkpointing

    config = tf_dpred_flags.config_from_flags()
    _, model, _ = model_and_batch(config)
    with tempfile.TemporaryDirectory(dir=".") as directory:
        saver = Checkpointing(model, Path(directory), steps_per_epoch=1000)

        def measure() -> dict[str, float]:
            model.optimizer.iterations.assign_add(1)
            start = time.perf_counter()
            saver.save()
            seconds = time.perf_counter() - start
            size = max(path.stat().st_size for path in Path(directory).iterdir())
            batch = config.training.batch_size
            return {"s": seconds, "MB": size / 1e6, "batch": batch}

        measure()
        serve(measure)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
