"""Image files below a directory, with or without splits and classes.

    data_dir/**/*.jpg                          one split, "train", no labels
    data_dir/{train,val}/**/*.jpg              two splits, no labels
    data_dir/{train,val}/<class>/**/*.jpg      two splits, labelled (as ImageNet's)

The test split is called val, validation or test. Without a `train`, or with an image
outside of these, such names mean nothing and everything is one split. Files and
directories whose name starts with a dot are skipped, and links to directories are not
followed.
"""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_dpred.data.source import Source, indexed, subset

EXTENSIONS = (".jpeg", ".jpg", ".png", ".bmp", ".gif")
if hasattr(tf.io, "decode_webp"):
    EXTENSIONS += (".webp",)
TEST_SPLITS = ("val", "validation", "test")


def open_folder(data_dir: str | None, split: str | None, limit: int | None) -> Source:
    """Lists the images of a split; they are read when they are needed.

    Raises:
      ValueError: no directory, no image, an unknown split, or a class of the test
        split that the training split does not have.
    """
    splits = _splits(data_dir)
    if split is None:
        split = next(iter(splits))
    if split not in splits:
        raise ValueError(
            f"--split: received {split!r}, accepted: {', '.join(splits)} in {data_dir}."
        )
    files = _images(splits[split])
    if not files:
        raise ValueError(
            f"--data_dir: received {data_dir!r} with no images in {splits[split]}, "
            f"accepted: at least one of {', '.join(EXTENSIONS)}."
        )
    labels, num_classes = _labels(splits, split, files)
    chosen = subset(len(files), limit)
    with tf.device("CPU:0"):
        paths = tf.constant([str(splits[split] / files[i]) for i in chosen])
    return indexed(
        "folder",
        split,
        lambda index: tf.io.read_file(paths[index]),
        len(chosen),
        None if labels is None else labels[chosen],
        num_classes,
    )


def default_splits(data_dir: str | None) -> tuple[str, str | None]:
    """The training split and the labelled test split, if there is one."""
    splits = _splits(data_dir)
    labelled = (
        name
        for name in TEST_SPLITS
        if name in splits and _labels(splits, name, _images(splits[name]))[1]
    )
    return next(iter(splits)), next(labelled, None)


def _splits(data_dir: str | None) -> dict[str, Path]:
    """Split name -> directory, the training split first."""
    if data_dir is None:
        raise ValueError(
            "--data_dir: received None, accepted: a directory, for --dataset=folder."
        )
    root = Path(data_dir)
    names = [name for name in ("train", *TEST_SPLITS) if (root / name).is_dir()]
    # A folder may happen to be called "test": no image is left out for that.
    outside = [file for file in _images(root) if Path(file).parts[0] not in names]
    if "train" not in names or outside:
        return {"train": root}
    return {name: root / name for name in names}


def _images(root: Path) -> list[str]:
    """Relative paths of the images below `root`, sorted."""
    found = []
    for where, directories, files in os.walk(root):
        directories[:] = [name for name in directories if not name.startswith(".")]
        found += [
            os.path.relpath(os.path.join(where, name), root)
            for name in files
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)


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
    known = names if split == "train" else _class_names(_images(splits["train"]))
    if names is None or known is None:
        return None, None
    classes = sorted(set(known))
    strange = sorted(set(names) - set(classes))
    if strange:
        raise ValueError(
            f"--data_dir: received the class {strange[0]!r} in {splits[split]}, "
            f"accepted: the classes in {splits['train']}."
        )
    index = {name: label for label, name in enumerate(classes)}
    return np.array([index[name] for name in names]), len(classes)
