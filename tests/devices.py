"""Runs a test's function where the CPU is several devices.

TensorFlow splits the CPU only before its first operation, so this takes a process of
its own. One for each number of devices serves all tests.
"""

import functools
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import processes

TIMEOUT_SECONDS = 120


def on_devices(count: int, function: Callable, *args, precision: str = "float32"):
    """`function(*args)` in the other process; all of it, and the result, picklable.

    What the function raises is raised here.
    """
    future = _worker(count).submit(_call, precision, function, args)
    return future.result(TIMEOUT_SECONDS)


on_two_devices = functools.partial(on_devices, 2)


@functools.cache
def strategy(replicas: int):
    """For use in the other process: one device, or all of them mirrored.

    Made once: a second MirroredStrategy in a process numbers its all-reduces from the
    start again, and TensorFlow takes them for repetitions of the first one's.
    """
    import tensorflow as tf

    if replicas == 1:
        return tf.distribute.OneDeviceStrategy("CPU:0")
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


@functools.cache
def _worker(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=processes.CONTEXT,
        initializer=_split,
        initargs=(count,),
    )


def _split(count: int) -> None:
    from tf_dpred.system.devices import split_cpu

    # A pytest worker that is killed cannot tell this process to end.
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    split_cpu(count)


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(precision: str, function: Callable, args: tuple):
    from tf_dpred.system.devices import set_precision

    set_precision(precision)
    return function(*args)
