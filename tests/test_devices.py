"""Precision, devices and the batch that they share."""

import os

import keras
import processes
import pytest
import tensorflow as tf

from tf_dpred.config import TrainingConfig
from tf_dpred.errors import Refused
from tf_dpred.system import devices


@pytest.mark.parametrize(
    ("name", "compute", "variable", "float_type"),
    [
        ("float32", "float32", "float32", "float32"),
        ("mixed_bfloat16", "bfloat16", "float32", "float32"),
        ("mixed_float16", "float16", "float32", "float32"),
        ("float64", "float64", "float64", "float64"),
    ],
)
def test_set_precision__policy_and_float_type(
    name, compute, variable, float_type, policy
):
    policy(name)
    current = keras.config.dtype_policy()
    assert (current.compute_dtype, current.variable_dtype) == (compute, variable)
    assert keras.config.floatx() == float_type


@pytest.mark.parametrize(
    ("given", "capabilities", "expected"),
    [
        ({"precision": "float64"}, [(9, 0)], "float64"),
        ({}, [(9, 0)], "float32"),
        ({"precision": "auto"}, [(9, 0)], "mixed_bfloat16"),
        ({"precision": "auto"}, [(8, 0), (7, 5)], "float32"),
        ({"precision": "auto"}, [None], "float32"),  # such as AMD's
        ({"precision": "auto", "tpu": "local"}, [], "mixed_bfloat16"),
    ],
)
def test_precision_of(given, capabilities, expected, monkeypatch):
    def details(capability):
        return {} if capability is None else {"compute_capability": capability}

    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: capabilities)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details)
    assert devices.precision_of(TrainingConfig(**given)) == expected


def test_split_cpu__too_late():
    tf.constant(0)
    with pytest.raises(Refused, match="--logical_cpus: received 2, accepted: only"):
        devices.split_cpu(2)


@pytest.mark.parametrize(
    ("visible", "given", "expected"),
    [
        ([], {}, False),
        (["GPU"], {}, True),
        (["TPU"], {}, True),
        ([], {"strategy": "tpu"}, True),
        ([], {"tpu": "grpc://10.0.0.1:8470"}, True),
    ],
)
def test_trains_on_accelerator(visible, given, expected, monkeypatch):
    def found(kind):
        return [device for device in visible if device == kind]

    monkeypatch.setattr(tf.config, "get_visible_devices", found)
    assert devices.trains_on_accelerator(TrainingConfig(**given)) == expected


@pytest.mark.parametrize(
    ("variable", "chosen", "expected"),
    # 0: not set here, so that TensorFlow follows the variable.
    [(None, 0, "1"), ("3", 0, "0"), (None, 2, "2")],
)
def test_setup__one_thread_inside_operations_unless_chosen(variable, chosen, expected):
    # In a process of its own: threads cannot be changed once TensorFlow runs.
    done = processes.run(threads_after_setup, variable, chosen)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [expected]


def threads_after_setup(variable, chosen):
    os.environ.pop("TF_NUM_INTRAOP_THREADS", None)
    if variable is not None:
        os.environ["TF_NUM_INTRAOP_THREADS"] = variable
    tf.config.threading.set_intra_op_parallelism_threads(chosen)
    devices.trains_on_accelerator = lambda config: True
    devices.setup(TrainingConfig())
    print(tf.config.threading.get_intra_op_parallelism_threads(), flush=True)


def test_one_thread_inside_operations__too_late(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    tf.constant(0)
    before = tf.config.threading.get_intra_op_parallelism_threads()
    devices.one_thread_inside_operations()
    assert tf.config.threading.get_intra_op_parallelism_threads() == before


@pytest.mark.parametrize("kind", ["auto", "one"])
def test_make_strategy__one_device(kind):
    config = TrainingConfig(strategy=kind)
    assert devices.make_strategy(config).num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("batch_size", "replicas", "accumulation"),
    [(2, 1, 1), (128, 2, 1), (128, 8, 4), (4, 2, 1)],
)
def test_check_batch__divided_without_rest(batch_size, replicas, accumulation):
    config = TrainingConfig(batch_size=batch_size, accumulation_steps=accumulation)
    devices.check_batch(config, replicas)


@pytest.mark.parametrize(
    ("batch_size", "replicas", "accumulation", "nearest"),
    [
        (129, 2, 1, (128, 130)),
        (100, 3, 2, (96, 102)),
        # divided, but a single image each
        (8, 8, 1, (16, 24)),
        (6, 4, 1, (8, 12)),
    ],
)
def test_check_batch__names_the_nearest(batch_size, replicas, accumulation, nearest):
    config = TrainingConfig(batch_size=batch_size, accumulation_steps=accumulation)
    with pytest.raises(Refused, match="nearest") as refusal:
        devices.check_batch(config, replicas)
    message = str(refusal.value)
    assert message.startswith(f"--batch_size: received {batch_size}, accepted: ")
    assert message.endswith(f"nearest: {nearest[0]} and {nearest[1]}.")
    for size in nearest:
        accepted = TrainingConfig(batch_size=size, accumulation_steps=accumulation)
        devices.check_batch(accepted, replicas)


def test_versions__of_what_decides_the_numbers():
    found = devices.versions()
    assert found["keras"] == keras.__version__
    assert found["tensorflow"] == tf.__version__


def test_setup__float32_is_float32():
    """On GPUs and TPUs TensorFlow would shorten the factors of F."""
    devices.setup(TrainingConfig())
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
