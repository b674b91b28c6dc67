"""Opens data sets by name: bundled digits, an image folder, TensorFlow Datasets."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from tf_dpred.config import Config, refuse
from tf_dpred.data import folder, source, tfds_images, value_range
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.image_files import USUAL
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.source import Source, subset

DIGITS_SIDE = 32
DIGITS_TEST = 360


class DataSet(Protocol):
    """A data set that was found; nothing is read twice to open several splits.

    Attributes:
      pixels: how the values of its images become pixels.
    """

    pixels: Pixels

    def samples(self) -> Iterable[tuple[str, tf.Tensor]]:
        """Names and encoded training images to be looked at, see `value_range`."""

    def default_splits(self) -> tuple[str, str | None]:
        """Names of the training split and of the labelled test split, if any.

        Raises:
          Refused: as `open_source`.
        """

    def held_out_split(self) -> str | None:
        """The labelled test split, or one without labels; None where there is none."""

    def open(
        self, split: str | None, limit: int | None, bad_images: BadImages, flag: str
    ) -> Source:
        """Opens a split, see `open_source`; `flag` gave its name."""


def find(
    dataset: str,
    data_dir: str | None,
    *,
    shuffle_buffer: int = 10_000,
    workdir: str | None = None,
    columns: str | None = None,
    pixels: Pixels = USUAL,
) -> DataSet:
    """Finds a data set by its name.

    Args:
      dataset, data_dir, shuffle_buffer, columns: see `open_source`.
      workdir: of this run; its pictures are no images of a folder.
      pixels: how the values of its images become pixels.

    Raises:
      Refused: there is none.
    """
    if dataset == "digits":
        return Digits(pixels)
    if dataset == "folder":
        return folder.Folder(data_dir, workdir, columns, pixels)
    if data_dir is not None and "://" not in data_dir and not Path(data_dir).is_dir():
        refuse("data_dir", data_dir, "an existing directory")
    return tfds_images.Tfds(dataset, data_dir, shuffle_buffer, pixels)


def of_config(config: Config) -> DataSet:
    """The data set of a run.

    Raises:
      Refused: there is none.
    """
    data = config.data
    return find(
        data.dataset,
        data.data_dir,
        shuffle_buffer=data.shuffle_buffer,
        workdir=config.training.workdir,
        columns=data.columns,
        pixels=Pixels.of(config),
    )


def settled(config: Config, found: DataSet) -> Config:
    """The settings of a run with what only its images say; `found` has them then too.

    Raises:
      Refused: see `value_range.settled`.
    """
    config = value_range.settled(config, found.samples())
    found.pixels = Pixels.of(config)
    return config


def open_source(
    dataset: str,
    split: str | None,
    data_dir: str | None,
    *,
    shuffle_buffer: int = 10_000,
    limit: int | None = None,
    bad_images: BadImages | None = None,
    split_flag: str = "split",
    columns: str | None = None,
) -> Source:
    """Opens one split of a data set; whatever is wrong with it is raised here.

    Args:
      dataset: "digits" (scikit-learn's 1797 handwritten digits, enlarged to 32 x 32),
        "folder" (image files below `data_dir`, or in a list of that name) or the name
        of a TFDS image data set.
      split: one of the data set's, for TFDS in its syntax ("train[:20000]",
        "train+unlabelled"); None for the training split.
      data_dir: the folder, or where TFDS keeps its data (None: its default place),
        which may be a bucket (gs://...).
      shuffle_buffer: encoded images in the shuffle buffer of a TFDS data set; the
        other kinds are shuffled completely.
      limit: use no more than this many examples. TFDS stores them in random order, so
        there they are the first ones; elsewhere a fixed random choice.
      bad_images: counts the images that cannot be used.
      split_flag: name of the flag that gave `split`, to be blamed for a wrong one.
      columns: of a list: see `places.open_places`.

    Raises:
      Refused: in one line, what was received and what is accepted.
    """
    if limit is not None and limit < 1:
        raise ValueError(
            f"Invalid limit: received {limit}, accepted: at least 1, or None."
        )
    if bad_images is None:
        bad_images = BadImages()
    found = find(dataset, data_dir, shuffle_buffer=shuffle_buffer, columns=columns)
    return found.open(split, limit, bad_images, split_flag)


def training_source(
    config: Config,
    bad_images: BadImages | None = None,
    found: DataSet | None = None,
) -> Source:
    """The images that a run trains on.

    Args:
      config: of the run.
      bad_images: counts the images that cannot be used.
      found: its data set, if it was found already.

    Raises:
      Refused: as `open_source`.
    """
    if bad_images is None:
        bad_images = BadImages()
    found = found or of_config(config)
    return found.open(config.data.split, config.data.train_size, bad_images, "split")


def default_splits(dataset: str, data_dir: str | None) -> tuple[str, str | None]:
    """Names of the training split and of the labelled test split, None without one.

    Raises:
      Refused: as `open_source`.
    """
    return find(dataset, data_dir).default_splits()


class Digits:
    """The digits (values 0..16) as uint8 [32, 32, C], 1437 train and 360 test.

    C is 3, or 1 with `--channels=1`.

    The splits are stratified by class and always the same.
    """

    def __init__(self, pixels: Pixels = USUAL):
        self.pixels = pixels
        if pixels.channels not in (1, 3):
            refuse("channels", pixels.channels, "1 or 3 for --dataset=digits")

    def samples(self) -> Iterable[tuple[str, tf.Tensor]]:
        return ()

    def default_splits(self) -> tuple[str, str | None]:
        return "train", "test"

    def held_out_split(self) -> str | None:
        return "test"

    def open(
        self, split: str | None, limit: int | None, bad_images: BadImages, flag: str
    ) -> Source:
        split = "train" if split is None else split
        if split not in ("train", "test"):
            refuse(flag, split, "train, test of digits")
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        parts = train_test_split(
            np.arange(len(labels)),
            test_size=DIGITS_TEST,
            random_state=0,
            stratify=labels,
        )
        chosen = np.sort(parts[split == "test"])
        chosen = chosen[subset(len(chosen), limit)]
        # On the CPU, so that a run's images do not depend on its accelerator.
        with tf.device("CPU:0"):
            large = tf.image.resize(
                images[chosen].reshape(-1, 8, 8, 1),
                [DIGITS_SIDE, DIGITS_SIDE],
                "bicubic",
            )
        pixels = np.rint(np.clip(large.numpy() * (255 / 16), 0, 255)).astype(np.uint8)
        return source.from_arrays(
            pixels, labels[chosen], "digits", split=split, channels=self.pixels.channels
        )
