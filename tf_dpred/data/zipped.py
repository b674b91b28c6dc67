"""Files in zip archives, read in place: x.zip/a/b.jpg is the file a/b.jpg of x.zip.

Nothing is unpacked to the disk. An archive is opened once by a process, and any number
of threads read it at the same time.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import struct
import threading
import zipfile
import zlib

METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
)
"""Of compression, that can be read."""
ENCRYPTED = 1
"""Flag of a file that needs a password."""

_INSIDE = re.compile(r"\.zip/", re.IGNORECASE)
_DAMAGE = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, EOFError, RuntimeError)
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class Damaged(Exception):
    """A file of an archive that cannot be had as it was; says why."""


class Opened:
    """An archive whose directory was read; `read` may be called by many threads."""

    def __init__(self, path: str):
        self._file = open(path, "rb")
        self._lock = threading.Lock()
        self._zip = zipfile.ZipFile(self._file)
        self.entries = [(_name(info), info) for info in self._zip.infolist()]
        self._known = dict(self.entries)

    def size(self, name: str) -> int | None:
        found = self._known.get(name)
        return None if found is None or found.is_dir() else found.file_size

    def read(self, name: str) -> bytes:
        info = self._known.get(name)
        if info is None:
            raise FileNotFoundError(name)
        try:
            content = self._content(info)
        except _DAMAGE as error:
            raise Damaged(f"damaged in its archive ({error})") from error
        if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
            raise Damaged("damaged in its archive (its checksum is another)")
        return content

    def _content(self, info: zipfile.ZipInfo) -> bytes:
        if info.flag_bits & ENCRYPTED or info.compress_type not in METHODS[:2]:
            # The other ways are rare; a ZipFile is for one thread at a time.
            with self._lock:
                try:
                    return self._zip.read(info)
                except OSError as error:  # bz2 has no other one for its own faults
                    raise Damaged(f"damaged in its archive ({error})") from error
        header = self._at(info.header_offset, _LOCAL_HEADER.size)
        mark, name, extra = _LOCAL_HEADER.unpack(header)
        if mark != b"PK\x03\x04":
            raise Damaged("damaged in its archive (it has no header)")
        start = info.header_offset + _LOCAL_HEADER.size + name + extra
        packed = self._at(start, info.compress_size)
        if info.compress_type == zipfile.ZIP_STORED:
            return packed
        # No more than was promised, whatever the archive holds.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(
            packed, info.file_size + 1
        )

    def _at(self, offset: int, size: int) -> bytes:
        found = os.pread(self._file.fileno(), size, offset)
        if len(found) < size:
            raise Damaged("damaged in its archive (it ends too early)")
        return found


def located(path: str) -> tuple[str, str] | None:
    """The archive of a path that leads into one, and the name in it; or None."""
    for found in _INSIDE.finditer(path):
        archive = path[: found.end() - 1]
        if os.path.isfile(archive):
            return archive, os.path.normpath(path[found.end() :])
    return None


def read(archive: str, name: str) -> bytes:
    """The content of a file of an archive.

    Raises:
      Damaged: it is not what it was when it was packed.
      OSError: the archive cannot be read, or has no such file.
    """
    try:
        return open_archive(archive).read(name)
    except zipfile.BadZipFile as error:
        raise Damaged(f"damaged with its archive ({error})") from error


def size(path: str) -> int | None:
    """Bytes of a file in an archive; None if there is none."""
    found = located(path)
    try:
        return open_archive(found[0]).size(found[1]) if found else None
    except (OSError, zipfile.BadZipFile):
        return None


def open_archive(path: str) -> Opened:
    """An archive, opened once for as long as it is the same.

    Raises:
      OSError, zipfile.BadZipFile, NotImplementedError: it cannot be read.
    """
    found = os.stat(path)
    # One that was replaced is opened anew; so is it by a process that was forked.
    identity = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
    return _opened(path, identity, os.getpid())


@functools.lru_cache(maxsize=16)
def _opened(path: str, identity: tuple[int, ...], process: int) -> Opened:
    return Opened(path)


def _name(info: zipfile.ZipInfo) -> str:
    """The name of a file with slashes, which some programs of Windows do not write."""
    name = info.filename
    return name.replace("\\", "/") if "/" not in name else name
