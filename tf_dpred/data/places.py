"""What `--data_dir` names: folders, lists, zip archives, buckets, with commas."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from tf_dpred.config import Config, paths, refuse
from tf_dpred.data import layout, remote, zipped
from tf_dpred.data.archive import Archive
from tf_dpred.data.file_list import LISTS, FileList
from tf_dpred.data.image_files import EXTENSIONS
from tf_dpred.data.layout import Split
from tf_dpred.data.listing import Found, Listing, Names
from tf_dpred.data.remote import Base

ACCEPTED = (
    f"an existing directory, a list of image files ({', '.join(LISTS)}) or a .zip"
)


class Bucket(Names):
    """The images of a directory of a bucket.

    Args:
      address: of the directory.

    Raises:
      Refused: it is not there, or cannot be read.
    """

    def __init__(self, address: str):
        super().__init__(remote.Root(address))
        if address.lower().endswith(".zip"):
            refuse("data_dir", address, "of a bucket, a directory or a list of files")
        accepted = "a directory of a bucket that can be read"
        try:
            found = list(remote.entries(address))
        except OSError as error:
            refuse("data_dir", address, f"{accepted} ({error.strerror})")
        if not found:  # a bucket has no empty directories
            refuse("data_dir", address, f"{accepted} (there is none)")
        for name, size in found:
            self.add(name, size)
        self.finish()


class Several(Found):
    """The images of several places, one place after the other.

    Names are relative to the directory that the places have in common. An image that
    two of them hold is counted once.

    Args:
      parts: the places.
    """

    def __init__(self, parts: Sequence[Found]):
        super().__init__(common_root([part.root for part in parts]))
        self.parts = parts
        self.is_list = any(part.is_list for part in parts)
        seen: set[str] = set()
        for part in parts:
            where = _real_paths(part)
            if again := {file for file, path in where.items() if path in seen}:
                part.leave_out(again, "in another place as well")
            seen.update(where.values())
            self.files += self._named(part, part.files)
            self.broken += self._named(part, part.broken)

    @property
    def names(self) -> list[str]:
        return [n for part in self.parts for n in self._named(part, part.names)]

    @property
    def called(self) -> str:
        return ", ".join(part.called for part in self.parts)

    def left_out(self, broken: bool = False, why: str = "") -> str:
        texts = [(part.called, part.left_out(broken, why)) for part in self.parts]
        return "; ".join(f"in {called}: {text}" for called, text in texts if text)

    def log_losses(self, broken: bool = False) -> None:
        for part in self.parts:
            part.log_losses(broken)

    def splits(self) -> dict[str, Split]:
        """Those of the parts, joined by their purpose; the training split first.

        Where the parts themselves are called as splits are (train.csv, val.csv), they
        are the splits.
        """
        each = [(part, splits(part)) for part in self.parts]
        purposes = [layout.purpose(_name_of(part)) for part in self.parts]
        named = {layout.TRAIN} < set(purposes) and None not in purposes
        if named and all(len(found) == 1 for _, found in each):
            each = [
                (part, {purpose or "": next(iter(found.values()))})
                for (part, found), purpose in zip(each, purposes, strict=True)
            ]
            logging.info("the splits are %s", self.called)
        joined: dict[str, list[tuple[Found, Split]]] = {}
        for part, found in each:
            for name, split in found.items():
                joined.setdefault(layout.purpose(name) or name, []).append(
                    (part, split)
                )
        order = (layout.TRAIN, layout.VAL, layout.TEST)
        names = [name for name in order if name in joined]
        names += sorted(joined.keys() - set(order))
        return {
            name: Split(
                "",
                [
                    file
                    for part, split in joined[name]
                    for file in self._named(part, split.names)
                ],
                parts=[
                    dataclasses.replace(split, place=part.called)
                    for part, split in joined[name]
                ],
            )
            for name in names
        }

    def _named(self, part: Found, names: Sequence[str]) -> list[str]:
        if remote.is_remote(part.root):
            return [remote.join(part.root, name) for name in names]
        below = os.path.abspath(part.root)
        if self.root:
            below = os.path.relpath(below, self.root)
        joined = [remote.join(below, name) for name in names]
        return [n if remote.is_remote(n) else os.path.normpath(n) for n in joined]


def open_places(
    data_dir: str,
    workdir: str | None = None,
    columns: str | None = None,
    by_page: bool = False,
) -> Found:
    """Finds the images of `--data_dir`.

    Args:
      data_dir: a directory, a list of files, a zip archive (or a directory in it:
        x.zip/train), or several of them, with commas between.
      workdir: of this run, in which it will write pictures; or None.
      columns: value of `--columns`, for the lists.
      by_page: each page of a file is an image.

    Raises:
      Refused: one of them is not there or cannot be read.
    """
    several = paths.several(data_dir)
    if columns is not None and not any(map(_is_list, several)):
        refuse("columns", columns, "with a list of files as --data_dir only")
    if by_page and any(map(_is_list, several)):
        accepted = "first or channels with a list, which may name pages (stack.tif#2)"
        refuse("pages", "all", accepted)
    found = [_open(place, workdir, columns) for place in several]
    for place in found if by_page else ():
        place.spread_pages()
    return found[0] if len(found) == 1 else Several(found)


def require_images(config: Config) -> Found:
    """The images of `--data_dir`, of which there is at least one, or a broken link.

    Raises:
      Refused: no place was given, there is none, or no image is in it.
    """
    data = config.data
    found = None
    if data.data_dir and all(map(_exists, paths.several(data.data_dir))):
        by_page = config.pixels.pages == "all"
        workdir = config.training.workdir
        found = open_places(data.data_dir, workdir, data.columns, by_page)
    if found is None or not found.names:
        kinds = ", ".join(EXTENSIONS)
        left_out = found.left_out() if found else ""
        refuse(
            "data_dir",
            data.data_dir,
            f"a folder with images ({kinds}), a list of them ({', '.join(LISTS)}) or a "
            ".zip",
            detail=f", which holds no image ({left_out})" if left_out else "",
        )
    return found


def root_of(data_dir: str | None) -> Base | None:
    """What names of images of `--data_dir` are relative to; None if it is missing."""
    several = paths.several(data_dir) if data_dir else []
    if not several or not all(map(_exists, several)):
        return None
    roots = [_root_of(place) for place in several]
    return roots[0] if len(roots) == 1 else common_root(roots)


def parts_of(found: Found) -> Sequence[Found]:
    """The places of which one is made; itself, if it is one."""
    return found.parts if isinstance(found, Several) else [found]


def _root_of(place: str) -> Base:
    if _is_list(place):
        return remote.Root(os.path.dirname(place))
    return remote.Root(place) if remote.is_remote(place) else Path(place)


def common_root(roots: Sequence[Base]) -> Base:
    """The directory that holds all of some directories, or is one of them.

    None holds addresses: names are whole then.
    """
    if any(map(remote.is_remote, roots)):
        return remote.Root("")
    return Path(os.path.commonpath([os.path.abspath(root) for root in roots]))


def splits(found: Found) -> dict[str, Split]:
    """The splits of a place by name, the training split first."""
    if isinstance(found, FileList | Several):
        return found.splits()
    return layout.splits(found)


def _open(place: str, workdir: str | None, columns: str | None) -> Found:
    if remote.is_remote(place):
        return FileList(place, columns) if _is_list(place) else Bucket(place)
    if os.path.isdir(place):
        return Listing(Path(place), workdir)
    if inside := zipped.located(os.path.join(place, "")):
        archive, below = inside
        return Archive(Path(archive), "" if below == "." else below)
    if not os.path.exists(place) or not _is_list(place):
        refuse("data_dir", place, ACCEPTED)
    return FileList(place, columns)


def _exists(place: str) -> bool:
    if remote.is_remote(place):
        return True  # whoever opens it says more
    return os.path.exists(place) or bool(zipped.located(os.path.join(place, "")))


def _is_list(place: str) -> bool:
    return place.lower().endswith(LISTS) and not os.path.isdir(place)


def _real_paths(found: Found) -> dict[str, str]:
    """Name of each image -> its path, without links to the place."""
    root = found.root if remote.is_remote(found.root) else os.path.realpath(found.root)
    joined = {name: remote.join(root, name) for name in found.files}
    return {
        name: path if remote.is_remote(path) else os.path.normpath(path)
        for name, path in joined.items()
    }


def _name_of(found: Found) -> str:
    """What a user called a place: train of data/train.csv."""
    if isinstance(found, FileList):
        return Path(found.path).stem
    path = Path(os.path.abspath(found.root))
    return path.stem if isinstance(found, Archive) else path.name
