"""The input of a run on an accelerator, cut off after each stage.

    echo | python -m tools.benchmark.inputs --stage=all --data_dir=FOLDER

Takes the flags of `tf_dpred.main`.
"""

from __future__ import annotations

import dataclasses

from absl import app, flags

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import Config
from tf_dpred.main import parse
from tf_dpred.system import devices
from tools.benchmark.clock import SECONDS
from tools.peers.serve import serve, steady_rate

STAGES = ("read", "decode", "crop", "photometric", "all")
STAGE = flags.DEFINE_enum("stage", "all", STAGES, "the last stage that is done")

BLUR_OFF = {"blur_probability": 0.0, "solarize_probability": 0.0}


def dataset(config: Config, stage: str):
    """Batches after a stage; after `read` and `decode`, of single images."""
    import tensorflow as tf

    from tf_dpred.data import datasets, image_files, pipeline
    from tf_dpred.data.views import ViewPair, view_pair

    data, training = config.data, config.training
    source = datasets.training_source(config)
    if stage in ("read", "decode"):
        files = source.examples(None).repeat().map(_encoded, tf.data.AUTOTUNE)
        if stage == "decode":
            # Only a pixel: batching images of different sizes would be more work.
            files = files.map(
                lambda encoded: image_files.decode_stored(encoded)[0, 0],
                tf.data.AUTOTUNE,
            )
        batches = files.batch(training.batch_size, drop_remainder=True)
        return batches.with_options(pipeline._options())
    pair = view_pair(data.views, data.view_strength)
    if stage == "photometric":
        pair = ViewPair(*(dataclasses.replace(spec, **BLUR_OFF) for spec in pair))
    return pipeline.training_views(
        source,
        pair,
        data.image_size,
        training.batch_size,
        seed=training.seed,
        distorted=stage != "crop",
    )


def _encoded(example):
    """The bytes of an example's image."""
    import tensorflow as tf

    return example["image"] if "image" in example else tf.io.read_file(example["file"])


def main(argv: list[str]) -> None:
    import tensorflow as tf

    # As in a run on an accelerator, though nothing here uses one.
    devices.one_thread_inside_operations()
    tf.config.set_visible_devices([], "GPU")
    config = tf_dpred_flags.config_from_flags()
    batches = iter(dataset(config, STAGE.value))
    for _ in range(3):
        next(batches)
    size = config.training.batch_size
    serve(
        lambda: {"images/s": steady_rate(lambda: next(batches), size, SECONDS.value)},
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
