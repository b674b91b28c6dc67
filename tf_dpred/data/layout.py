"""Which directories of a folder are its splits, by their names and what lies beside.

    data_dir/{train,val}/**/*.jpg              two splits
    data_dir/NAME/{train,val}/**/*.jpg         the same, if nothing lies beside NAME
    data_dir/{train,val}/{train,val}/**/*.jpg  the same: an archive within an archive

Names count in upper and lower case, with a year ("train2017"), or with a word that says
nothing ("train_set", "seg_train").
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence

from absl import logging

from tf_dpred.data.listing import Found
from tf_dpred.system.files import printable

# What a split is for, by its name. The first of the others is the test split.
TRAIN, VAL, TEST = "train", "val", "test"
PURPOSES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
}
_SPLIT_NAME = re.compile(
    rf"(?:seg[ _-])?({'|'.join(PURPOSES)})(?:[ _-]?(?:data|images|imgs|set|split))?\d*",
    re.IGNORECASE,
)


def purpose(name: str) -> str | None:
    """TRAIN, VAL or TEST if a directory of this name may be a split, else None."""
    found = _SPLIT_NAME.fullmatch(name)
    return PURPOSES[found[1].lower()] if found else None


@dataclasses.dataclass(frozen=True)
class Split:
    """A directory and its images.

    Attributes:
      below: the directory, relative to the folder; "" is the folder itself.
      files: relative to that directory, sorted or in the order of a list.
      labels: the class of each image, None where it has none; None: the directories
        are the classes.
      parts: the splits of several places of which this one is made, in their order.
      place: what the place is called, of such a part.
    """

    below: str
    files: Sequence[str]
    labels: Sequence[str | None] | None = None
    parts: Sequence[Split] = ()
    place: str = ""

    @property
    def names(self) -> list[str]:
        """Of the files, relative to the folder."""
        return [_prefix(self.below) + file for file in self.files]

    @property
    def is_labelled(self) -> bool:
        """Whether a list says what the classes are, and no directory."""
        labels = self.labels is not None and any(self.labels)
        return labels or any(part.is_labelled for part in self.parts)


def splits(listing: Found) -> dict[str, Split]:
    """The splits of a folder by name, the training split first, the test split second.

    A folder without them is one split, "train". A line says so where some directories
    have the names of splits, since images that are for testing are trained on then.
    """
    below, names, complaint = "", _split_names(listing, ""), ""
    while not names and (inner := _only_directory(listing.files, below)):
        below, names = inner, _split_names(listing, inner)
    files = _within(listing.files, below)
    training = [name for name in names if purpose(name) == TRAIN]
    outside = [file for file in files if file.partition("/")[0] not in names]
    if len(training) == 1 and not outside:
        if below:
            logging.info("the splits are those of %s", printable(below))
        return {name: _split(listing, below, name) for name in names}
    listed = printable(", ".join(names))
    if outside and len(training) == 1:
        complaint = (
            f"{listed} are no splits, with {len(outside)} "
            f"image{'s' if len(outside) > 1 else ''} outside of them "
            f"({printable(outside[0])})"
        )
    elif names:
        complaint = (
            f"{listed} {'is no split' if len(names) == 1 else 'are no splits'}: "
            f"{len(training) or 'no'} training directories"
        )
    else:
        inside = [
            directory
            for directory in listing.directories
            if purpose(directory.rpartition("/")[2]) in (VAL, TEST)
        ]
        if inside:
            complaint = f"{printable(inside[0])} is no split, so deep in the folder"
    if complaint:
        logging.warning(
            "in %s %s: all %d images are one split without labels, those for testing "
            "among them",
            printable(str(listing.root)),
            complaint,
            len(listing.files),
        )
    return {TRAIN: Split("", listing.files)}


def find(named: dict[str, Split], wanted: str) -> str | None:
    """The name of a split: as it is written, or the only one that serves as it would.

    "val" finds `Valid` where there is no `val`.
    """
    if wanted in named:
        return wanted
    same = [name for name in named if purpose(name) == purpose(wanted) is not None]
    return same[0] if len(same) == 1 else None


def classes(name: str, split: Split) -> list[str | None] | None:
    """The class of each image of a split, None where it has none; or None.

    By its list, or by the first directory of the image's name, if each has one.

    Args:
      name: of the split, for a warning that some have none.
      split: with the images.
    """
    if split.parts:
        each = [classes(name, part) or [None] * len(part.files) for part in split.parts]
        joined = [label for part in each for label in part]
        return joined if any(joined) else None
    if split.labels is not None:
        return list(split.labels) if any(split.labels) else None
    files = split.files
    outside = [file for file in files if "/" not in file]
    if 0 < len(outside) < len(files):
        logging.warning(
            "%s has no labels: %d of its %d images are in no directory of a class (%s)",
            name,
            len(outside),
            len(files),
            printable(outside[0]),
        )
    return None if outside or not files else [f.partition("/")[0] for f in files]


def folders(split: Split) -> list[str]:
    """The folder of each image: its place, or the first directory of its name.

    Absolute names, which a list may have, count from the directory that all of the
    images have in common; so do those that begin with the same directory.
    """
    if split.parts:
        return [part.place for part in split.parts for _ in part.files]
    files = split.files
    if any(os.path.isabs(file) for file in files) or split.labels is not None:
        common = os.path.commonpath([os.path.dirname(f) for f in files] or [""])
        files = [os.path.relpath(file, common) for file in files]
    return [file.rpartition("/")[0].partition("/")[0] for file in files]


def _split_names(listing: Found, below: str) -> list[str]:
    """Directories within `below` whose names are those of splits, best first."""
    depth = below.count("/") + 1 if below else 0
    names = [
        directory.rpartition("/")[2]
        for directory in listing.directories
        if directory.count("/") == depth and directory.startswith(_prefix(below))
    ]
    order = list(PURPOSES)

    def rank(name: str) -> tuple[int, str]:
        found = _SPLIT_NAME.fullmatch(name)
        assert found is not None  # those without a purpose are left out
        return order.index(found[1].lower()), name

    return sorted((name for name in names if purpose(name)), key=rank)


def _split(listing: Found, below: str, name: str) -> Split:
    """The images of a split: of `train/train` if there is nothing else in `train`."""
    path = _prefix(below) + name
    while inner := _only_directory(listing.files, path):
        if purpose(inner.rpartition("/")[2]) != purpose(name):
            break
        path = inner
    return Split(path, _within(listing.files, path))


def _only_directory(files: Sequence[str], below: str) -> str:
    """The directory in `below` that holds all of its images; "" if none does."""
    files = _within(files, below)
    first = files[0].partition("/")[0] if files else ""
    if all(file.startswith(f"{first}/") for file in files) and files:
        return _prefix(below) + first
    return ""


def _within(files: Sequence[str], below: str) -> list[str]:
    """The files within a directory, relative to it."""
    prefix = _prefix(below)
    return [file[len(prefix) :] for file in files if file.startswith(prefix)]


def _prefix(below: str) -> str:
    return f"{below}/" if below else ""
