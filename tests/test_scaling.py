"""The costs that tools/scaling.py computes, against numbers found elsewhere."""

import dataclasses
import itertools
import json

import processes
import pytest
import tensorflow as tf
import toys
from devices import on_two_devices, strategy

from tf_dpred.config import Config
from tf_dpred.errors import Refused
from tf_dpred.networks.resnet import resnet
from tf_dpred.optimizers import SGD
from tf_dpred.predictors import MLP, Direct
from tools import scaling
from tools.hardware import MACHINES

A100 = MACHINES["a100"]
NETWORK = scaling.Network(
    macs=10**9,
    parameters=10**7,
    variables=100,
    layers=50,
    batch_norms=(64, 128),
    activations=10**7,
    wide_activations=2 * 10**7,
)
JOB = scaling.Job(
    NETWORK, scaling.Network(256**2, 0, 0, 0), batch=8192, d=256, image_size=224
)


@pytest.mark.parametrize(
    ("name", "gmacs", "parameters", "norms"),
    [
        # torchvision's documentation ("GFLOPS" there are multiply-adds).
        ("resnet18", 1.814, 11_689_512, 20),
        ("resnet50", 4.089, 25_557_032, 53),
    ],
)
def test_facts__published(name, gmacs, parameters, norms):
    model = resnet(name, 224)
    classifier = 1000 * model.output_shape[-1]
    found = scaling.facts(model)
    assert (found.macs + classifier) / 1e9 == pytest.approx(gmacs, abs=5e-4)
    assert found.parameters + classifier + 1000 == parameters
    assert len(found.batch_norms) == norms
    # Every BatchNorm has a gamma and a beta, everything else here one kernel.
    assert found.variables == 3 * norms


def test_facts__activations(policy):
    """Outputs of convolutions, once more as float32; about as much of ReLUs."""
    policy("mixed_bfloat16")
    found = scaling.facts(resnet("resnet50", 224))
    outputs = (found.wide_activations - found.activations) / 2
    # 11.115 M with the classifier's 1000 (the model analysis of mmengine's documents).
    assert (outputs + 1000) / 1e6 == pytest.approx(11.115, abs=5e-4)
    assert 1.9 < found.activations / 2 / outputs < 2.1


def test_facts__predictors():
    direct, mlp = Direct(freq=2), MLP(predictor_hidden=16)
    for predictor in (direct, mlp):
        predictor.build((None, 8))
    found = scaling.facts(direct)
    assert (found.macs, found.parameters, found.variables) == (64, 64, 1)
    found = scaling.facts(mlp)
    assert found.macs == 2 * 8 * 16
    assert found.parameters == 2 * 8 * 16 + 16 + 2 * 16
    assert found.batch_norms == (16,)


def all_reduces_of_a_step(kind, accumulation_steps):
    """Bytes of each, as TensorFlow is asked for them; and what the formulas say."""
    context = tf.distribute.ReplicaContext
    original, found = context.all_reduce, []

    def counted(self, operation, value, *args, **kwargs):
        tensors = tf.nest.flatten(value)
        found.append(sum(t.dtype.size * t.shape.num_elements() for t in tensors))
        return original(self, operation, value, *args, **kwargs)

    context.all_reduce = counted
    try:
        with strategy(2).scope():
            model = toys.model(kind(), accumulation_steps=accumulation_steps)
            model.compile(SGD(0.1))
        toys.fit(model, toys.views(1))
    finally:
        context.all_reduce = original
    job = scaling.Job(
        scaling.facts(model.online),
        scaling.facts(model.predictor),
        batch=toys.BATCH,
        d=toys.DIM,
        image_size=8,
        accumulation_steps=accumulation_steps,
    )
    # Both replicas ask for each.
    return sorted(found)[::2], sorted(itertools.chain(*scaling.reduced(job).values()))


@pytest.mark.parametrize(
    ("kind", "accumulation_steps"),
    [(Direct, 1), pytest.param(MLP, 2, marks=pytest.mark.slow)],
)
def test_reduced__is_what_the_step_does(kind, accumulation_steps):
    found, expected = on_two_devices(all_reduces_of_a_step, kind, accumulation_steps)
    assert found == expected


def test_exchange__ring_and_tree():
    def seconds(size, n):
        return scaling.exchange(size, n, bandwidth=1e9, latency=1e-6)

    assert seconds(1e9, 1) == 0
    # Large: 2 (n - 1) / n of the bytes pass each device.
    assert seconds(1e9, 4) == pytest.approx(1.5, rel=1e-4)
    # Small: two ways through a tree of depth 10.
    assert seconds(4, 1024) == pytest.approx(20e-6, rel=0.01)


def test_all_reduce__between_hosts_each_device_sends_its_part():
    machine = dataclasses.replace(A100, latency=0.0, local_latency=0.0)
    local, between = machine.local_bandwidth, machine.bandwidth
    expected = 2 * 7 / 8 * 1e9 / local + 2 * 3 / 4 * 1e9 / 8 / between
    assert scaling.all_reduce(1e9, 32, machine) == pytest.approx(expected)


def test_device_costs__one_device_talks_to_nobody():
    costs = scaling.device_costs(JOB, A100, 1)
    assert not any(seconds for part, seconds in costs.items() if "all-reduce" in part)
    assert costs["sum of micro-batches"] == 0


def test_device_costs__what_grows_with_the_batch_and_what_does_not():
    double = dataclasses.replace(JOB, batch=2 * JOB.batch)
    once, twice = (scaling.device_costs(job, A100, 8) for job in (JOB, double))
    grows = {"forward, online", "forward, target", "backward", "F, product"}
    grows.add("host to device")
    for part, seconds in once.items():
        factor = 2 if part in grows else 1
        assert twice[part] == pytest.approx(factor * seconds), part
    assert once["backward"] == pytest.approx(2 * once["forward, online"])
    # 2 views x 1024 images x 2 x (1e9 + 256^2) operations
    assert once["forward, online"] == pytest.approx(4.0965e12 / 64e12, rel=1e-4)


def test_device_costs__freq_and_d():
    def eigen(**changes):
        job = dataclasses.replace(JOB, **changes)
        return scaling.device_costs(job, A100, 8)["eigen-decomposition"]

    assert eigen(d=512) == pytest.approx(8 * eigen())
    assert eigen(freq=5) == pytest.approx(eigen() / 5)
    assert eigen(closed_form=False) == 0


def test_device_costs__an_operation_takes_its_time_at_least():
    few = scaling.device_costs(dataclasses.replace(JOB, batch=16), A100, 8)
    operations = 2 * (50 + 2 * scaling.BATCH_NORM_OPERATIONS)
    assert few["forward, online"] == pytest.approx(operations * A100.launch)


def test_input_costs__hosts_divide_the_decoding_but_not_the_reading():
    one, four = (scaling.input_costs(JOB, A100, devices) for devices in (8, 32))
    assert four["decoding and views"] == pytest.approx(one["decoding and views"] / 4)
    assert four["reading"] == one["reading"]
    folder = dataclasses.replace(JOB, reads_all=False)
    assert scaling.input_costs(folder, A100, 32)["reading"] == one["reading"] / 4


def test_memory__whole_batch_of_views_and_one_micro_batch_of_activations():
    job = dataclasses.replace(JOB, batch=4096, accumulation_steps=16)
    found = scaling.memory(job, 1)
    assert found["views, whole batch"] == 4096 * 224 * 224 * 3 * 2
    assert found["activations of a micro-batch"] == 2 * 256 * NETWORK.activations
    assert found["online, target, momentum"] == 3 * 4 * 10**7
    assert found["gradients"] == 2 * 4 * 10**7
    # 2 x 4096 x 10 MB do not fit, a half of them does.
    assert scaling.smallest_accumulation(job, A100, 1) == 2
    tiny = dataclasses.replace(A100, memory=1e6)
    assert scaling.smallest_accumulation(job, tiny, 1) is None


def test_column__bottleneck():
    fast = {"reading": 1e15, "images_per_core": 1e9, "launch": 0.0}

    def found(**changes):
        machine = dataclasses.replace(A100, **{**fast, **changes})
        column = scaling.column(JOB, machine, 64)
        return column["bottleneck"], column["largest on the device"]

    assert found() == ("backward", "backward")
    assert found(images_per_core=1.0) == ("decoding and views", "backward")
    assert found(reading=1.0) == ("reading", "backward")
    assert found(eigh_flops=1e8)[0] == "eigen-decomposition"
    assert found(latency=0.1)[0] == "BatchNorm all-reduces"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--devices=8,x"], "--devices: received '8,x', accepted: whole numbers"),
        (["--devices=0"], "--devices: received '0'"),
        (["--per_device=1"], "--per_device: received 1, accepted: at least 2"),
        (["--flops=-1"], "--flops: received -1, accepted: at least 1"),
        (["--latency=nan"], "--latency: received nan, accepted: at least 0"),
    ],
)
def test_compute__bad_option(options, message):
    given, _ = scaling.options().parse_known_args(options)
    with pytest.raises(Refused, match=message):
        scaling.compute(given, Config())


def test_main__table_and_json():
    done = processes.run_module(
        "tools.scaling",
        "--flagfile=configs/quickstart.cfg",
        "--devices=1,16,64",
        "--json",
        "--images_per_core=7",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [c["devices"] for c in found["columns"]] == [1, 16]
    assert found["refused"][0].startswith("64 devices: --batch_size: received 32")
    one = found["columns"][0]
    decoding = one["seconds"]["decoding and views"]
    assert decoding == pytest.approx(32 / (7 * A100.cores))
    text = scaling.table(found["columns"])
    assert "| **bottleneck**" in text and " 16 " in text.splitlines()[0]
