"""JPEG files to measure the input with, where none are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

COUNT, HEIGHT, WIDTH = 128, 375, 500


def write(folder: Path) -> None:
    """Writes `COUNT` made-up photographs of ImageNet's usual size.

    Smooth surfaces, edges and noise, such that a file has about the bytes of a
    photograph (100 KB); decoding time depends on them.
    """
    import tensorflow as tf

    generator = np.random.default_rng(0)
    for index in range(COUNT):
        coarse = generator.uniform(0, 255, [1, 12, 16, 3])
        surfaces = tf.image.resize(coarse, [HEIGHT, WIDTH], "bicubic")[0].numpy()
        edges = tf.image.resize(
            generator.choice([-40.0, 40.0], [1, 24, 32, 1]), [HEIGHT, WIDTH], "nearest"
        )[0].numpy()
        noise = generator.normal(0, 14, [HEIGHT, WIDTH, 1])
        pixels = np.clip(surfaces + edges + noise, 0, 255).astype(np.uint8)
        encoded = tf.io.encode_jpeg(pixels, quality=90).numpy()
        (folder / f"{index:03}.jpg").write_bytes(encoded)
