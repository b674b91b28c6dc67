"""Feature extraction beside the forward pass alone; kNN of fixed sizes.

    echo | python -m tools.benchmark.evaluation --backbone=resnet18

Takes the flags of `tf_dpred.main`. The images are in memory, so none is decoded.
"""

from __future__ import annotations

import time

import numpy as np
from absl import app, flags

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.main import parse
from tools.benchmark.clock import SECONDS
from tools.peers.serve import rate, serve

KNN = flags.DEFINE_list("knn", ["50000", "10000", "512"], "bank, queries, dimensions")
BATCH = 256


def main(argv: list[str]) -> None:
    import tensorflow as tf

    from tf_dpred.data import pipeline
    from tf_dpred.data.preprocessing import Preprocessing
    from tf_dpred.data.source import from_arrays
    from tf_dpred.evaluation import knn
    from tf_dpred.evaluation.features import FeatureExtractor
    from tf_dpred.networks import backbones, encoder
    from tf_dpred.system import devices

    config = tf_dpred_flags.config_from_flags()
    devices.setup(config.training)
    size = config.data.image_size
    preprocessing = Preprocessing.of(config)
    backbone = backbones.backbone(config.network, size)
    network = encoder.network(
        backbone, config.network, preprocessing.mean, preprocessing.std, "online"
    )
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, [4 * BATCH, size, size, 3], dtype=np.uint8)
    clean = pipeline.evaluation_images(from_arrays(images), preprocessing, size, BATCH)
    extract = FeatureExtractor(network)
    forward = tf.function(lambda x: network(x, training=False)[0])
    batch = tf.constant(images[:BATCH])

    bank_size, queries_size, r = map(int, KNN.value)
    bank = generator.normal(size=(bank_size, r)).astype(np.float32)
    queries = generator.normal(size=(queries_size, r)).astype(np.float32)
    labels = generator.integers(0, 1000, bank_size)

    extract(clean), forward(batch)

    def measure() -> dict[str, float]:
        found = {
            "features": rate(lambda: extract(clean), len(images), SECONDS.value),
            "forward": rate(lambda: forward(batch).numpy(), BATCH, SECONDS.value),
        }
        start = time.perf_counter()
        knn.predict(bank, labels, queries, k=200, temperature=0.1, num_classes=1000)
        return found | {"knn s": time.perf_counter() - start}

    serve(measure)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
