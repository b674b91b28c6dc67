"""BYOL's two views by NVIDIA DALI on the CPU.

    echo | python tools/peers/dali_views.py --data_dir=FOLDER

DALI applies an operation to all images of a batch or to none, so the probabilities are
those of its strength: a blur or jitter that is not drawn is computed with a strength
that changes nothing. Needs nvidia-dali.
"""

from __future__ import annotations

import argparse

import nvidia.dali
from nvidia.dali import fn, pipeline_def, types
from serve import serve, steady_rate
from views import arguments, files


def drawn(probability: float):
    """1 or 0, for each image."""
    return fn.cast(fn.random.coin_flip(probability=probability), dtype=types.FLOAT)


def strength(amount: float, apply):
    """1 +- amount where it applies, else 1."""
    return 1.0 + apply * fn.random.uniform(range=(-amount, amount))


def view(images, given: argparse.Namespace, blur: float, solarize: float):
    """One view of decoded images."""
    size = given.image_size
    x = fn.random_resized_crop(
        images,
        size=(size, size),
        random_area=(0.08, 1.0),
        interp_type=types.INTERP_CUBIC,
        antialias=False,
    )
    if given.views == "crop":
        return x
    x = fn.flip(x, horizontal=fn.random.coin_flip())
    jitter, gray = drawn(0.8), drawn(0.2)
    x = fn.color_twist(
        x,
        brightness=strength(0.4, jitter),
        contrast=strength(0.4, jitter),
        saturation=strength(0.2, jitter) * (1.0 - gray),
        hue=jitter * fn.random.uniform(range=(-36.0, 36.0)),
    )
    taps = 2 * int(size / 20) + 1
    sigma = 0.01 + drawn(blur) * fn.random.uniform(range=(0.1, 2.0))
    x = fn.gaussian_blur(x, window_size=taps, sigma=sigma)
    if not solarize:
        return x
    inverted = types.Constant(255).uint8() - x
    chosen = fn.cast(drawn(solarize), dtype=types.UINT8) * fn.cast(
        x >= 128, dtype=types.UINT8
    )
    return x * (1 - chosen) + inverted * chosen


@pipeline_def
def pipeline(given: argparse.Namespace):
    encoded, _ = fn.readers.file(files=files(given.data_dir), random_shuffle=True)
    images = fn.decoders.image(encoded, device="cpu")
    return view(images, given, 1.0, 0.0), view(images, given, 0.1, 0.2)


def main() -> None:
    given = arguments(__doc__)
    pipe = pipeline(
        given,
        batch_size=given.batch_size,
        num_threads=given.workers,
        device_id=None,
        seed=0,
    )
    pipe.build()
    for _ in range(3):
        pipe.run()
    serve(
        lambda: {"images/s": steady_rate(pipe.run, given.batch_size, given.seconds)},
        dali=nvidia.dali.__version__,
    )


if __name__ == "__main__":
    main()
