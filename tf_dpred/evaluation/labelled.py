"""Labelled images for evaluation: which splits, who is held out, training batches."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tf_dpred.config import Config, refuse
from tf_dpred.data import contents, datasets, pipeline
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.source import SUBSET_SEED, Example, Source, indexed, subset
from tf_dpred.data.views import ViewPair
from tf_dpred.encoders.settings import BY_A_PROGRAM

Labelled: TypeAlias = Source | tuple[Source, Source]


def open_splits(
    config: Config,
    bad_images: BadImages,
    limits: tuple[int | None, int | None] = (None, None),
    found: datasets.DataSet | None = None,
) -> tuple[Source, Source] | None:
    """The labelled training and test split of a config; None where there are none.

    Args:
      config: of the data set, and of its splits where the data set's own ones are not
        meant (`eval_train_split`, `eval_test_split`).
      bad_images: counts the images that cannot be used.
      limits: at most so many training and test images; None: all.
      found: the data set, if it was found already.

    Raises:
      Refused: there is no such data set or split.
    """
    evaluation = config.evaluation
    found = found or datasets.of_config(config)
    train, test = found.default_splits()
    test = evaluation.eval_test_split or test
    if test is None:
        return None
    train = evaluation.eval_train_split or train
    both = (
        found.open(train, limits[0], bad_images, "eval_train_split"),
        found.open(test, limits[1], bad_images, "eval_test_split"),
    )
    return both if all(source.num_classes for source in both) else None


def own_splits(
    given: Labelled, limits: tuple[int | None, int | None]
) -> tuple[Source, Source] | None:
    """Searched and classified images that a program gave; None without labels.

    Args:
      given: two labelled sources; or one, a random fifth of which is classified and the
        rest searched.
      limits: as in `open_splits`.

    Raises:
      Refused: one of two has no labels.
    """
    if isinstance(given, Source):
        count = given.num_examples // 5
        if not given.num_classes or not count:
            return None
        order = np.random.RandomState(SUBSET_SEED).permutation(given.num_examples)
        few, rest = order[:count][: limits[1]], order[count:][: limits[0]]
        return part(given, rest), part(given, few)
    if any(not source.num_classes for source in given):
        names = [f"{source.name} {source.split}" for source in given]
        refuse("labelled", names, "sources with labels, searched and classified")
    classes = max(source.num_classes or 0 for source in given)
    searched, tested = (
        dataclasses.replace(
            part(source, subset(source.num_examples, limit)), num_classes=classes
        )
        for source, limit in zip(given, limits, strict=True)
    )
    return searched, tested


def part(source: Source, indices: np.ndarray) -> Source:
    """Some examples of a source, in stored order; the others are passed over."""
    mask = np.zeros(source.num_examples, bool)
    mask[indices] = True
    with tf.device("CPU:0"):
        wanted = tf.constant(mask)

    def examples(shuffle_seed, skip=0) -> tf.data.Dataset:
        found = source.examples(None).enumerate()
        found = found.filter(lambda index, _: wanted[index])
        return found.map(lambda _, example: example).skip(skip)

    return dataclasses.replace(source, num_examples=len(indices), examples=examples)


def require_splits(config: Config) -> tuple[Source, Source]:
    """As `open_splits`, of all images; for evaluations, which need labels.

    Raises:
      Refused: also if there are no labels.
    """
    dataset = config.data.dataset
    if dataset.endswith(BY_A_PROGRAM):
        refuse(
            "dataset",
            dataset,
            "the name of a labelled data set (digits, folder or one of TFDS) and, "
            "where it lies elsewhere, --data_dir",
        )
    found = open_splits(config, BadImages(config.data.max_bad_images))
    if found is None:
        refuse(
            "dataset",
            config.data.dataset,
            "a data set with a labelled training and a labelled test split "
            "(--eval_train_split, --eval_test_split)",
        )
    return found


def labels_of(source: Source) -> np.ndarray:
    """[N] int64 labels in stored order; nothing is decoded."""
    labels = source.examples(None).map(lambda example: example["label"])
    return np.concatenate(list(labels.batch(4096).as_numpy_iterator()))


def balanced_subset(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Indices of a class-balanced random fraction.

    Every class gives the same number, fraction * N / classes, at least 1, or all it
    has. For one seed, a smaller fraction is a subset of a larger one.

    Args:
      labels: [N] integers.
      fraction: in (0, 1].
      seed: of the choice.

    Returns:
      Ascending indices into `labels`.
    """
    classes = np.unique(labels)
    count = max(1, round(fraction * len(labels) / len(classes)))
    random = np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(labels == c))[:count] for c in classes]
    return np.sort(np.concatenate(chosen))


def gather(source: Source, indices: np.ndarray) -> Source:
    """Some examples of a source, held in memory, still encoded (or as paths).

    Args:
      source: read once, in stored order.
      indices: ascending, into the stored order.
    """
    mask = np.zeros(source.num_examples, bool)
    mask[indices] = True
    with tf.device("CPU:0"):
        wanted = tf.constant(mask)
    kept = list(
        source.examples(None)
        .enumerate()
        .filter(lambda index, _: wanted[index])
        .map(lambda _, example: example)
    )
    labels = np.array([int(example.pop("label")) for example in kept])
    with tf.device("CPU:0"):
        held = {name: tf.stack([example[name] for example in kept]) for name in kept[0]}
    return indexed(
        source.name,
        source.split,
        lambda index: {name: values[index] for name, values in held.items()},
        len(kept),
        labels,
        source.num_classes,
        fingerprint=source.fingerprint,
        load=source.load,
    )


def hold_out(source: Source, count: int, seed: int) -> tuple[Source, Source]:
    """Splits off `count` random examples.

    A hash of the encoded image decides which ones. So they are the same in any order of
    reading, also for data that can only be streamed, and copies of one image are on the
    same side. The source is read once.

    Args:
      source: with more than `count` examples.
      count: held out, at least 1; more where images are equal.
      seed: of the choice.

    Returns:
      (kept, held out).
    """

    def fingerprint(example: Example) -> tf.Tensor:
        if "file" in example:
            content = contents.read(example["file"])
        elif example["image"].dtype == tf.string:
            content = example["image"]
        else:
            content = tf.io.serialize_tensor(example["image"])
        salted = tf.strings.join([str(seed), content], separator=":")
        return tf.strings.to_hash_bucket_fast(salted, 2**62)

    prints = source.examples(None).map(fingerprint, num_parallel_calls=tf.data.AUTOTUNE)
    found = np.concatenate(list(prints.batch(4096).as_numpy_iterator()))
    limit = np.sort(found)[count - 1]

    def side(held: bool) -> Source:
        def examples(shuffle_seed, skip=0) -> tf.data.Dataset:
            mine = source.examples(shuffle_seed).filter(
                lambda example: (fingerprint(example) <= limit) == held
            )
            return mine.skip(skip)

        size = int(np.sum((found <= limit) == held))
        return dataclasses.replace(source, num_examples=size, examples=examples)

    return side(False), side(True)


def training_batches(
    source: Source, pair: ViewPair, image_size: int, batch_size: int, *, seed: int
) -> tf.data.Dataset:
    """Randomly cropped and flipped images with labels, epoch after epoch, endless.

    The stream of the pre-training with the first view of the recipe, whose colours are
    left alone; nothing is flipped where a mirror image is another class.

    Args:
      source: labelled images.
      pair: the recipe that the encoder was trained with.
      image_size: side S in pixels.
      batch_size: B; the rest of an epoch that fills no batch is left out.
      seed: of the order, the crops and the flips.

    Returns:
      (uint8 [B, S, S, 3], int64 [B]).
    """
    specs = (pair.first.without_colour(),)
    return pipeline.training_views(
        source, specs, image_size, batch_size, seed=seed, labels=True
    )
