"""CIFAR-10 by halves of its classes, and a network that learned one half with labels.

    python tools/halves.py OUT --data_dir=DIR

DIR is a TFDS directory. Makes the image folders OUT/first and OUT/second (classes 0 to
4, and 5 to 9) and OUT/first.keras, a ResNet-18 trained on the first half's labels: a
stand-in for weights of ImageNet, to see what becomes of them on the other half:

    python -m tf_dpred.main --recipe=continue --dataset=folder --data_dir=OUT/second \\
        --views=cifar --init=OUT/first.keras ...

All of the comparison: docs/results.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tf_dpred.config import paths
from tf_dpred.system import quiet

with quiet.start():
    import keras
    import numpy as np
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from tf_dpred.data.preprocessing import Preprocessing
    from tf_dpred.networks.encoder import Normalize
    from tf_dpred.networks.resnet import resnet

CLASSES = 5
BATCH = 128


def write_halves(data_dir: Path, out: Path) -> None:
    """Writes the images as they are stored: OUT/HALF/SPLIT/CLASS/INDEX.png."""
    builder = tfds.builder("cifar10", data_dir=str(data_dir))
    decoders = {"image": tfds.decode.SkipDecoding()}
    for split in ("train", "test"):
        images = builder.as_dataset(split, decoders=decoders)
        for index, example in enumerate(images.as_numpy_iterator()):
            label = int(example["label"])
            half = ("first", "second")[label // CLASSES]
            folder = out / half / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{index:05d}.png").write_bytes(example["image"])


def images_of(folder: Path, side: int, *, training: bool) -> tf.data.Dataset:
    """Batches (uint8 [n, side, side, 3], label); flipped and shifted in training."""
    files = sorted(folder.glob("*/*.png"))
    pixels = [
        tf.io.decode_image(f.read_bytes(), expand_animations=False) for f in files
    ]
    pixels = tf.image.resize(np.stack(pixels), [side, side])
    labels = np.array([int(f.parent.name) % CLASSES for f in files])
    found = tf.data.Dataset.from_tensor_slices((pixels, labels))
    if not training:
        return found.batch(BATCH)
    room = side // 8

    def moved(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.pad(image, [[room, room], [room, room], [0, 0]], "REFLECT")
        image = tf.image.random_crop(image, [side, side, 3])
        return tf.image.random_flip_left_right(image), label

    return found.shuffle(len(files)).map(moved).batch(BATCH, drop_remainder=True)


def train(folder: Path, args: argparse.Namespace) -> keras.Model:
    """A ResNet-18 to features, trained with labels; prints its accuracy."""
    of_views = Preprocessing.of_views("cifar")
    backbone = resnet("resnet18", args.image_size, width=args.width, stem="small")
    inputs = keras.Input((args.image_size, args.image_size, 3))
    features = backbone(Normalize(of_views.mean, of_views.std)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(features))
    images = images_of(folder / "train", args.image_size, training=True)
    steps = args.epochs * len(images)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=0.1, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    test = images_of(folder / "test", args.image_size, training=False)
    model.fit(
        images, epochs=args.epochs, validation_data=test, shuffle=False, verbose=2
    )
    return backbone


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=paths.argument, help="directory that is made")
    parser.add_argument(
        "--data_dir", type=paths.argument, required=True, help="TFDS directory"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--width", type=float, default=0.25)
    args = parser.parse_args(argv)
    keras.utils.set_random_seed(0)
    write_halves(args.data_dir, args.out)
    train(args.out / "first", args).save(args.out / "first.keras")


if __name__ == "__main__":
    main()
