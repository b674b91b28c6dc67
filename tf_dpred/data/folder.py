"""Image files below a directory, with or without splits and classes.

    data_dir/**/*.jpg                          one split, "train", no labels
    data_dir/{train,val}/**/*.jpg              two splits, no labels
    data_dir/{train,val}/<class>/**/*.jpg      two splits, labelled (as ImageNet's)

The test split is called val, validation or test. If there is no `train`, or if an image
lies outside of these directories, their names mean nothing and all images are one
split. Files and
directories whose name starts with a dot are skipped, and links to directories are not
followed; a link to a file is read wherever it points.

A file that cannot be decoded is named and counted (`bad_images`). The next one in
sorted order takes its place, so that an epoch keeps its length and a resume its place.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data import image_files
from tf_dpred.data.bad_images import BadImages
from tf_dpred.data.image_files import EXTENSIONS
from tf_dpred.data.source import Example, Source, indexed, subset

# Kinds of images that TensorFlow has no decoder for.
OTHER_KINDS = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".raw", ".tif", ".tiff")
TEST_SPLITS = ("val", "validation", "test")


def open_folder(
    data_dir: str | None,
    split: str | None,
    limit: int | None,
    bad_images: BadImages,
    split_flag: str,
) -> Source:
    """Lists the images of a split; they are read when they are needed.

    Raises:
      Refused: no directory, no image, an unknown split, or a class of the test
        split that the training split does not have.
    """
    splits = _splits(data_dir)
    if split is None:
        split = next(iter(splits))
    if split not in splits:
        refuse(split_flag, split, f"{', '.join(splits)} in {data_dir}")
    files = images(splits[split])
    if not files:
        refuse(
            "data_dir",
            data_dir,
            f"at least one of {', '.join(EXTENSIONS)}",
            detail=f" with no images in {splits[split]}",
        )
    left_out = other_kinds(splits[split])
    if left_out:
        logging.warning(
            "left out in %s: %s, which TensorFlow cannot read", splits[split], left_out
        )
    labels, num_classes = _labels(splits, split, files)
    chosen = subset(len(files), limit)
    labels = None if labels is None else labels[chosen]
    names = [files[i] for i in chosen]
    paths = [str(splits[split] / name) for name in names]
    with tf.device("CPU:0"):
        # As bytes, since a name need not be valid text.
        known_paths = tf.constant([os.fsencode(path) for path in paths])
        known_labels = tf.constant(
            np.full(len(paths), -1) if labels is None else labels, tf.int64
        )

    def usable(index: np.ndarray) -> np.int64:
        return np.int64(bad_images.usable(paths, int(index)))

    def attempt(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        return image_files.decode(image_files.read(example["file"])), example["label"]

    def load(example: Example) -> tuple[tf.Tensor, tf.Tensor]:
        image = image_files.decode_or_empty(image_files.read(example["file"]))

        def replaced() -> tuple[tf.Tensor, tf.Tensor]:
            # Declared stateless, or --deterministic would not run it in parallel. Its
            # result does not depend on earlier calls.
            index = tf.numpy_function(
                usable, [example["index"]], tf.int64, stateful=False
            )
            index = tf.ensure_shape(index, [])
            content = image_files.read(known_paths[index])
            return image_files.decode(content), known_labels[index]

        return tf.cond(tf.size(image) > 0, lambda: (image, example["label"]), replaced)

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
    )


def default_splits(data_dir: str | None) -> tuple[str, str | None]:
    """The training split and the labelled test split, if there is one."""
    splits = _splits(data_dir)
    labelled = (
        name
        for name in TEST_SPLITS
        if name in splits and _labels(splits, name, images(splits[name]))[1]
    )
    return next(iter(splits)), next(labelled, None)


def _splits(data_dir: str | None) -> dict[str, Path]:
    """Split name -> directory, the training split first."""
    if data_dir is None:
        refuse("data_dir", data_dir, "a directory, for --dataset=folder")
    root = Path(data_dir)
    names = [name for name in ("train", *TEST_SPLITS) if (root / name).is_dir()]
    # A folder may be called "test" by chance; then no image may be left out.
    outside = [file for file in images(root) if Path(file).parts[0] not in names]
    if "train" not in names or outside:
        return {"train": root}
    return {name: root / name for name in names}


def images(root: Path) -> list[str]:
    """Relative paths of the images below `root`, sorted."""
    return sorted(file for file in _files(root) if file.lower().endswith(EXTENSIONS))


def require_images(data_dir: str | None) -> tuple[Path, list[str]]:
    """The folder of `--data_dir`, and the relative paths of its images, sorted.

    Raises:
      Refused: no folder was given, there is none, or no image is in it.
    """
    root = Path(data_dir or "")
    found = images(root) if data_dir else []
    if not found:
        kinds = ", ".join(EXTENSIONS)
        refuse("data_dir", data_dir, f"a folder with images ({kinds})")
    return root, found


def other_kinds(root: Path) -> str:
    """Images below `root` that cannot be read, by kind: "12 .heic, 3 .tif"."""
    suffixes = Counter(os.path.splitext(file)[1].lower() for file in _files(root))
    return ", ".join(
        f"{suffixes[suffix]} {suffix}" for suffix in OTHER_KINDS if suffixes[suffix]
    )


def _files(root: Path) -> Iterator[str]:
    """Relative paths of all files that are not hidden."""
    for where, directories, files in os.walk(root):
        directories[:] = [name for name in directories if not name.startswith(".")]
        below = os.path.relpath(where, root)
        for name in files:
            if not name.startswith("."):
                yield name if below == "." else os.path.join(below, name)


def _class_names(files: list[str]) -> list[str] | None:
    """First-level directory of each file, or None if a file has none."""
    parts = [Path(file).parts for file in files]
    if not parts or any(len(part) == 1 for part in parts):
        return None
    return [part[0] for part in parts]


def _labels(
    splits: dict[str, Path], split: str, files: list[str]
) -> tuple[np.ndarray | None, int | None]:
    """Class index of each file and the number of classes of the training split."""
    if "train" not in splits or len(splits) == 1:
        return None, None
    names = _class_names(files)
    known = names if split == "train" else _class_names(images(splits["train"]))
    if names is None or known is None:
        return None, None
    classes = sorted(set(known))
    strange = sorted(set(names) - set(classes))
    if strange:
        refuse(
            "data_dir",
            str(splits["train"].parent),
            f"the classes in {splits['train']}",
            detail=f" with the class {strange[0]!r} in {splits[split]}",
        )
    index = {name: label for label, name in enumerate(classes)}
    return np.array([index[name] for name in names]), len(classes)
