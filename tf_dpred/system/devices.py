"""Devices, precision and seeds: the state of the process, set once at its start."""

from __future__ import annotations

import dataclasses
import functools
import os

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import TrainingConfig, refuse
from tf_dpred.system import cluster, processor

# The environment variables by which TensorFlow rounds differently.
DECISIVE_VARIABLES = (
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TF_CUDNN_DETERMINISTIC",
    "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_MKL_NATIVE_FORMAT",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)


def set_precision(name: str) -> None:
    """Sets Keras' dtype policy, and its float type to that of the variables.

    The float type is what optimizers and metrics keep their numbers in; left at
    float32 it would round the learning rate of a float64 run. (Keras' learning-rate
    schedules compute in float32 all the same.)

    Args:
      name: `float32`, `mixed_bfloat16`, `mixed_float16` or `float64`.
    """
    keras.config.set_dtype_policy(name)
    keras.config.set_floatx("float64" if name == "float64" else "float32")


def precision_of(config: TrainingConfig) -> str:
    """The dtype policy that `--precision` names on this machine.

    `auto` is mixed_bfloat16 on TPUs, on GPUs of compute capability 8.0 or more, and on
    processors with AVX512-BF16 or AMX; else float32.
    """
    if config.precision != "auto":
        return config.precision
    if config.tpu or tf.config.list_physical_devices("TPU"):
        has_bfloat16 = True
    elif gpus := tf.config.get_visible_devices("GPU"):
        details = map(tf.config.experimental.get_device_details, gpus)
        has_bfloat16 = all(
            detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details
        )
    else:
        has_bfloat16 = processor.computes_bfloat16()
    return "mixed_bfloat16" if has_bfloat16 else "float32"


def setup(config: TrainingConfig) -> tf.distribute.Strategy:
    """Prepares the process for training; call before any tensor is made.

    Returns:
      The strategy to build the model under.

    Raises:
      Refused: devices that are not there, or a batch that they cannot share.
    """
    strategy = prepare(config, precision_of(config), among_workers=True)
    check_batch(config, strategy.num_replicas_in_sync)
    return strategy


def prepare(
    config: TrainingConfig, precision: str, *, among_workers: bool = False
) -> tf.distribute.Strategy:
    """Seeds, precision, determinism and devices; call before any tensor is made.

    Args:
      config: of seed, determinism and devices.
      precision: see `set_precision`; evaluation computes in float32 whatever the
        precision of the training was.
      among_workers: this process is one of those that TF_CONFIG names; only a training
        is. Else it waits for no other one, whatever the environment says.

    Returns:
      The strategy to build a model under.

    Raises:
      Refused: devices that are not there.
    """
    if not among_workers and config.strategy == "multi_worker":
        config = dataclasses.replace(config, strategy="auto")
    keras.utils.set_random_seed(config.seed)
    set_precision(precision)
    # Without this, float32 products keep 10 bits on GPUs and 7 on TPUs, too few for F
    # and the norms. What has to be fast is float16 or bfloat16 by the dtype policy.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    if config.logical_cpus > 1:
        split_cpu(config.logical_cpus)
    if trains_on_accelerator(config):
        one_thread_inside_operations()
    elif processor.emulates(precision):
        logging.warning(
            "--precision: %s is slow on this processor; float32 may be far faster",
            precision,
        )
    return make_strategy(config, among_workers=among_workers)


def trains_on_accelerator(config: TrainingConfig) -> bool:
    """Whether a GPU or TPU takes the steps, and the host's cores only the input."""
    if config.tpu or config.strategy == "tpu":
        return True
    return any(tf.config.get_visible_devices(kind) for kind in ("GPU", "TPU"))


def one_thread_inside_operations() -> None:
    """Runs each of the CPU's operations on one thread, so that the input is faster.

    The input prepares as many images at a time as there are cores; operations that are
    themselves divided over the cores take longer (docs/benchmarks.md). Does nothing if
    the user chose a number of threads (TF_NUM_INTRAOP_THREADS, `tf.config.threading`)
    or TensorFlow has made its threads already.
    """
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    if chosen or "TF_NUM_INTRAOP_THREADS" in os.environ:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError:
        logging.info(
            "TensorFlow runs already and keeps its threads: the input is slower"
        )


def split_cpu(count: int) -> None:
    """Splits the CPU into `count` logical devices, to try strategies on a laptop.

    Raises:
      Refused: TensorFlow has its devices already.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or ()) == count:
        return  # by an earlier run of this process
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError:
        refuse(
            "logical_cpus",
            count,
            "only at the start of a process, before TensorFlow has run anything",
        )


def make_strategy(
    config: TrainingConfig, *, among_workers: bool = True
) -> tf.distribute.Strategy:
    """The strategy of `--strategy`; auto: MultiWorkerMirrored if TF_CONFIG names
    several workers, TPU if there is one (or --tpu names it), Mirrored if there are
    several devices, else one. One worker alone is no different from one process. In the
    scope of a strategy, it is that one.

    Raises:
      Refused: a TPU or workers are asked for and not found, or another strategy than
        that of the scope.
    """
    kind = config.strategy
    if tf.distribute.has_strategy():
        opened = tf.distribute.get_strategy()
        name = type(opened).__name__
        if not name.lower().startswith(kind.replace("_", "")) and kind != "auto":
            accepted = "auto in the scope of a strategy, which is taken"
            refuse("strategy", kind, accepted, detail=f" in the scope of a {name}")
        return opened
    if among_workers and place(config).workers > 1:
        return _multi_worker_strategy(config)
    if kind == "multi_worker":  # its strategy would cut the batches of one worker
        kind = "auto"
    if kind == "auto" and (config.tpu or tf.config.list_physical_devices("TPU")):
        kind = "tpu"
    devices = tf.config.list_logical_devices("GPU")
    if not devices and config.logical_cpus > 1:
        devices = tf.config.list_logical_devices("CPU")
    if kind == "auto":
        kind = "mirrored" if len(devices) > 1 else "one"
    if kind == "tpu":
        return _tpu_strategy(config.tpu)
    if kind == "mirrored":
        return _mirrored(*(device.name for device in devices))
    return tf.distribute.get_strategy()


@functools.cache
def _mirrored(*devices: str) -> tf.distribute.Strategy:
    """A MirroredStrategy; the same one for all runs of a process.

    A second one numbers its all-reduces from the start again, and TensorFlow takes them
    for repetitions of the first one's.
    """
    return tf.distribute.MirroredStrategy(list(devices) or None)


@dataclasses.dataclass(frozen=True)
class Place:
    """This process among those of a run, which are called workers.

    Attributes:
      index: of this one, from 0; the first one is the chief, which writes the files.
      workers: their number.
    """

    index: int
    workers: int

    @property
    def is_chief(self) -> bool:
        return self.index == 0


def place(config: TrainingConfig) -> Place:
    """The place of this process, from TF_CONFIG if the strategy reads it.

    Raises:
      Refused: TF_CONFIG is malformed, or missing where it is needed.
    """
    workers = cluster.from_environment()
    if workers is None and config.strategy == "multi_worker":
        refuse(
            "strategy",
            "multi_worker",
            f"with TF_CONFIG={cluster.ACCEPTED}",
            detail=" without TF_CONFIG in the environment",
        )
    if workers is None or config.tpu or config.strategy not in ("auto", "multi_worker"):
        return Place(0, 1)
    return Place(workers.index, len(workers.addresses))


def _multi_worker_strategy(config: TrainingConfig) -> tf.distribute.Strategy:
    workers = cluster.from_environment()
    assert workers is not None  # `place` saw to it
    cluster.wait_for_all(workers, config.worker_timeout)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        refuse(
            "strategy",
            config.strategy,
            "before TensorFlow has run anything in this process",
            detail=f" for several workers ({error})",
        )


def _tpu_strategy(name: str | None) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        first_line = str(error).strip().splitlines()[0]
        refuse("tpu", name, f"a TPU that this process can reach ({first_line})")
    return tf.distribute.TPUStrategy(resolver)


def check_batch(config: TrainingConfig, count: int) -> None:
    """Refuses a batch that `count` replicas and micro-batches do not divide.

    Raises:
      Refused: names the nearest batch sizes that they do.
    """
    parts = count * config.accumulation_steps
    if config.batch_size % parts == 0 and config.batch_size >= 2 * parts:
        return
    below = max(config.batch_size // parts, 2) * parts
    refuse(
        "batch_size",
        config.batch_size,
        f"a multiple of {parts} (replicas x accumulation_steps) with at least 2 images "
        f"each; nearest: {below} and {below + parts}",
    )


def log_devices(strategy: tf.distribute.Strategy, config: TrainingConfig) -> None:
    """Logs strategy, replicas and the batch that each of them gets."""
    count = strategy.num_replicas_in_sync
    kinds = {device.device_type for device in tf.config.list_logical_devices()}
    logging.info(
        "%s on %s, %d replica%s, batch %d global, %d per replica and micro-batch, %s",
        type(strategy).__name__ if count > 1 else "one device",
        next(kind for kind in ("TPU", "GPU", "CPU") if kind in kinds),
        count,
        "" if count == 1 else "s",
        config.batch_size,
        config.batch_size // count // config.accumulation_steps,
        config.precision,
    )


def versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    import tf_dpred

    return {
        "tf_dpred": tf_dpred.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def environment() -> dict[str, str | None]:
    """The environment variables that decide the numbers of a run; None: not set."""
    return {name: os.environ.get(name) for name in DECISIVE_VARIABLES}
