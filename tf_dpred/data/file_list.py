"""A list of image files: text, CSV or Parquet, with labels and splits where it has any.

    photos.txt         a path a line, or a path and a label
    photos.csv, .tsv   path[,label[,split]], with a header or without
    photos.parquet     the same columns

Paths are relative to the directory of the list, absolute, or addresses (s3://...).
Columns are found by their names, `NAMES`, or named by `--columns`; without a header
they are in that order.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, NoReturn

from absl import logging

from tf_dpred.config import refuse
from tf_dpred.data import contents, layout, remote
from tf_dpred.data.decoders import file_of
from tf_dpred.data.image_files import EXTENSIONS
from tf_dpred.data.layout import Split
from tf_dpred.data.listing import OTHER_KINDS, Found
from tf_dpred.system.files import printable

LISTS = (".txt", ".csv", ".tsv", ".parquet")

# What people call the columns, the most telling name first.
NAMES = {
    "path": (
        *("path", "file_path", "filepath", "image_path", "img_path", "file_name"),
        *("filename", "file", "image_file", "image_name", "image", "img"),
    ),
    "label": ("label", "class", "category", "class_name", "label_name", "target"),
    "split": ("split", "subset", "partition", "set"),
}
_DELIMITERS = ",;\t|"
_IMAGE = "|".join(kind[1:] for kind in (*EXTENSIONS, *OTHER_KINDS))
_PATH_AND_LABEL = re.compile(rf"(.+\.(?:{_IMAGE}))\s+(\S+)", re.IGNORECASE)
# The system is asked about so many files at once, by as many threads: a network's
# file system takes its time for each.
_AT_ONCE, _THREADS = 500, 16


class Row(NamedTuple):
    """An image of a list; None where the list says nothing."""

    path: str
    label: str | None
    split: str | None


class FileList(Found):
    """The images of a list, in its order.

    An image with two labels has none. What is not there is counted, in `broken`.

    Args:
      path: of the list.
      columns: value of `--columns`.

    Raises:
      Refused: the list cannot be read, names no image, has no column of paths, or has
        an image in two splits.
    """

    is_list = True

    def __init__(self, path: str | os.PathLike[str], columns: str | None = None):
        self.path = os.fspath(path)
        super().__init__(remote.Root(os.path.dirname(self.path)))
        self._rows: dict[str, Row] = {}
        known: dict[str, str] = {}
        two_labels: set[str] = set()
        for row in self._read(columns):
            if not row.path:
                self._note("rows without a path", f"beside {row.label or row.split}")
                continue
            first = known.setdefault(_key(row.path), row.path)
            before = self._rows.setdefault(first, row)
            if before is row:
                continue
            self._note("listed twice", first)
            if before.split != row.split:
                each = f"{before.split or 'none'} and {row.split or 'none'}"
                self._refuse("one split for an image", f", where {first} is in {each}")
            if before.label != row.label:
                two_labels.add(first)
        for name in two_labels:
            self._rows[name] = self._rows[name]._replace(label=None)
        if two_labels:
            logging.warning(
                "in %s more than one label, taken as unlabelled: %d (%s)",
                self.called,
                len(two_labels),
                printable(min(two_labels)),
            )
        self._look()
        if not self.files:
            text = self.left_out(broken=True)
            self._refuse("a list of images that exist", f" ({text})" if text else "")

    @property
    def called(self) -> str:
        return printable(self.path)

    @property
    def names(self) -> list[str]:
        """The images and those that are missing, in the order of the list."""
        all_of_them = {*self.files, *self.broken}
        return [name for name in self._rows if name in all_of_them]

    def splits(self) -> dict[str, Split]:
        """The splits that the list tells apart: of training first, then of tests."""
        rows = [self._rows[name] for name in self.files]
        if not any(row.split for row in rows):
            return {layout.TRAIN: self._split(self.files)}
        found: dict[str, list[str]] = {}
        for row in rows:
            if row.split is not None:
                # "Training" and "train" are one.
                name = layout.purpose(row.split) or row.split
                found.setdefault(name, []).append(row.path)
        if layout.TRAIN not in found:
            listed = printable(", ".join(sorted(found)))
            self._refuse("a split that is called train", f" of the splits {listed}")
        order = (layout.TRAIN, layout.VAL, layout.TEST)
        names = [name for name in order if name in found]
        names += sorted(found.keys() - set(order))
        return {name: self._split(found[name]) for name in names}

    def log_losses(self, broken: bool = False) -> None:
        # What is missing is said in one line, even if each file is named later.
        super().log_losses(broken=True)

    def row(self, name: str) -> Row:
        """What the list says of an image."""
        return self._rows[name]

    def _of_broken(self) -> str:
        return (
            f"missing: {len(self.broken)} of {len(self._rows)} "
            f"({printable(self.broken[0])})"
        )

    def _split(self, files: Sequence[str]) -> Split:
        return Split("", files, [self._rows[name].label for name in files])

    def _look(self) -> None:
        """Asks the system about each file."""

        def ask(names: Sequence[str]) -> list[os.stat_result | int | None]:
            paths = [remote.join(self.root, name) for name in names]
            return [_stat(path) or contents.size(path) for path in paths]

        names = list(self._rows)
        parts = [names[i : i + _AT_ONCE] for i in range(0, len(names), _AT_ONCE)]
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                answers = [found for part in pool.map(ask, parts) for found in part]
        except OSError as error:
            self._refuse(f"a list of files that can be read ({error})")
        for name, found in zip(names, answers, strict=True):
            kind = os.path.splitext(name)[1].lower()
            if found is None:
                self.broken.append(name)
            elif kind in OTHER_KINDS:
                self._kinds[kind] += 1
            elif isinstance(found, int):
                self._add_sized(name, found)
            else:
                self._add_file(name, found)

    def _refuse(self, accepted: str, detail: str = "") -> NoReturn:
        refuse("data_dir", self.path, accepted, detail=detail)

    # Reading -------------------------------------------------------------------------

    def _read(self, columns: str | None) -> Iterator[Row]:
        try:
            if not remote.is_remote(self.path):
                # To read from a pipe of that name would wait for ever.
                if not stat.S_ISREG(os.stat(self.path).st_mode):
                    self._refuse("a file")
            content = contents.read_file(self.path)
        except OSError as error:
            self._refuse(f"a list that can be read ({error.strerror})")
        kind = os.path.splitext(self.path)[1].lower()
        if kind == ".parquet":
            return self._of_parquet(content, columns)
        return self._of_text(content, kind, columns)

    def _of_text(self, content: bytes, kind: str, columns: str | None) -> Iterator[Row]:
        try:
            rows = list(_cells(_decoded(content), kind, columns))
        except (csv.Error, UnicodeError) as error:
            self._refuse("a text of rows", f" ({error})")
        if not rows:
            self._refuse("at least one path", ", which is empty")
        header = rows[0]
        chosen = self._chosen(header, columns)
        if chosen is None:
            if columns is not None or not self._is_path(header[0]):
                self._refuse_columns(header, columns)
            most = max(map(len, rows))
            if most > len(NAMES):
                self._refuse(
                    "a header, or the columns path, label and split",
                    f" with {most} columns",
                )
            chosen = list(range(most))
        else:
            rows = rows[1:]
        where = [*chosen, None, None][: len(NAMES)]
        for row in rows:
            path, label, split = (
                row[i] if i is not None and i < len(row) else "" for i in where
            )
            yield Row(path, label or None, split or None)

    def _of_parquet(self, content: bytes, columns: str | None) -> Iterator[Row]:
        import pyarrow
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(io.BytesIO(content))
            header = file.schema_arrow.names
            chosen = self._chosen(header, columns)
            if chosen is None:
                self._refuse_columns(header, columns)
            names = [None if i is None else header[i] for i in chosen]
            table = file.read([name for name in names if name is not None])
        except (pyarrow.ArrowException, OSError) as error:
            self._refuse("a Parquet file", f" ({str(error).splitlines()[0]})")
        kept = [
            [None] * table.num_rows if name is None else table.column(name).to_pylist()
            for name in [*names, None, None][: len(NAMES)]
        ]
        if strange := next((p for p in kept[0] if not _is_text(p)), None):
            kind = type(strange).__name__
            self._refuse("a column of paths", f" with {kind} in its {names[0]}")
        for path, label, split in zip(*kept, strict=True):
            yield Row(_text(path) or "", _text(label), _text(split))

    def _chosen(
        self, header: Sequence[str], columns: str | None
    ) -> list[int | None] | None:
        """The places of path, label and split in a header; None if it is none."""
        cells = [_normal(cell) for cell in header]
        if columns is not None:
            wanted = [[_normal(name)] for name in columns.split(",")]
            if len(wanted) > len(NAMES) or not wanted[0][0]:
                self._refuse_columns(header, columns)
        else:
            wanted = list(map(list, NAMES.values()))
        found = [
            next((cells.index(n) for n in names if n and n in cells), None)
            for names in wanted
        ]
        asked = zip(found, wanted, strict=True) if columns is not None else ()
        if found[0] is None or any(i is None and n != [""] for i, n in asked):
            return None
        names = [None if i is None else header[i] for i in found]
        said = [
            f"{what} of {name!r}"
            for what, name in zip(("paths", "labels", "splits"), names, strict=False)
            if name is not None
        ]
        logging.info("%s: %s", self.called, printable(", ".join(said)))
        return found

    def _refuse_columns(self, header: Sequence[str], columns: str | None) -> NoReturn:
        listed = printable(", ".join(header[:20]))
        refuse(
            "columns",
            columns,
            "the columns of path, label and split, the last two as they are there "
            "(id,class,fold), among those of the list",
            detail=f" for {self.called} with the columns {listed}",
        )

    def _is_path(self, cell: str) -> bool:
        known = file_of(cell)[0].lower().endswith((*EXTENSIONS, *OTHER_KINDS))
        return known or _stat(remote.join(self.root, cell)) is not None


def _key(name: str) -> str:
    """What is the same for two names of one file."""
    return name if remote.is_remote(name) else os.path.normpath(name)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(file_of(str(path))[0])
    except (OSError, ValueError):  # a name may hold what no file system takes
        return None


def _normal(name: str) -> str:
    return re.sub(r"[ -]", "_", name.strip().lower())


def _decoded(content: bytes) -> str:
    """Text of UTF-8, or of UTF-16 with its mark; other bytes stay what they are."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _cells(text: str, kind: str, columns: str | None) -> Iterator[list[str]]:
    """The rows of a text that hold anything, cell by cell."""
    # Not str.splitlines, for which names may hold an end of line.
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    delimiter = _delimiter(lines[:20], kind, columns) if lines else None
    if delimiter is not None:
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=delimiter,
            skipinitialspace=delimiter != "\t",
            strict=True,
        )
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                yield cells
        return
    labelled = [_PATH_AND_LABEL.fullmatch(line.strip()) for line in lines]
    for line, found in zip(lines, labelled, strict=True):
        yield list(found.groups()) if found and all(labelled) else [line.strip()]


def _delimiter(first: Sequence[str], kind: str, columns: str | None) -> str | None:
    """What stands between the cells; None for a text of a path, or two words, a line.

    Args:
      first: lines of the list.
      kind: of the file.
      columns: value of `--columns`.
    """
    known = set(NAMES["path"]) if columns is None else {_normal(columns.split(",")[0])}
    for delimiter in _DELIMITERS:
        cells = first[0].split(delimiter)
        if known & {_normal(cell.strip(" \"'")) for cell in cells}:
            return delimiter
    if kind == ".tsv" or (kind == ".txt" and all("\t" in line for line in first)):
        return "\t"
    if kind == ".txt":
        return None
    for delimiter in _DELIMITERS:
        if len({line.count(delimiter) for line in first}) == 1 and (
            delimiter in first[0]
        ):
            return delimiter
    return ","


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes)


def _text(value: Any) -> str | None:
    """A cell of a table; None for what is missing."""
    if value is None or value != value:
        return None
    if isinstance(value, bytes):
        return os.fsdecode(value).strip() or None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # whole numbers beside missing ones
    return str(value).strip() or None
