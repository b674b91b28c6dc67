"""Makes a small copy of a folder of large photographs, once, to train on.

    python tools/shrink_images.py my_photos my_photos_512 --short_side=512
    python -m tf_dpred.main --flagfile=configs/folder.cfg --data_dir=my_photos_512

Decoding a photograph of 24 million pixels takes a hundred times as long as the views of
224 that are made of it, and every epoch does it again. The copy holds a JPEG for each
image, upright, its short side `--short_side` (smaller images keep their size), in the
same sub-folders, as NAME.EXTENSION.jpg. What is there already is not made again, so an
interrupted start continues. Files that cannot be used are named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tf_dpred.system import quiet

with quiet.start():
    import tensorflow as tf

    from tf_dpred.data import folder, image_files
    from tf_dpred.system.files import printable, whole

# Of a view of 224 pixels the crop may be 8 % of the area: 512 leaves it enough.
SHORT_SIDE, QUALITY = 512, 95


def shrunk(path: tf.Tensor, short_side: int, quality: int) -> tf.Tensor:
    """The JPEG of an image file with its short side at most so long.

    Args:
      path: string scalar.
      short_side: in pixels.
      quality: of the JPEG, 1 to 100.

    Returns:
      A string scalar; empty where the file cannot be used.
    """
    image = image_files.decode_or_empty(image_files.read(path))

    def encoded() -> tf.Tensor:
        size = tf.cast(tf.shape(image)[:2], tf.float32)
        scale = short_side / tf.reduce_min(size)

        def resized() -> tf.Tensor:
            wanted = tf.cast(tf.round(scale * size), tf.int32)
            return tf.cast(tf.round(tf.image.resize(image, wanted, "area")), tf.uint8)

        small = tf.cond(scale < 1.0, resized, lambda: image)
        return tf.io.encode_jpeg(small, quality=quality)

    return tf.cond(tf.size(image) > 0, encoded, lambda: tf.constant(b""))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of images")
    parser.add_argument("output", type=Path, help="folder of the copies")
    parser.add_argument("--short_side", type=int, default=SHORT_SIDE, help="pixels")
    parser.add_argument("--quality", type=int, default=QUALITY, help="of JPEG")
    given = parser.parse_args(arguments)
    if given.short_side < 8 or not 1 <= given.quality <= 100:
        parser.error(
            f"received --short_side={given.short_side} --quality={given.quality}, "
            "accepted: at least 8; 1 to 100"
        )
    try:
        names = folder.require_images(given.folder)
        if given.output.resolve().is_relative_to(given.folder.resolve()):
            raise ValueError(
                f"received {str(given.output)!r}, accepted: a folder outside "
                f"{given.folder}."
            )
        remember(given)
        counts = copy(given, names)
    except (OSError, ValueError) as error:
        sys.exit(f"shrink_images: {' '.join(str(error).split())}")
    print("{} images: {} written, {} there before, {} left out".format(*counts))
    if counts[3]:
        sys.exit(1)


def remember(given: argparse.Namespace) -> None:
    """Writes the settings into the folder of the copies.

    Raises:
      ValueError: it holds copies of other settings.
    """
    settings = {"short_side": given.short_side, "quality": given.quality}
    record = given.output / "shrink_images.json"
    if not record.exists():
        given.output.mkdir(parents=True, exist_ok=True)
        with whole(record) as file:
            file.write(json.dumps(settings).encode())
    elif (before := json.loads(record.read_text())) != settings:
        raise ValueError(
            f"received {settings}, accepted: {before}, with which {given.output} was "
            "made, or another folder."
        )


def copy(given: argparse.Namespace, names: list[str]) -> tuple[int, ...]:
    """Writes the copies -> images, written, there before, left out."""
    source, target = given.folder, given.output
    wanted = [n for n in names if not (target / f"{n}.jpg").exists()]
    missing = [n for n in wanted if os.access(source / n, os.R_OK)]
    unreadable = sorted(set(wanted) - set(missing))
    for name in unreadable:
        print(f"left out {printable(name)}: may not be read", flush=True)
    written, left_out = 0, len(unreadable)
    paths = [os.fsencode(source / name) for name in missing]
    jpegs = tf.data.Dataset.from_tensor_slices(paths or tf.constant([], tf.string)).map(
        lambda path: shrunk(path, given.short_side, given.quality),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    for name, jpeg in zip(missing, jpegs.as_numpy_iterator(), strict=True):
        if not jpeg:
            reason = image_files.problem(source / name)
            print(f"left out {printable(name)}: {reason}", flush=True)
            left_out += 1
            continue
        path = target / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(jpeg)
        written += 1
    return len(names), written, len(names) - len(wanted), left_out


if __name__ == "__main__":
    main()
