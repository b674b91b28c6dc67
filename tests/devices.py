"""Runs a test's function where the CPU is two devices.

TensorFlow splits the CPU only before its first operation, so this takes a process of
its own. One serves all tests, since starting TensorFlow is most of its cost.
"""

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

TIMEOUT_SECONDS = 120


def on_two_devices(function: Callable, *args, precision: str = "float32"):
    """`function(*args)` in the other process; all of it, and the result, picklable.

    What the function raises is raised here.
    """
    future = _worker().submit(_call, precision, function, args)
    return future.result(TIMEOUT_SECONDS)


@functools.cache
def strategy(replicas: int):
    """For use in the other process: one device, or both mirrored.

    Made once: a second MirroredStrategy in a process numbers its all-reduces from the
    start again, and TensorFlow takes them for repetitions of the first one's.
    """
    import tensorflow as tf

    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("CPU:0")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@functools.cache
def _worker() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_split,
    )


def _split() -> None:
    from tf_dpred.runtime import split_cpu

    split_cpu(2)


def _call(precision: str, function: Callable, args: tuple):
    from tf_dpred.runtime import set_precision

    set_precision(precision)
    return function(*args)
