"""Flip, colour and blur of crops that are in memory, in three ways, by one thread.

    echo | python -m tools.benchmark.views --views=byol --image_size=224

Takes the flags of `tf_dpred.main`.
"""

from __future__ import annotations

import os

# TensorFlow reads them when it is loaded.
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import numpy as np
from absl import app

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.main import parse
from tools.benchmark.clock import SECONDS
from tools.peers.serve import milliseconds, serve


def main(argv: list[str]) -> None:
    import tensorflow as tf

    from tf_dpred.data import pipeline, random_views, views

    data = tf_dpred_flags.config_from_flags().data
    pair = views.view_pair(data.views, data.view_strength)
    most = pipeline.CHUNK_IMAGES
    count = pipeline.chunk_size(most, data.image_size, most)
    shape = [count, data.image_size, data.image_size, 3]
    generator = np.random.default_rng(0)
    crops = tf.constant(generator.integers(0, 256, shape, dtype=np.uint8))
    draws = tf.constant(
        generator.random([count, random_views.NUM_DRAWS], dtype=np.float32)
    )

    calls = {}
    for name, spec in (("view 1", pair.first), ("view 2", pair.second)):

        def kernels(crops, draws, spec=spec):
            return random_views.distort(crops, draws, spec)

        calls[f"{name}, all operations, TensorFlow's kernels"] = tf.function(
            kernels, autograph=False
        )
        calls[f"{name}, all operations, compiled"] = random_views.distort_together(spec)
        calls[f"{name}, those drawn, compiled"] = random_views.distort_each(spec)
    for call in calls.values():
        call(crops, draws)

    def measure() -> dict[str, float]:
        return {
            name: milliseconds(
                lambda call=call: call(crops, draws).numpy(), SECONDS.value
            )
            / count
            for name, call in calls.items()
        }

    serve(measure)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
