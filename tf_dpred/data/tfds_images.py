"""Image data sets of TensorFlow Datasets, read without decoding."""

import difflib
from typing import Any

import tensorflow as tf
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data.source import Seed, Source
from tf_dpred.system import quiet


def open_tfds(
    dataset: str,
    split: str | None,
    data_dir: str | None,
    shuffle_buffer: int,
    limit: int | None,
    split_flag: str,
) -> Source:
    """Opens a split of a TFDS data set, preparing it first if it must be.

    TFDS shuffles the files, and a buffer of `shuffle_buffer` encoded examples shuffles
    what is read. With a `limit` there is the buffer alone, so that an epoch always
    holds the same examples.

    Raises:
      Refused: unknown name or split, no images, or a preparation that failed.
    """
    builder = _prepared(dataset, data_dir)
    if split is None:
        split = _train_split(builder)
    available = _num_examples(builder, split, split_flag)
    num_examples = available if limit is None else min(limit, available)
    labelled = "label" in builder.info.features

    def fields(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        label = example["label"] if labelled else -1
        return {"image": example["image"], "label": tf.cast(label, tf.int64)}

    def stored() -> tf.data.Dataset:
        return _read(builder, split, None).take(num_examples)

    def shuffled(seed: tf.Tensor) -> tf.data.Dataset:
        # Dataset.shuffle mixes the global seed into its own, and fails on a tensor if
        # the global one is 0. It is set here for the graph of this function only, so
        # that the order does not depend on tf.random.set_seed.
        tf.compat.v1.set_random_seed(1)
        whole = num_examples == available
        files = _read(builder, split, seed) if whole else stored()
        return files.shuffle(shuffle_buffer, seed, reshuffle_each_iteration=False)

    def examples(shuffle_seed: Seed, skip: tf.Tensor | int = 0) -> tf.data.Dataset:
        if shuffle_seed is None:
            read = stored()
        else:
            seed = tf.data.Dataset.from_tensors(tf.cast(shuffle_seed, tf.int64))
            read = seed.flat_map(tf.autograph.experimental.do_not_convert(shuffled))
        return read.skip(skip).map(fields)

    num_classes = builder.info.features["label"].num_classes if labelled else None
    return Source(
        dataset,
        split,
        num_examples,
        num_classes,
        f"{builder.info.full_name} {split}",
        examples,
    )


def default_splits(dataset: str, data_dir: str | None) -> tuple[str, str | None]:
    """The training split and the labelled test split, if there is one.

    "test" is preferred to "validation" unless its labels are withheld (ImageNet's).
    """
    builder = _prepared(dataset, data_dir)
    labelled = (
        name
        for name in ("test", "validation")
        if name in builder.info.splits and _has_labels(builder, name)
    )
    return _train_split(builder), next(labelled, None)


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
    if "label" not in builder.info.features:
        return False
    first = next(iter(_read(builder, split, None).take(1)), None)
    return first is not None and int(first["label"]) >= 0


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
