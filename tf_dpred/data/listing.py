"""All image files below a directory, found in one walk; what is left out is counted.

A link to a file is read wherever it points. A link to a directory is followed unless
the directory is listed anyway, or has the folder inside of it: so every walk ends. What
is no image of the user is left out, and one line says how much, why, and an example:
hidden files and directories, those that file managers and servers make, work
directories, files that are not regular (reading a pipe would wait for ever), files
larger than any image, and images of kinds that are not read.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data import contents, decoders, remote
from tf_dpred.data.image_files import EXTENSIONS, MAX_BYTES, most_bytes, special_kind
from tf_dpred.data.remote import Base
from tf_dpred.system.files import printable

# Kinds of images that there is no decoder for.
OTHER_KINDS = (
    *(".arw", ".cr2", ".cr3", ".dng", ".ico", ".j2k"),
    *(".jp2", ".jxl", ".nef", ".orf", ".pbm", ".pgm", ".ppm", ".psd", ".raf", ".raw"),
    *(".rw2", ".svg", ".tga"),
)

# What file managers, servers and archivers put beside images: thumbnails, the bin.
OTHER_PROGRAMS = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@__thumb",
        "@eadir",
        "@recycle",
        "__macosx",
        "lost+found",
        "system volume information",
    }
)

LOOKED_AT = 64
"""PNG files at most whose opacity is looked at before a run."""

WORKDIR_MARK = "flags.json"
"""A directory that holds such a file is the work directory of a run."""


class Found:
    """The images of one place, as they were when it was looked at.

    Attributes:
      root: that the names are relative to.
      files: names of the images; sorted, or in the order of a list.
      broken: names of images that are not there.
      directories: relative paths of the directories that were looked into, sorted.
    """

    is_list = False
    """Whether somebody wrote down the names; what is missing is a fault then."""

    def __init__(self, root: Base):
        self.root = root
        self.files: list[str] = []
        self.broken: list[str] = []
        self.directories: list[str] = []
        self._kinds: Counter[str] = Counter()
        self._left_out: dict[str, tuple[int, str]] = {}

    @property
    def names(self) -> list[str]:
        """The images and the broken ones, sorted; each is used or named."""
        return sorted(self.files + self.broken)

    @property
    def called(self) -> str:
        """What the place is called in messages."""
        return printable(str(self.root))

    def left_out(self, broken: bool = False, why: str = "") -> str:
        """What is not in `files`, by its kind: "2 .heic; hidden: 64 (._a.jpg)"; or "".

        Args:
          broken: whether those in `broken` are left out as well.
          why: what to add to the kinds of images that cannot be read.
        """
        phrases = []
        if self._kinds:
            kinds = sorted(self._kinds.items())
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds)
            phrases.append(counts + why)
        phrases += [
            f"{reason}: {count} ({example})"
            for reason, (count, example) in sorted(self._left_out.items())
        ]
        if self.broken and broken:
            phrases.append(self._of_broken())
        return "; ".join(phrases)

    def _of_broken(self) -> str:
        return f"links to nothing: {len(self.broken)} ({printable(self.broken[0])})"

    def log_losses(self, broken: bool = False) -> None:
        """Says what is left out, in one line, and whether images have opacity."""
        if text := self.left_out(broken, ", which are not read"):
            logging.warning("left out in %s: %s", self.called, text)
        self.log_opacity()

    def log_opacity(self) -> None:
        """Says whether PNG files have opacity; `LOOKED_AT` at most are looked at."""
        pngs = [file for file in self.files if file.lower().endswith(".png")]
        looked_at = pngs[:: max(1, -(-len(pngs) // LOOKED_AT))]
        found = [f for f in looked_at if _has_opacity(remote.join(self.root, f))]
        if found:
            logging.info(
                "in %s %d of %d PNG files that were looked at have opacity (%s): "
                "--background is the colour behind what is transparent",
                self.called,
                len(found),
                len(looked_at),
                printable(found[0]),
            )

    def leave_out(self, unwanted: set[str], reason: str) -> None:
        """Takes names out of `files`, and counts them."""
        for file in self.files:
            if file in unwanted:
                self._note(reason, file)
        self.files = [file for file in self.files if file not in unwanted]

    def _is_wanted(self, path: str, name: str) -> bool:
        """Whether to look into a directory."""
        if name.startswith("."):
            self._note("hidden", path)
        elif name.lower() in OTHER_PROGRAMS:
            self._note("directories of other programs", path)
        else:
            return True
        return False

    def _is_image(self, path: str, name: str) -> bool:
        """Whether a file is called as images are; what cannot be read is counted."""
        kind = os.path.splitext(name)[1].lower()
        hidden = name.startswith(".")
        install = decoders.missing(kind)
        if (kind in OTHER_KINDS or install) and not hidden:
            self._kinds[f"{kind} (pip install {install!r})" if install else kind] += 1
        if kind in EXTENSIONS and hidden:
            self._note("hidden", path)
        return kind in EXTENSIONS and not hidden and not install

    def spread_pages(self) -> None:
        """Puts the pages of files that have several in their place: stack.tif#2."""
        with ThreadPoolExecutor() as threads:
            counts = list(threads.map(self._pages_of, self.files))
        self.files = [
            f"{file}#{number}" if count > 1 else file
            for file, count in zip(self.files, counts, strict=True)
            for number in range(1, count + 1)
        ]
        if more := sum(count > 1 for count in counts):
            logging.info(
                "in %s %d files have several pages: %d images in all",
                self.called,
                more,
                len(self.files),
            )

    def _pages_of(self, file: str) -> int:
        if not file.lower().endswith(decoders.OF_SEVERAL):
            return 1
        return decoders.count(str(remote.join(self.root, file)))

    def _add_file(self, path: str, found: os.stat_result) -> None:
        """Adds an image, or counts why it is none."""
        if special := special_kind(found.st_mode):
            self._note("no regular files", path, special)
        else:
            self._add_sized(path, found.st_size)

    def _add_sized(self, path: str, size: int | None) -> None:
        if size is not None and size > most_bytes(path):
            self._note(f"larger than {MAX_BYTES:,} bytes", path)
        else:
            self.files.append(path)

    def _note(self, reason: str, path: str, detail: str = "") -> None:
        count, example = self._left_out.get(reason, (0, ""))
        example = example or printable(path) + (f": {detail}" if detail else "")
        self._left_out[reason] = count + 1, example


class Names(Found):
    """The images among names that somebody else lists: an archive, a bucket.

    What a folder would leave out is left out.
    """

    def __init__(self, root: Base):
        super().__init__(root)
        self._around: set[str] = set()
        self._unwanted: dict[str, bool] = {}
        self._sized: dict[str, int | None] = {}

    def add(self, path: str, size: int | None) -> None:
        """Adds a file, of so many bytes if they are known; others are counted."""
        around, _, name = path.rpartition("/")
        self._around.add(around)
        if name == WORKDIR_MARK and around:
            self._unwanted[around] = True
        if name.lower().endswith((*EXTENSIONS, *OTHER_KINDS)):
            self._sized[path] = size

    def may_be_image(self, name: str) -> bool:
        """Whether a file is called as images are."""
        return name.lower().endswith(EXTENSIONS)

    def finish(self) -> None:
        """Chooses the images, when all files were added."""
        for directory in sorted(self._unwanted):
            self._note("work directories", directory)
        for directory in sorted(self._around):
            self._is_within_wanted(directory)
        for path, size in sorted(self._sized.items()):
            around, _, name = path.rpartition("/")
            if not self._is_within_wanted(around) or not self._is_image(path, name):
                continue
            self._add_sized(path, size)
        self.directories = sorted(d for d, bad in self._unwanted.items() if not bad)

    def _is_within_wanted(self, directory: str) -> bool:
        """Whether to look into a directory, and into those around it."""
        if not directory:
            return True
        if directory not in self._unwanted:
            around, _, name = directory.rpartition("/")
            within = self._is_within_wanted(around)
            self._unwanted[directory] = not (
                within and self._is_wanted(directory, name)
            )
        return not self._unwanted[directory]


class Listing(Found):
    """The images below a directory.

    Args:
      root: the directory.
      workdir: of this run, in which it will write pictures; or None.

    Raises:
      Refused: `root` cannot be listed, or is the work directory.
    """

    root: Path

    def __init__(self, root: Path, workdir: str | None = None):
        super().__init__(root)
        self._real_root = os.path.realpath(root)
        self._workdir = None if workdir is None else os.path.realpath(workdir)
        if self._real_root == self._workdir:
            refuse(
                "workdir",
                workdir,
                "a directory other than --data_dir, so that no picture of the run "
                "becomes one of its images",
            )
        real: set[str] = set()
        links = self._walk("", self._real_root, real)
        for link in sorted(links):
            # Links of one tree may share a target, but within it each directory is
            # listed once. That bounds the walk.
            waiting, seen = [link], set(real)
            while waiting:
                waiting += sorted(self._follow(waiting.pop(0), seen))
        for found in (self.files, self.broken, self.directories):
            found.sort()
        self._leave_out_arrays()

    def _walk(self, below: str, real: str, seen: set[str]) -> list[str]:
        """Adds what is in a directory and below it -> the links to directories."""
        links: list[str] = []
        waiting = [(below, real)]
        while waiting:
            below, real = waiting.pop()
            if real in seen:
                self._note("directories listed elsewhere", below)
                continue
            seen.add(real)
            try:
                with os.scandir(self.root / below) as scanned:
                    # In one order, so that the examples are the same every time.
                    entries = sorted(scanned, key=lambda entry: entry.name)
            except OSError as error:
                if not below:
                    reason = f"a directory that can be read ({error.strerror})"
                    refuse("data_dir", str(self.root), reason)
                self._note("unreadable directories", below, str(error.strerror))
                continue
            if below and self._is_workdir(real, entries):
                self._note("work directories", below)
                continue
            if below:
                self.directories.append(below)
            for entry in entries:
                name = os.path.join(below, entry.name)
                if entry.is_symlink():
                    if self._is_directory_link(name, entry.name):
                        links.append(name)
                elif not entry.is_dir(follow_symlinks=False):
                    self._add(name, entry.name, entry)
                elif self._is_wanted(name, entry.name):
                    waiting.append((name, os.path.join(real, entry.name)))
        return links

    def _follow(self, link: str, seen: set[str]) -> list[str]:
        real = os.path.realpath(self.root / link)
        around = os.path.join(real, "")
        if real in seen or os.path.join(self._real_root, "").startswith(around):
            self._note("links to directories listed elsewhere", link)
            return []
        return self._walk(link, real, seen)

    def _is_workdir(self, real: str, entries: list[os.DirEntry[str]]) -> bool:
        marked = any(entry.name == WORKDIR_MARK for entry in entries)
        return marked or real == self._workdir

    def _is_directory_link(self, path: str, name: str) -> bool:
        """Whether a link leads to a directory to look into; else it is added."""
        try:
            found = os.stat(self.root / path)
        except OSError:  # it leads nowhere, or in a circle
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                self.broken.append(path)
            return False
        if stat.S_ISDIR(found.st_mode):
            return self._is_wanted(path, name)
        self._add(path, name, found)
        return False

    def _add(
        self, path: str, name: str, found: os.DirEntry[str] | os.stat_result
    ) -> None:
        """Adds what is no directory to the images, or counts it."""
        if not self._is_image(path, name):
            return
        try:
            if isinstance(found, os.DirEntry):
                found = found.stat(follow_symlinks=False)
        except OSError:
            # It vanished, or the disk fails: whoever reads it says so.
            self.files.append(path)
            return
        self._add_file(path, found)

    def _leave_out_arrays(self) -> None:
        """Files of NumPy are images only where no others are, else annotations."""
        arrays = {f for f in self.files if f.lower().endswith((".npy", ".npz"))}
        if len(arrays) < len(self.files):
            self.leave_out(arrays, "arrays beside images")


def _has_opacity(path: str) -> bool:
    try:
        start = contents.start_of(path, 26)
    except OSError:
        return False  # whoever decodes it says so
    return start.startswith(b"\x89PNG") and start[25:] in (b"\x04", b"\x06")
