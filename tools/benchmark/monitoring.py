"""What it costs to write down what a run does: seconds of each kind of record.

    echo | python -m tools.benchmark.monitoring --backbone=resnet18 --batch_size=64

Takes the flags of `tf_dpred.main`. Features are of the size that the kNN monitor hands
on; computing them is the evaluation's cost.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from absl import app

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.main import parse
from tools.benchmark.clock import SECONDS
from tools.benchmark.step import model_and_batch
from tools.peers.serve import milliseconds, serve

BANK, TEST, CLASSES = 20_000, 5_000, 10


class Features:
    """Stands in for the kNN monitor after an evaluation."""

    def __init__(self, size: int, width: int):
        import tensorflow as tf

        generator = np.random.default_rng(0)

        def images(count: int) -> tf.data.Dataset:
            shape = [count, size, size, 3]
            pixels = generator.integers(0, 256, shape, dtype=np.uint8)
            labels = generator.integers(0, CLASSES, count)
            return tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(256)

        def features(count: int) -> tuple[np.ndarray, np.ndarray]:
            values = generator.normal(size=(count, width)).astype(np.float32)
            return values, generator.integers(0, CLASSES, count)

        self.bank, self.test = images(2_048), images(1_000)
        self.features = {"bank": features(BANK), "test": features(TEST)}


def random_views(size: int):
    """As many views as the monitor measures."""
    from tf_dpred.evaluation.views import IMAGES, HeldOutViews

    shape = (2, IMAGES, size, size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return HeldOutViews(*pixels, held_out=True)


def main(argv: list[str]) -> None:
    from tf_dpred.callbacks.pictures import Pictures
    from tf_dpred.callbacks.quality_monitor import QualityMonitor
    from tf_dpred.callbacks.tensorboard import TensorBoard
    from tf_dpred.callbacks.theory_monitor import TheoryMonitor

    config = tf_dpred_flags.config_from_flags()
    _, model, batch = model_and_batch(config)
    model.train_step(batch)
    directory = tempfile.TemporaryDirectory()
    board = TensorBoard(directory.name, config.training.batch_size, 1)
    theory = TheoryMonitor(Path(directory.name) / "theory.jsonl", 1, board)
    knn = Features(config.data.image_size, model.online.output_shape[0][-1])
    drawn = np.zeros((400, 400, 3), np.uint8)
    pictures = Pictures(board, lambda: drawn, knn, 1)
    quality = QualityMonitor(lambda: random_views(config.data.image_size), 1, 1)
    for callback in (board, theory, pictures, quality):
        callback.set_model(model)
    logs = {"loss": -1.0, "feature_std": 0.5, "tau": 0.99}

    def point() -> None:
        board.scalars({f"train/{i}": value for i, value in enumerate(logs.values())})
        board.scalars({"schedule/learning_rate": 0.1, "speed/images_per_second": 1.0})

    calls = {
        "curves": point,
        "spectra": lambda: theory.measure(model.steps_done, logs),
        "pictures": pictures._draw_features,
        "label-free measures": lambda: quality._measure(0, {}),
    }
    for call in calls.values():
        call()
    serve(lambda: {k: milliseconds(call, SECONDS.value) for k, call in calls.items()})
    directory.cleanup()


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
