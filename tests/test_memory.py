"""A shortage of memory is one line; what only looks like one is what it is."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from test_recovery import At, pretraining

from tf_dpred.errors import OutOfMemory
from tf_dpred.system import memory, terminal

OOM = """Graph execution error:

Detected at node model/conv2d defined at (most recent call last):
  File "train.py", line 1
OOM when allocating tensor with shape[256,64,112,112] and type float on /GPU:0
\t [[{{node model/conv2d}}]]
"""
ALLOCATED = "OOM when allocating tensor with shape[256,64,112,112] and type float on"


def numpys():
    try:
        np.empty(2**60, np.uint8)
    except MemoryError as error:
        return error


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (tf.errors.ResourceExhaustedError(None, None, OOM), ALLOCATED),
        (
            tf.errors.InternalError(None, None, "Dst tensor is not initialized."),
            "Dst tensor is not initialized.",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "Out of memory while trying"),
            "Out of memory while trying",
        ),
        (numpys(), "Unable to allocate 1.00 EiB"),
        (MemoryError(), "MemoryError"),
        (tf.errors.ResourceExhaustedError(None, None, "x; No space left on d"), None),
        (tf.errors.InternalError(None, None, "cuDNN launch failure"), None),
        (ValueError("out of memory"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_shortage__by_kind_and_words(error, found):
    shown = memory.shortage(error)
    assert shown is found is None or shown.startswith(found)


def test_run__a_shortage_is_one_line(capsys):
    def program():
        raise tf.errors.ResourceExhaustedError(None, None, OOM)

    assert terminal.run("x", program) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"x: out of memory ({ALLOCATED}")


def test_train__says_what_to_lower(tmp_path):
    def full():
        raise tf.errors.ResourceExhaustedError(None, None, OOM)

    run = pretraining(str(tmp_path), callbacks=[At(2, full)])
    with pytest.raises(OutOfMemory, match=r"^out of memory \(OOM .*lower --batch_siz"):
        run.train()
    assert pretraining(str(tmp_path)).train()["step"] == 10


LARGE = """
import pathlib, re, sys
import tensorflow as tf
from tf_dpred.data import datasets, pipeline
from tf_dpred.data.views import view_pair

def views(folder):
    source = datasets.open_source("folder", None, folder)
    stream = pipeline.training_views(source, view_pair("byol"), 64, 2, seed=1)
    list(stream.take(8))
    # Not getrusage, which knows the highest use of the parent as well.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1e6

before, after = map(views, sys.argv[1:])
print(f"{before:.2f} {after:.2f} GB")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_training_views__memory_of_large_photographs(tmp_path):
    """Eight JPEGs of 12,000 x 9,000 pixels: an image and its crop for each core."""
    tf.random.set_seed(1)
    for name, height, width in (("small", 90, 120), ("large", 9_000, 12_000)):
        noise = tf.random.uniform([height // 30, width // 30, 3], maxval=256)
        pixels = tf.image.resize(noise, [height, width], "nearest")
        encoded = tf.io.encode_jpeg(tf.cast(pixels, tf.uint8))
        for index in range(8):
            tf.io.write_file(str(tmp_path / name / f"{index}.jpg"), encoded)
    command = [sys.executable, "-c", LARGE, tmp_path / "small", tmp_path / "large"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    print(done.stdout)
    before, after, _ = done.stdout.split()
    cores = len(os.sched_getaffinity(0))
    # Both views' crops, and what the allocator keeps.
    assert float(after) - float(before) < (cores + 2) * 2 * 3 * 12e3 * 9e3 / 1e9
