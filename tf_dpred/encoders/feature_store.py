"""Writes features of image files piece by piece, so that a kill costs little.

Every kind of output is a folder first (see `embeddings`), which grows: what a killed
process has saved is continued, and ends at the same bytes. For features.npz and
features.parquet it is `.features.npz.part`, of which the file is made at the end. More
images need more memory for their names only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import numpy as np
from absl import logging

from tf_dpred.config import refuse
from tf_dpred.encoders import embeddings
from tf_dpred.encoders.embeddings import FILES, MANIFEST
from tf_dpred.records.lock import Lock
from tf_dpred.system import json_files
from tf_dpred.system.files import (
    check_can_write,
    errors_named,
    output_file,
    printable,
    whole,
)

FORMAT_VERSION = 1
KINDS = "an npz file (or .parquet, or a folder: features/)"
BLOCK = 8192
"""Rows that are looked at together when a file is made of a folder."""


def digest(names: Iterable[str]) -> str:
    """A hash of the names of files, in their order."""
    found = hashlib.sha256()
    for name in names:
        found.update(os.fsencode(name) + b"\0")
    return found.hexdigest()[:16]


class Store:
    """A folder of features that grows, for one process at a time.

    Args:
      path: of the folder, which is made if it is missing.
      weights: a hash of the encoder's.
      names: of all files that are to be encoded, in their order.
      anew: drop what the folder holds of other images or weights.

    Attributes:
      done: how many of the names were worked on, usable or not.
      rows: how many of them have features.
      weights: as given.
      widths: name of an output -> its width; empty without rows.

    Raises:
      Refused: another process writes to it, or it is damaged, or of other images or
        weights.
      OSError: it cannot be made.
    """

    def __init__(
        self, path: Path, weights: str, names: Sequence[str], *, anew: bool = False
    ):
        self.path, self.weights = path, weights
        path.mkdir(exist_ok=True)
        self._lock = Lock(path / ".lock", "output")
        self._lock.start_training()
        self._known = {
            "format_version": FORMAT_VERSION,
            "weights": weights,
            "images": digest(names),
            "listed": len(names),
        }
        self._files: dict[str, BinaryIO] = {}
        self.widths: dict[str, int] = {}
        self.done = self.rows = self._bytes = 0
        found = json_files.read(path / MANIFEST, embeddings.MANIFEST_SHAPE, "output")
        try:
            if found is not None:
                self._continue(found, anew)
            self.save(self.done)
        except BaseException:
            self.close()
            raise

    @property
    def is_complete(self) -> bool:
        return self.done == self._known["listed"]

    def _continue(self, found: dict[str, Any], anew: bool) -> None:
        for name, value in self._known.items():
            if found[name] != value:
                if anew:
                    logging.info("%s has other %s: begun anew", self.path, name)
                    return
                refuse(
                    "output",
                    str(self.path),
                    f"another name, or a folder with the {name} {value}",
                    detail=f", which holds features with the {name} {found[name]}",
                )
        self.done, self.rows = found["done"], found["rows"]
        self._bytes, self.widths = found["bytes_of_names"], found["widths"]
        if self.done and not self.is_complete:
            logging.info("continued at %d of %d images", self.done, found["listed"])

    def append(self, names: Sequence[str], outputs: Mapping[str, np.ndarray]) -> None:
        """Adds rows.

        Args:
          names: n files.
          outputs: name -> float32 [n, width].

        Raises:
          OSError: the disk is full, or the like.
        """
        self.widths = {name: rows.shape[1] for name, rows in outputs.items()}
        self._open()
        lines = "".join(json.dumps(name) + "\n" for name in names)
        self._write(FILES, lines.encode())
        for name, rows in outputs.items():
            self._write(f"{name}.npy", rows.astype("<f4").tobytes())
        self.rows += len(names)
        self._bytes += len(lines)

    def save(self, done: int) -> None:
        """Puts what was added on the disk, where a later process continues.

        Args:
          done: how many of the names were worked on.

        Raises:
          OSError: as `append`.
        """
        self.done = done
        for name, file in self._files.items():
            with errors_named(self.path / name):
                if width := self.widths.get(name.removesuffix(".npy")):
                    file.seek(0)
                    file.write(_header(self.rows, width))
                    file.seek(0, os.SEEK_END)
                file.flush()
                os.fsync(file.fileno())
        json_files.write(
            self.path / MANIFEST,
            {
                **self._known,
                "done": done,
                "rows": self.rows,
                "bytes_of_names": self._bytes,
                "widths": self.widths,
            },
        )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the folder up."""
        for file in self._files.values():
            file.close()
        self._files = {}
        self._lock.remove()
        self._lock.release()

    def _open(self) -> None:
        """Opens the files; what a killed process added to the last save is cut off."""
        if self._files:
            return
        sizes = {FILES: self._bytes}
        for name, width in self.widths.items():
            header = len(_header(self.rows, width))
            sizes[f"{name}.npy"] = header + 4 * width * self.rows
        for name, size in sizes.items():
            path = self.path / name
            with errors_named(path):
                file = path.open("r+b" if self.rows else "w+b")
                self._files[name] = file
                if self.rows and os.path.getsize(path) < size:
                    _refuse_damaged(self.path, f" with a {name} that was cut short")
                file.truncate(size)
                file.seek(size)

    def _write(self, name: str, content: bytes) -> None:
        with errors_named(self.path / name):
            self._files[name].write(content)


def _header(rows: int, width: int) -> bytes:
    """Of an .npy file; NumPy makes it as long for any number of rows."""
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, shape)
    return file.getvalue()


def _refuse_damaged(path: Path, detail: str) -> NoReturn:
    refuse("output", str(path), "a folder that is whole, or a new one", detail=detail)


@dataclasses.dataclass(frozen=True)
class Target:
    """What `--output` asks for.

    Attributes:
      path: of the file or folder.
      kind: `folder`, `npz` or `parquet`.
    """

    path: Path
    kind: str

    @classmethod
    def of(cls, name: str | None) -> Target:
        """Checked before the work whose result it takes.

        A folder's name ends with a slash, unless it holds features already.

        Raises:
          Refused: no name, or nothing can be written there; or pyarrow is missing.
        """
        path = Path(name or "")
        if name and (name.endswith("/") or (path / MANIFEST).exists()):
            strange = os.path.lexists(path) and not path.is_dir()
            if strange or not path.parent.is_dir() or _holds_others(path):
                accepted = "the name of a new folder, or one that --mode=embed began"
                refuse("output", name, f"{accepted}, in a directory that exists")
            try:
                check_can_write((path if path.is_dir() else path.parent) / "any")
            except OSError as error:
                accepted = f"a folder that can be written to ({error.strerror})"
                refuse("output", name, accepted)
            return cls(path, "folder")
        path = output_file(name, KINDS)
        if path.suffix != ".parquet":
            return cls(path, "npz")
        embeddings.load_parquet("output", name)
        return cls(path, "parquet")

    def open(self, weights: str, names: Sequence[str]) -> Store:
        """The folder that the features go to first, see `Store`."""
        if self.kind == "folder":
            return Store(self.path, weights, names)
        return Store(self._part, weights, names, anew=True)

    @property
    def _part(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    def finish(self, store: Store) -> None:
        """Makes the file of a store that is complete."""
        if self.kind == "folder":
            return
        with whole(self.path) as file:
            {"npz": _write_npz, "parquet": _write_parquet}[self.kind](store, file)
        self.discard()

    def discard(self) -> None:
        """Removes the folder that the file was made of, or that has no features."""
        shutil.rmtree(self.path if self.kind == "folder" else self._part)


def _holds_others(path: Path) -> bool:
    """Whether it is a folder of others; a killed process leaves hidden files."""
    if not path.is_dir() or (path / MANIFEST).exists():
        return False
    return any(not inside.name.startswith(".") for inside in path.iterdir())


def _write_npz(store: Store, file: BinaryIO) -> None:
    """As `numpy.savez` would of arrays in memory."""
    width = max(map(len, embeddings.names(store.path)))
    header = io.BytesIO()
    names_shape = {
        "descr": f"<U{width}",
        "fortran_order": False,
        "shape": (store.rows,),
    }
    np.lib.format.write_array_header_1_0(header, names_shape)
    with zipfile.ZipFile(file, "w") as archive:
        with _entry(archive, "files") as entry:
            entry.write(header.getvalue())
            for names in _blocks(embeddings.names(store.path)):
                entry.write(np.array(names, f"<U{width}").tobytes())
        for name in store.widths:
            with _entry(archive, name) as entry, _array(store.path, name) as source:
                shutil.copyfileobj(source, entry, 2**20)
        with _entry(archive, "weights") as entry:
            np.lib.format.write_array(entry, np.array(store.weights))


def _entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    # A ZipInfo has one date for all, a name the present one in some versions.
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _write_parquet(store: Store, file: BinaryIO) -> None:
    """Columns `file`, `representation` and `projection`; bytes of names are escaped."""
    pyarrow, parquet = embeddings.load_parquet("output", str(store.path))
    arrays = {name: embeddings.mapped(store.path, name) for name in store.widths}
    fields = [("file", pyarrow.string())]
    fields += [
        (n, pyarrow.list_(pyarrow.float32(), w)) for n, w in store.widths.items()
    ]
    about = {"weights": store.weights}
    schema = pyarrow.schema(fields, metadata=about)
    with parquet.ParquetWriter(file, schema) as writer:
        start = 0
        for names in _blocks(embeddings.names(store.path)):
            columns = [pyarrow.array(map(printable, names), pyarrow.string())]
            for name, rows in arrays.items():
                block = np.ascontiguousarray(rows[start : start + len(names)])
                columns.append(
                    pyarrow.FixedSizeListArray.from_arrays(
                        block.reshape(-1), store.widths[name]
                    )
                )
            writer.write_table(pyarrow.table(columns, schema=schema))
            start += len(names)


def _blocks(names: Iterator[str]) -> Iterator[list[str]]:
    while block := list(itertools.islice(names, BLOCK)):
        yield block


def _array(folder: Path, name: str) -> BinaryIO:
    return (folder / f"{name}.npy").open("rb")
