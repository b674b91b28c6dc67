"""Files in buckets and the like: by TensorFlow where it knows the scheme, else fsspec.

gs://bucket/photos needs nothing else; s3://bucket/photos and others that fsspec
knows need the extra `buckets`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from tf_dpred.config import refuse
from tf_dpred.errors import Refused

EXTRA = "pip install 'tf-dpred[buckets]'"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class Root(str):
    """What names are relative to, where it may be an address, or the names may be."""

    def __truediv__(self, name: str | os.PathLike[str]) -> Root:
        return Root(join(self, os.fspath(name)))


Base: TypeAlias = Path | Root


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address: s3://bucket/photos."""
    return _SCHEME.match(os.fspath(path)) is not None


def join(root: str | os.PathLike[str], name: str) -> str:
    """As `os.path.join`; an address is no relative path."""
    return name if is_remote(name) else os.path.join(root, name)


def entries(path: str) -> Iterator[tuple[str, int | None]]:
    """All files below a directory: relative name, and bytes where they are known.

    Raises:
      Refused: nothing here can open such addresses.
      OSError: there is no such directory, or it cannot be read.
    """
    with _errors_of_the_system(path):
        if _is_native(path):
            yield from _walked(path)
            return
        system, root = _file_system(path)
        root = root.rstrip("/")
        found = system.find(root, detail=True)
        for name, about in sorted(found.items()):
            if about["type"] == "file" and name != root:
                yield name.removeprefix(root).lstrip("/"), about.get("size")


def read(path: str) -> bytes:
    """The content of a file.

    Raises:
      OSError: there is none, or it cannot be read.
    """
    return start_of(path, None)


def start_of(path: str, length: int | None) -> bytes:
    """As `read`: the first bytes, or all."""
    with _errors_of_the_system(path):
        if _is_native(path):
            with tf.io.gfile.GFile(path, "rb") as file:
                return file.read() if length is None else file.read(length)
        system, name = _file_system(path)
        return system.cat_file(name, 0, length)


def size(path: str) -> int | None:
    """Bytes of a file; None if there is none.

    Raises:
      OSError: nobody can say.
    """
    try:
        with _errors_of_the_system(path):
            if _is_native(path):
                return int(tf.io.gfile.stat(path).length)
            system, name = _file_system(path)
            return int(system.info(name)["size"] or 0)
    except FileNotFoundError:
        return None


def _walked(root: str) -> Iterator[tuple[str, int | None]]:
    waiting = [""]
    while waiting:
        below = waiting.pop()
        for name in sorted(tf.io.gfile.listdir(join(root, below))):
            path = below + name
            # Where it costs a request to ask, directories end with a slash.
            if name.endswith("/"):
                waiting.append(path)
            elif root.startswith("gs://") or not tf.io.gfile.isdir(join(root, path)):
                yield path, None
            else:
                waiting.append(f"{path}/")


def _is_native(path: str) -> bool:
    found = _SCHEME.match(path)
    return found is not None and found[1] in tf.io.gfile.get_registered_schemes()


def _file_system(path: str) -> tuple[Any, str]:
    """The file system of fsspec for an address, and the name in it."""
    try:
        import fsspec
    except ImportError:
        refuse("data_dir", path, f"gs:// or, with fsspec, other buckets: {EXTRA}")
    try:
        return fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        reason = str(error).splitlines()[0]
        accepted = f"an address that fsspec can open ({reason}; {EXTRA})"
        refuse("data_dir", path, accepted)


@contextlib.contextmanager
def _errors_of_the_system(path: str) -> Iterator[None]:
    """Turns the errors of TensorFlow and of any library below fsspec into `OSError`."""
    try:
        yield
    except (Refused, TypeError, AttributeError, NameError):  # for the user, or a bug
        raise
    except (FileNotFoundError, tf.errors.NotFoundError):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    except (PermissionError, tf.errors.PermissionDeniedError):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path) from None
    except Exception as error:
        # Each library has errors of its own: no network, no key, too many requests.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(errno.EIO, reason, path) from error
