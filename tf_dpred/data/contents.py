"""What is in a file, wherever it lies: on the disk, in a zip archive or a bucket."""

from __future__ import annotations

import errno
import os

import tensorflow as tf

from tf_dpred.data import remote, zipped
from tf_dpred.data.zipped import Damaged

# What may lead into an archive (only the system can tell), and addresses.
_ELSEWHERE = r"(?is)(?:.*\.zip/.*|[a-z][a-z0-9+.\-]*://.*)"


def read(path: tf.Tensor) -> tf.Tensor:
    """The content of a file, a string scalar; empty where an archive holds damage.

    Args:
      path: string scalar; x.zip/a.jpg is the file a.jpg of the archive x.zip, and
        s3://bucket/a.jpg one of a bucket.

    Raises:
      tf.errors.OpError: the system cannot read it, `image_files.is_of_the_system`.
    """
    path = tf.convert_to_tensor(path)
    leads_elsewhere = tf.strings.regex_full_match(path, _ELSEWHERE)
    return tf.cond(
        leads_elsewhere, lambda: _read_elsewhere(path), lambda: tf.io.read_file(path)
    )


# A function, since an assertion outside of a graph does not show its text as it is.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _read_elsewhere(path: tf.Tensor) -> tf.Tensor:
    def from_elsewhere(path: bytes) -> tuple[bytes, bytes]:
        name = os.fsdecode(path)
        try:
            return read_file(name), b""
        except Damaged:
            return b"", b""  # `damage` says why
        except OSError as error:
            number = error.errno or errno.EIO
            # What the system would say comes last, as in TensorFlow's own messages.
            known = os.strerror(number)
            said = [name, *([error.strerror] if error.strerror != known else []), known]
            return b"", os.fsencode("; ".join(map(str, said)))

    # Declared stateless, or --deterministic would not run it in parallel.
    content, failure = tf.numpy_function(
        from_elsewhere, [path], (tf.string, tf.string), stateful=False
    )
    failure = tf.ensure_shape(failure, [])
    with tf.control_dependencies([tf.debugging.Assert(failure == "", [failure])]):
        return tf.ensure_shape(tf.identity(content), [])


def read_file(path: str) -> bytes:
    """As `read`.

    Raises:
      Damaged: an archive holds another content than was packed.
      OSError: the system cannot read it.
    """
    if remote.is_remote(path):
        return remote.read(path)
    if inside := zipped.located(path):
        return zipped.read(*inside)
    with open(path, "rb") as file:
        return file.read()


def start_of(path: str, length: int) -> bytes:
    """The first bytes of a file; nothing of one that is damaged.

    Raises:
      OSError: the system cannot read it.
    """
    if remote.is_remote(path):
        return remote.start_of(path, length)
    if zipped.located(path):
        try:
            return read_file(path)[:length]
        except Damaged:
            return b""
    with open(path, "rb") as file:
        return file.read(length)


def may_be_read(path: str) -> bool:
    """Whether the system lets this process read a file, as far as it says so."""
    if remote.is_remote(path):
        return True  # reading it says more
    inside = zipped.located(path)
    return zipped.size(path) is not None if inside else os.access(path, os.R_OK)


def size(path: str) -> int | None:
    """Bytes of a file in an archive or a bucket; None if there is none.

    Raises:
      OSError: nobody can say.
    """
    return remote.size(path) if remote.is_remote(path) else zipped.size(path)


def damage(path: str) -> str | None:
    """Why a file is not what it was when it was packed; None if it is."""
    try:
        if inside := zipped.located(path):
            zipped.read(*inside)
    except Damaged as error:
        return str(error)
    except OSError:
        pass  # reading it says why
    return None
