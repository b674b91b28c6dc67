"""Writes the digits in random colours, as PNG files of 16 x 16 pixels.

    python -m tools.coloured_digits runs/coloured

An image data set whose labels have nothing to do with what is seen first: the digits of
scikit-learn, each with a foreground and a background of its own at random, of which one
channel at least differs by half of the range. `train` has 1,437 images and `test` 360,
each in a folder named by its digit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIZE = 16
TEST_IMAGES = 360


def colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A foreground and a background, [3] each, 0.5 apart in one channel at least."""
    while True:
        foreground, background = rng.uniform(size=(2, 3))
        if np.abs(foreground - background).max() >= 0.5:
            return foreground, background


def image(digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[8, 8] of 0 to 16 -> [16, 16, 3] uint8."""
    gray = Image.fromarray(np.uint8(digit / 16 * 255)).resize((SIZE, SIZE), 3)
    part = np.asarray(gray, np.float64)[..., None] / 255
    foreground, background = colours(rng)
    return np.uint8(np.rint(255 * (part * foreground + (1 - part) * background)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(argv)
    digits, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(given.seed)
    numbers = np.arange(len(labels))
    _, test = train_test_split(
        numbers, test_size=TEST_IMAGES, random_state=given.seed, stratify=labels
    )
    is_test = np.isin(numbers, test)
    for number, (digit, label) in enumerate(zip(digits, labels, strict=True)):
        split = "test" if is_test[number] else "train"
        folder = given.directory / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = image(digit.reshape(8, 8), rng)
        Image.fromarray(pixels).save(folder / f"{number:04}.png")


if __name__ == "__main__":
    main()
