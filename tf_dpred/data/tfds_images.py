"""Image data sets of TensorFlow Datasets, read without decoding."""

import difflib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data import attempts, image_files
from tf_dpred.data.bad_images import NO_LABEL, BadImages
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.source import Example, Load, Seed, Source, Stored
from tf_dpred.data.value_range import LOOKED_AT
from tf_dpred.errors import TooManyBadImages
from tf_dpred.system import quiet


class Tfds:
    """A TFDS data set, which is prepared first if it must be.

    Args:
      dataset, data_dir, shuffle_buffer: see `datasets.open_source`.
      pixels: how the values of its images become pixels.

    Raises:
      Refused: unknown name, no images, or a preparation that failed.
    """

    def __init__(
        self,
        dataset: str,
        data_dir: str | None,
        shuffle_buffer: int,
        pixels: Pixels = image_files.USUAL,
    ):
        self.dataset = dataset
        self.pixels = pixels
        self.shuffle_buffer = shuffle_buffer
        self._builder = _prepared(dataset, data_dir)

    def default_splits(self) -> tuple[str, str | None]:
        """The training split and the labelled test split, if there is one.

        "test" is preferred to "validation" unless its labels are withheld (ImageNet's).
        """
        train = _train_split(self._builder)
        if self.num_classes is None:
            return train, None
        labelled = (
            name
            for name in ("test", "validation")
            if name in self._builder.info.splits and _has_labels(self._builder, name)
        )
        return train, next(labelled, None)

    def held_out_split(self) -> str | None:
        """The labelled test split, or one without labels."""
        splits = self._builder.info.splits
        names = (name for name in ("test", "validation") if name in splits)
        return self.default_splits()[1] or next(names, None)

    def open(
        self, split: str | None, limit: int | None, bad_images: BadImages, flag: str
    ) -> Source:
        """A split, whose images are read without decoding.

        TFDS shuffles the files, and a buffer of `shuffle_buffer` encoded examples
        shuffles what is read. With a `limit` there is the buffer alone, so that an
        epoch always holds the same examples.

        An image that cannot be decoded is named and counted. The first one of the split
        that can be takes its place, since those of TFDS have no index.

        Args:
          split, limit, bad_images: see `datasets.open_source`.
          flag: that gave the split. Of another one than "split", labels are needed.

        Raises:
          Refused: an unknown or empty split, or one whose labels are withheld.
        """
        builder = self._builder
        if split is None:
            split = _train_split(builder)
        available = _num_examples(builder, split, flag)
        num_examples = available if limit is None else min(limit, available)
        labelled = self.num_classes is not None
        is_evaluated = labelled and flag != "split"
        if is_evaluated and not _has_labels(builder, split):
            detail = f" of {builder.name}, whose labels are withheld (-1)"
            refuse(flag, split, "a split with labels", detail=detail)

        def fields(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            label = tf.cast(example["label"] if labelled else -1, tf.int64)
            if is_evaluated:
                words = tf.strings.format("label {} of {}", (label, example["tfds_id"]))
                known = tf.debugging.Assert(label >= 0, [NO_LABEL, words])
                with tf.control_dependencies([known]):
                    label = tf.identity(label)
            return {
                "image": example["image"],
                "label": label,
                "id": example["tfds_id"],
            }

        def stored() -> tf.data.Dataset:
            return _read(builder, split, None).take(num_examples)

        def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
            # Dataset.shuffle mixes the global seed into its own, and fails on a tensor
            # if the global one is 0. It is set here for the graph of this function
            # only, so that the order does not depend on tf.random.set_seed.
            tf.compat.v1.set_random_seed(1)
            whole = num_examples == available
            files = _read(builder, split, seed) if whole else stored()
            return files.shuffle(
                self.shuffle_buffer, seed, reshuffle_each_iteration=False
            )

        def examples(shuffle_seed: Seed, skip: tf.Tensor | int = 0) -> tf.data.Dataset:
            if shuffle_seed is None:
                read = stored()
            else:
                seed = tf.data.Dataset.from_tensors(tf.cast(shuffle_seed, tf.int64))
                read = seed.flat_map(tf.autograph.experimental.do_not_convert(shuffled))
            return read.skip(skip).map(fields)

        return Source(
            self.dataset,
            split,
            num_examples,
            self.num_classes,
            f"{builder.info.full_name} {split}",
            examples,
            _load_or_replace(lambda: stored().map(fields), bad_images, self.pixels),
            Stored(self.pixels),
            image_size=_image_size(builder),
            channels=self.pixels.channels,
        )

    def samples(self) -> Iterator[tuple[str, tf.Tensor]]:
        """Encoded training images to be looked at, if they may ask for a range."""
        every_kind = self.pixels.config.value_range == "percentile"
        deep = self._builder.info.features["image"].np_dtype != np.uint8
        if every_kind or deep:
            split = _train_split(self._builder)
            for example in _read(self._builder, split, None).take(LOOKED_AT):
                yield os.fsdecode(example["tfds_id"].numpy()), example["image"]

    @functools.cached_property
    def num_classes(self) -> int | None:
        """Of the feature `label`; None, with a note, if it is no class."""
        import tensorflow_datasets as tfds

        features = self._builder.info.features
        if "label" not in features:
            return None
        label = features["label"]
        if isinstance(label, tfds.features.ClassLabel) and label.num_classes:
            return label.num_classes
        logging.warning(
            "%s is taken as unlabelled: its feature 'label' is %s, not a class",
            self.dataset,
            type(label).__name__,
        )
        return None


def _image_size(builder: Any) -> tuple[int, int] | None:
    """(H, W) where the data set says that all images have one size."""
    height, width = builder.info.features["image"].shape[:2]
    return None if height is None or width is None else (height, width)


def _load_or_replace(
    stored: Callable[[], tf.data.Dataset], bad_images: BadImages, pixels: Pixels
) -> Load:
    """`Source.load`, with the first usable example of `stored` for a broken one."""

    decode = functools.partial(image_files.decode_stored, pixels=pixels)
    lock = threading.Lock()
    found: list[tuple[bytes, int]] = []

    def problem(encoded: bytes | tf.Tensor) -> str | None:
        try:
            with tf.device("CPU:0"):
                decode(tf.convert_to_tensor(encoded))
        except tf.errors.OpError as error:
            return image_files.reason_of(error)
        return None

    def first_usable() -> tuple[bytes, int]:
        with lock:
            if not found:
                for example in stored():
                    reason = problem(example["image"])
                    if reason is None:
                        image = example["image"].numpy()
                        found.append((image, int(example["label"])))
                        break
                    bad_images.add(os.fsdecode(example["id"].numpy()), reason)
                else:
                    raise TooManyBadImages("no image of the split can be used.")
            return found[0]

    def replacement(encoded: bytes, name: bytes) -> tuple[bytes, np.int64]:
        bad_images.add(os.fsdecode(name), problem(encoded) or "it cannot be decoded")
        image, label = first_usable()
        return image, np.int64(label)

    def load(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = tf.data.Dataset.from_tensors(example["image"])
        empty = tf.zeros([0, 0, pixels.channels], tf.uint8)
        image = attempts.single_element_or(encoded.map(decode), empty)

        def replaced() -> tuple[tf.Tensor, tf.Tensor]:
            # Declared stateless, or --deterministic would not run it in parallel.
            other, label = tf.numpy_function(
                replacement,
                [example["image"], example["id"]],
                (tf.string, tf.int64),
                stateful=False,
            )
            return (
                decode(tf.ensure_shape(other, [])),
                tf.ensure_shape(label, []),
            )

        return tf.cond(tf.size(image) > 0, lambda: (image, example["label"]), replaced)

    return load


def _prepared(dataset: str, data_dir: str | None) -> Any:
    """The builder of a data set that is ready to be read."""
    builder = _builder(dataset, data_dir)
    features = builder.info.features or {}
    if "image" not in features:
        detail = f" of features {', '.join(features)}"
        refuse("dataset", dataset, "data sets with a feature 'image'", detail=detail)
    if not builder.is_prepared():
        logging.info("Preparing %s in %s (downloads it)", dataset, builder.data_dir)
        try:
            builder.download_and_prepare()
        except Exception as error:
            refuse(
                "dataset",
                dataset,
                f"one that is in {builder.data_dir} or that TFDS can prepare "
                f"({_first_line(error)})",
            )
    return builder


def _builder(dataset: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    name = dataset.split("/")[0].split(":")[0]
    known = tfds.list_builders(with_community_datasets=False)
    # A data set that is prepared already can be read without its code.
    if name not in known and not (data_dir and tf.io.gfile.isdir(f"{data_dir}/{name}")):
        near = difflib.get_close_matches(name, ("digits", "folder", *known))
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        refuse(
            "dataset",
            dataset,
            "digits, folder, or the name of a TFDS image data set",
            detail=hint,
        )
    with quiet.only_warnings():
        try:
            return tfds.builder(dataset, data_dir=data_dir)
        except Exception as error:
            reason = _first_line(error)
            refuse("dataset", dataset, f"a data set that TFDS can open ({reason})")


def _read(builder: Any, split: str, seed: tf.Tensor | None) -> tf.data.Dataset:
    """Encoded examples; the order of the files is random if there is a seed."""
    import tensorflow_datasets as tfds

    config = tfds.ReadConfig(
        shuffle_seed=seed,
        shuffle_reshuffle_each_iteration=False,
        skip_prefetch=True,
        try_autocache=False,
        add_tfds_id=True,
    )
    with quiet.only_warnings():
        return builder.as_dataset(
            split=split,
            shuffle_files=seed is not None,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=config,
        )


def _train_split(builder: Any) -> str:
    names = list(builder.info.splits)
    return "train" if "train" in names else names[0]


def _num_examples(builder: Any, split: str, split_flag: str) -> int:
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError):
        refuse(
            split_flag,
            split,
            f"{', '.join(builder.info.splits)} of {builder.name}, and TFDS' slices "
            "and sums",
        )
    if not count:
        detail = f" of {builder.name}, which is empty"
        refuse(split_flag, split, "one with examples", detail=detail)
    return count


def _has_labels(builder: Any, split: str) -> bool:
    """Whether the first example has one; withheld labels are -1."""
    first = next(iter(_read(builder, split, None).take(1)), None)
    return first is not None and int(first["label"]) >= 0


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
