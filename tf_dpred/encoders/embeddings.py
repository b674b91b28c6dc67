"""Features of image files on the disk, as --mode=embed writes them.

    features/                   as --output=features/ makes it
      manifest.json             of which images and weights, and how far it is
      files.jsonl               the name of each row's file, a JSON string a line
      representation.npy        float32 [N, r], for numpy.load(..., mmap_mode="r")
      projection.npy            float32 [N, d]

features.npz and features.parquet hold the same in one file.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpred.config import refuse
from tf_dpred.errors import Refused
from tf_dpred.system import json_files

MANIFEST, FILES = "manifest.json", "files.jsonl"
ACCEPTED = "a file that --mode=embed wrote, or its folder"
MANIFEST_SHAPE = {
    "format_version": int,
    "weights": str,
    "images": str,
    "listed": int,
    "done": int,
    "rows": int,
    "bytes_of_names": int,
    "widths": {str: int},
}


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """What was written, open for reading.

    Attributes:
      path: of the file or folder.
      files: names [N].
      representation: float32 [N, r]; of a folder, it stays on the disk.
      weights: a hash of the encoder's; "" if unknown.
    """

    path: Path
    files: Sequence[str]
    representation: np.ndarray
    weights: str

    @classmethod
    def read(cls, name: str | None) -> Embeddings:
        """Opens the value of `--features`.

        Raises:
          Refused: it is not what --mode=embed writes, or not complete.
        """
        path = Path(name or "")
        # To read from a pipe of that name would wait for ever.
        if not name or (path.exists() and not (path.is_file() or path.is_dir())):
            refuse("features", name, ACCEPTED)
        try:
            if path.is_dir():
                read = _read_folder
            elif path.suffix == ".parquet" and path.exists():
                read = _read_parquet
            else:
                read = _read_npz
            files, rows, weights = read(path)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            if isinstance(error, Refused):
                raise
            refuse("features", name, ACCEPTED, detail=f" ({error})")
        if rows.ndim != 2 or not len(rows) or len(files) != len(rows):
            shapes = f" with ({len(files)},) files and {rows.shape} representations"
            refuse("features", name, ACCEPTED, detail=shapes)
        return cls(path, files, rows, weights)

    def check_is_of(self, width: int, weights: str) -> None:
        """Refuses features of another encoder.

        Args:
          width: r of the encoder.
          weights: its hash; "" if unknown.

        Raises:
          Refused: it is another one.
        """
        found = self.representation.shape[1]
        if found != width:
            refuse(
                "features",
                str(self.path),
                f"those of this encoder, of length {width}",
                detail=f" with representations of length {found}",
            )
        if self.weights and weights and self.weights != weights:
            refuse(
                "features",
                str(self.path),
                f"those of this encoder, {weights}",
                detail=f" of an encoder with other weights, {self.weights}",
            )


def _read_folder(path: Path) -> tuple[list[str], np.ndarray, str]:
    found = json_files.read(path / MANIFEST, MANIFEST_SHAPE, "features")
    if found is None:
        raise ValueError(f"a folder without {MANIFEST}")
    if found["done"] < found["listed"]:
        raise ValueError(
            f"{found['done']} of {found['listed']} images: the same --mode=embed "
            "continues it"
        )
    return list(names(path)), mapped(path, "representation"), found["weights"]


def _read_npz(path: Path) -> tuple[list[str], np.ndarray, str]:
    # Not np.load, which takes files of other kinds as well.
    with zipfile.ZipFile(path) as archive:
        files, rows = (
            np.lib.format.read_array(archive.open(f"{key}.npy"))
            for key in ("files", "representation")
        )
        weights = ""
        if "weights.npy" in archive.namelist():  # early versions had none
            weights = str(np.lib.format.read_array(archive.open("weights.npy")))
    return files.tolist(), rows, weights


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray, str]:
    _, parquet = load_parquet("features", str(path))
    table = parquet.read_table(path, columns=["file", "representation"])
    column = table["representation"].combine_chunks()
    rows = column.flatten().to_numpy().reshape(len(column), -1)
    about = table.schema.metadata or {}
    return table["file"].to_pylist(), rows, about.get(b"weights", b"").decode()


def load_parquet(flag: str, received: str | None) -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
      Refused: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        refuse(flag, received, "a name without .parquet, or pip install pyarrow first")
    return pyarrow, pyarrow.parquet


def names(folder: Path) -> Iterator[str]:
    with (folder / FILES).open(encoding="ascii") as lines:
        for line in lines:
            yield json.loads(line)


def mapped(folder: Path, name: str) -> np.ndarray:
    """An array [N, w] of the disk, of which only what is used is read."""
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
