"""Image files below a directory, with or without splits and classes.

    data_dir/**/*.jpg                          one split, "train", no labels
    data_dir/{train,val}/**/*.jpg              two splits, no labels
    data_dir/{train,val}/<class>/**/*.jpg      two splits, labelled (as ImageNet's)

`layout` says which names are splits, `listing` which files are images.

A file that cannot be decoded is named and counted (`bad_images`). The next one in
sorted order takes its place, so that an epoch keeps its length and a resume its place.
"""

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data import image_files, layout, places, remote, value_range
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.image_files import EXTENSIONS
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.remote import Base
from tf_dpred.data.source import Example, Source, indexed, subset
from tf_dpred.system.files import printable

# Directories of these names tell pictures from what belongs to them, and no classes.
NO_CLASSES = frozenset(
    "annotations image images img imgs jpegimages labels mask masks".split()
)


class Folder:
    """The splits of a folder, which is walked once, when this is made.

    Args:
      data_dir, workdir, columns: see `places.open_places`.
      pixels: how the values of its images become pixels.

    Raises:
      Refused: no folder, or one that cannot be read.
    """

    def __init__(
        self,
        data_dir: str | None,
        workdir: str | None = None,
        columns: str | None = None,
        pixels: Pixels = image_files.USUAL,
    ):
        if data_dir is None:
            refuse("data_dir", data_dir, "a directory, for --dataset=folder")
        self._given = data_dir
        self.pixels = pixels
        by_page = pixels.config.pages == "all"
        self._found = places.open_places(data_dir, workdir, columns, by_page)
        self._found.log_losses(broken=True)
        self.root = self._found.root
        self.splits = places.splits(self._found)
        self._names: dict[str, list[str | None] | None] = {}
        self._passed_over: set[str] = set()

    def default_splits(self) -> tuple[str, str | None]:
        """The training split and the labelled test split, if there is one."""
        train = next(iter(self.splits))
        return train, next(filter(self._is_labelled, self._others()), None)

    def held_out_split(self) -> str | None:
        """The labelled test split, or one without labels."""
        return self.default_splits()[1] or next(iter(self._others()), None)

    def open(
        self, split: str | None, limit: int | None, bad_images: BadImages, flag: str
    ) -> Source:
        """A split, whose files are read when they are needed.

        Args:
          split, limit, bad_images: see `datasets.open_source`.
          flag: that gave the split. Of another one than "split", labels are needed.

        Raises:
          Refused: no image, an unknown split, or a class of an evaluated split that
            the training split does not have.
        """
        name = layout.find(self.splits, split or next(iter(self.splits)))
        if name is None:
            refuse(flag, split, f"{', '.join(self.splits)} in {self._given}")
        directory, files = self.root / self.splits[name].below, self.splits[name].files
        if not files:
            refuse(
                "data_dir",
                str(self.root),
                f"at least one of {', '.join(EXTENSIONS)}",
                detail=f" with no images in {directory}",
            )
        self._check_missing(bad_images)
        usable = np.arange(len(files))
        labels, num_classes = None, None
        if flag != "split" or not self._strange_classes(name):
            labels, num_classes = self.labels(name) or (None, None)
        if flag != "split" and labels is not None:
            usable = np.flatnonzero(labels >= 0)
        chosen = usable[subset(len(usable), limit)]
        folders = layout.folders(self.splits[name])
        source = _source(
            name,
            directory,
            [files[i] for i in chosen],
            None if labels is None else labels[chosen],
            num_classes,
            bad_images,
            self.pixels,
        )
        if labels is not None:
            known = [*self._classes, ""]  # the last one of those with the label -1
            source = replace(source, classes=[known[i] for i in labels[chosen]])
        return replace(source, folders=[folders[i] for i in chosen])

    def samples(self) -> Iterator[tuple[str, tf.Tensor]]:
        """Encoded training images to be looked at, see `value_range.samples`."""
        train = self.splits[next(iter(self.splits))]
        root = self.root / train.below
        return value_range.samples(root, train.files, self.pixels.config)

    def labels(self, split: str) -> tuple[np.ndarray, int] | None:
        """Class index [N] of each file, and the number of classes; None without.

        -1 for an image of which a list does not say the class.

        Raises:
          Refused: a class of a test split that the training split does not have.
        """
        train = next(iter(self.splits))
        if len(self.splits) == 1 and not self.splits[train].is_labelled:
            return None
        known, names = self._class_names(train), self._class_names(split)
        if known is None or names is None:
            return None
        if strange := self._strange_classes(split):
            refuse(
                "data_dir",
                self._given,
                f"the classes of {self._place(train)}",
                detail=f" with the class {strange[0]!r} in {self._place(split)}",
            )
        if not self._classes:
            return None
        index = {name: label for label, name in enumerate(self._classes)}
        known_as = [-1 if name is None else index[name] for name in names]
        return np.array(known_as), len(index)

    def _place(self, split: str) -> str:
        """Where a split is, for messages."""
        below = self.splits[split].below
        return str(self.root / below) if below else split

    def _check_missing(self, bad_images: BadImages | None) -> None:
        """Refuses a list that lacks more files than a run may."""
        missing = self._found.broken if self._found.is_list else []
        if bad_images is not None and len(missing) > bad_images.most:
            refuse(
                "data_dir",
                self._given,
                f"at most --max_bad_images={bad_images.most} files that are missing",
                detail=f" with {len(missing)} ({printable(missing[0])})",
            )

    def _is_labelled(self, split: str) -> bool:
        if strange := self._strange_classes(split):
            if split not in self._passed_over:
                logging.warning(
                    "%s is not evaluated on: its class %r is not in %s",
                    split,
                    printable(strange[0]),
                    next(iter(self.splits)),
                )
            self._passed_over.add(split)
            return False
        return self.labels(split) is not None

    def _strange_classes(self, split: str) -> list[str]:
        """Classes of a test split that the training split does not have, sorted."""
        train = next(iter(self.splits))
        if split == train:
            return []
        known, names = self._class_names(train), self._class_names(split)
        if known is None or names is None:
            return []
        return sorted(name for name in {*names} - {*known} if name is not None)

    @functools.cached_property
    def _classes(self) -> list[str]:
        """The classes of the training split, sorted; none if they are no classes."""
        train = next(iter(self.splits))
        names = {*(self._class_names(train) or ())}
        classes = sorted(name for name in names if name is not None)
        shown = printable(", ".join(classes))
        if {name.lower() for name in classes} <= NO_CLASSES:
            logging.warning("%s has no labels: %s is not a class", train, shown)
        elif len(classes) == 1:
            logging.warning("%s has no labels: %s is its only class", train, shown)
        else:
            return classes
        return []

    def _class_names(self, split: str) -> list[str | None] | None:
        """Class of each file, None where it has none; or None."""
        if split not in self._names:
            self._names[split] = layout.classes(split, self.splits[split])
        return self._names[split]

    def _others(self) -> list[str]:
        """The splits for tests; a list may have more, of any name."""
        tests = (layout.VAL, layout.TEST)
        return [name for name in self.splits if layout.purpose(name) in tests]


def _source(
    split: str,
    directory: Base,
    names: Sequence[str],
    labels: np.ndarray | None,
    num_classes: int | None,
    bad_images: BadImages,
    pixels: Pixels,
) -> Source:
    """The files `names` of `directory`, in this order."""
    # Not by pathlib, which takes as long for it as the walk took.
    below = "" if directory == Path() else str(directory)
    paths = [remote.join(below, name) for name in names]
    with tf.device("CPU:0"):
        # As bytes, since a name need not be valid text.
        known_paths = tf.constant([os.fsencode(path) for path in paths])
        known_labels = tf.constant(
            np.full(len(paths), -1) if labels is None else labels, tf.int64
        )

    def usable(index: np.ndarray) -> np.int64:
        return np.int64(bad_images.usable(paths, int(index), pixels))

    def attempt(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        content = image_files.read(example["file"], pixels)
        return image_files.decode(content, pixels), example["label"]

    def load(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        file = image_files.unless_special(example["file"])
        content = tf.cond(
            file == "", lambda: "", lambda: image_files.read(file, pixels)
        )
        image = image_files.decode_or_empty(content, pixels)

        def replaced() -> tuple[tf.Tensor, tf.Tensor]:
            # Declared stateless, or --deterministic would not run it in parallel. Its
            # result does not depend on earlier calls.
            index = tf.numpy_function(
                usable, [example["index"]], tf.int64, stateful=False
            )
            index = tf.ensure_shape(index, [])
            content = image_files.read(known_paths[index], pixels)
            return image_files.decode(content, pixels), known_labels[index]

        return tf.cond(tf.size(image) > 0, lambda: (image, example["label"]), replaced)

    def guard(examples: Example) -> Example:
        return {**examples, "file": image_files.unless_special(examples["file"])}

    return indexed(
        "folder",
        split,
        lambda index: {"file": known_paths[index], "index": index},
        len(paths),
        labels,
        num_classes,
        fingerprint=hashlib.sha256(os.fsencode("\n".join(names))).hexdigest(),
        load=load,
        attempt=attempt,
        guard=guard,
        channels=pixels.channels,
    )
