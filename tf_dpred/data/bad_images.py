"""Image files that cannot be used: named, counted, and replaced while a run goes on."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf
from absl import logging

from tf_dpred.data import image_files
from tf_dpred.data.pixels import Pixels
from tf_dpred.errors import RunFailed, TooManyBadImages, UnreadableImage
from tf_dpred.system.files import printable

NO_LABEL = "an example without label is evaluated:"
"""What the error of an input pipeline begins with where a label is needed."""


class BadImages:
    """Remembers the files that could not be used; for any number of threads.

    Args:
      most: so many files may be bad; one more is an error.
      record: a file to which a line is added for each: path, tab and reason. A line
        that is there already is not repeated. None: no such file.
    """

    def __init__(self, most: int = 100, record: Path | None = None):
        self.most = most
        self.record = record
        self._reasons: dict[str, str] = {}
        self._complaint = ""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._reasons)

    def warn_of_all(self) -> None:
        """Logs how many files were replaced, if there were any."""
        if self._reasons:
            logging.warning(
                "%d image files could not be used since the start, and were replaced "
                "by others (see %s)",
                len(self),
                self.record or "the log",
            )

    def add(self, path: str, reason: str) -> None:
        """Counts a file once, and logs it.

        Raises:
          TooManyBadImages: there are more than `most` now.
        """
        name = printable(path)
        with self._lock:
            if path not in self._reasons:
                self._reasons[path] = reason
                logging.warning("left out %s: %s", name, reason)
                self._write(f"{name}\t{reason}\n")
            if len(self) > self.most and not self._complaint:
                # Whichever thread raises it first, the message is the same.
                self._complaint = (
                    f"--max_bad_images: received {self.most}, and {len(self)} image "
                    f"files cannot be used, the last of them {name} ({reason}), "
                    "accepted: at least their number. --mode=check_images lists all "
                    "those of a folder."
                )
        if self._complaint:
            raise TooManyBadImages(self._complaint)

    def usable(
        self, paths: Sequence[str], index: int, pixels: Pixels = image_files.USUAL
    ) -> int:
        """The first index from `index` on, in a circle, of a file that can be used.

        Raises:
          TooManyBadImages: see `add`, or there is none.
        """
        for offset in range(len(paths)):
            place = (index + offset) % len(paths)
            path = paths[place]
            reason = self._reasons.get(path) or image_files.problem(path, pixels)
            if reason is None:
                return place
            self.add(path, reason)
        raise TooManyBadImages(
            f"none of {len(paths)} image files can be used, among them "
            f"{printable(paths[index])} ({self._reasons[paths[index]]})."
        )

    def _write(self, line: str) -> None:
        if self.record is None:
            return
        try:
            # The encoding of some locales is ASCII.
            with self.record.open("a+", errors="backslashreplace") as file:
                file.seek(0)
                if line not in file.readlines():
                    file.write(line)
        except OSError as error:
            logging.error("%s is not complete: %s", self.record, error)


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """Turns TensorFlow's error about an image file into one that names the file.

    Raises:
      TooManyBadImages: was raised inside an input pipeline.
      RunFailed: a label that is evaluated is withheld.
      UnreadableImage: a file vanished, may not or cannot be read.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"TooManyBadImages: (.*)", error.message)
        if found:
            raise TooManyBadImages(found[1]) from None
        found = re.search(rf"{NO_LABEL}\] ?\[?(.*?)\]", error.message)
        if found:
            raise RunFailed(f"{NO_LABEL} {found[1]}") from None
        damaged_record = isinstance(error, tf.errors.DataLossError)
        if damaged_record or image_files.is_of_the_system(error):
            raise UnreadableImage(image_files.reason_of(error)) from error
        raise
