"""A shortage of memory is one line; what only looks like one is what it is."""

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
