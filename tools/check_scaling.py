"""Times the parts of a training step on this machine, and adds them up again.

    python -m tools.check_scaling --flagfile=configs/imagenet.cfg --batch_size=8

Takes the flags of `tf_dpred.main`. What is measured fills in `scaling.py`'s formulas,
and the step that they give is compared with a real one. Without --data_dir, the images
are scikit-learn's two photographs (640 x 427 pixels).
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import Config
from tf_dpred.main import parse
from tf_dpred.system import markdown, quiet, terminal
from tools import scaling
from tools.benchmark import machine as benchmark_machine
from tools.benchmark.step import model_and_batch
from tools.hardware import Machine

WARM_UP, REPEATS = 1, 5
ROWS = 4096
SIDES = (256, 2048)
INPUT_BATCH, INPUT_BATCHES = 32, 12
COPIES = 32


def medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each call, which ends when the device has done it.

    They take turns, so that other work of the machine disturbs all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(WARM_UP + REPEATS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s[WARM_UP:]) for name, s in seconds.items()}


def photographs(directory: str) -> None:
    """Fills a directory with copies of the photographs that scikit-learn brings."""
    from sklearn.datasets import load_sample_images

    for path in load_sample_images().filenames:
        for copy in range(COPIES):
            shutil.copy(path, Path(directory) / f"{copy:02}_{Path(path).name}")


def images_per_second(config: Config) -> float:
    """Images decoded and made into two views, by all cores."""
    from tf_dpred.data import datasets, pipeline
    from tf_dpred.data.views import view_pair

    with tempfile.TemporaryDirectory() as directory:
        if config.data.data_dir is None and config.data.dataset != "digits":
            photographs(directory)
            data = {"dataset": "folder", "data_dir": directory, "split": None}
            data = dataclasses.replace(config.data, **data)
            config = dataclasses.replace(config, data=data)
        batches = iter(
            pipeline.training_views(
                datasets.training_source(config),
                view_pair(config.data.views, config.data.view_strength),
                config.data.image_size,
                INPUT_BATCH,
                seed=0,
            )
        )
        for _ in range(INPUT_BATCHES // 2):  # the pipeline finds its parallelism
            next(batches)
        start = time.perf_counter()
        for _ in range(INPUT_BATCHES):
            next(batches)
        seconds = time.perf_counter() - start
        del batches  # it reads ahead, and its files go
        return INPUT_BATCHES * INPUT_BATCH / seconds


def seconds_of_parts(config: Config) -> dict[str, float]:
    """Median seconds of each part, and of a whole step, on one device."""
    import numpy as np
    import tensorflow as tf

    _, model, views = model_and_batch(config)
    generator = np.random.default_rng(0)
    d = config.network.projector_dim
    calls = {}

    def measure(name: str, function: Callable, *arguments: tf.Tensor) -> None:
        graph = tf.function(function)

        def call() -> None:
            for result in tf.nest.flatten(graph(*arguments)):
                result.numpy()  # waits for the device

        calls[name] = call

    measure("forward", lambda x: model.online(x, training=True)[1], views[0])
    for n in (d, *SIDES):
        rows = tf.constant(generator.normal(size=(2 * n, n)), tf.float32)
        f = tf.matmul(rows, rows, transpose_a=True) / (2 * n)
        measure(f"eigh, d = {n}", tf.linalg.eigh, f)
    rows = tf.constant(generator.normal(size=(ROWS, d)), tf.float32)
    measure("F, product", lambda f: tf.matmul(f, f, transpose_a=True), rows)
    variables = model.learned_variables
    gradients = [tf.random.normal(v.shape, dtype=v.dtype) for v in variables]

    def optimize():
        model.optimizer.apply(gradients, variables)
        return model.optimizer.iterations.value

    measure("optimizer", optimize)
    if model.has_separate_target:

        def follow():
            model._update_target(tf.constant(0, tf.int64))
            return tf.constant(0)

        measure("EMA", follow)
    model.make_train_function()
    same = iter(tf.data.Dataset.from_tensors(views).repeat())
    calls["step"] = lambda: float(model.train_function(same)["loss"])
    return medians(calls)


def machine_of(job: scaling.Job, parts: dict[str, float], images: float) -> Machine:
    """This machine, as the formulas see it: one device, nothing between devices."""

    def moved(kind: str, parameters: int) -> float:
        return scaling.PASSES[kind] * scaling.FLOAT32 * parameters

    cores = benchmark_machine.cores()
    return Machine(
        flops=2 * job.batch * job.network.macs / parts["forward"],
        flops32=2 * ROWS * job.d**2 / parts["F, product"],
        eigh_flops=scaling.EIGH_FLOPS * job.d**3 / parts[f"eigh, d = {job.d}"],
        launch=0.0,
        memory_bandwidth=moved(job.optimizer, job.learned) / parts["optimizer"],
        memory=math.inf,
        per_host=1,
        local_bandwidth=math.inf,
        local_latency=0.0,
        bandwidth=math.inf,
        latency=0.0,
        transfer=math.inf,
        cores=cores,
        images_per_core=images / cores,
        reading=math.inf,
        call=0.0,
    )


def report(job: scaling.Job, parts: dict[str, float], machine: Machine) -> str:
    """What was measured, the rates, and the step that they add up to."""

    def gflops(value: float) -> str:
        return f"{value / 1e9:.1f} GFLOP/s"

    def moved(kind: str, parameters: int, seconds: float) -> str:
        size = scaling.PASSES[kind] * scaling.FLOAT32 * parameters
        return f"{size / seconds / 1e9:.1f} GB/s"

    rates = {
        "forward": gflops(machine.flops),
        "F, product": gflops(machine.flops32),
        "optimizer": moved(job.optimizer, job.learned, parts["optimizer"]),
        "step": f"{job.batch / parts['step']:.2f} images/s",
    }
    if "EMA" in parts:
        rates["EMA"] = moved("ema", job.network.parameters, parts["EMA"])
    for n in (job.d, *SIDES):
        name = f"eigh, d = {n}"
        rates[name] = gflops(scaling.EIGH_FLOPS * n**3 / parts[name])
    costs = scaling.device_costs(job, machine, 1)
    rows = [
        (name, f"{1e3 * seconds:.2f}", rates[name]) for name, seconds in parts.items()
    ]
    computed = sum(costs.values())
    shares = sorted(costs.items(), key=lambda item: -item[1])
    largest = ", ".join(f"{name} {share / computed:.1%}" for name, share in shares[:6])
    return "\n".join(
        [
            markdown.table(("part", "ms", "rate"), rows),
            "",
            f"decoding and two views: {machine.images_per_core:.0f} images/s a core",
            f"step: computed {1e3 * computed:.0f} ms, measured "
            f"{1e3 * parts['step']:.0f} ms ({computed / parts['step']:.2f})",
            f"of the computed step: {largest}",
        ]
    )


def main() -> None:
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(f"usage: python -m tools.check_scaling [--flag=value ...]\n\n{__doc__}")
        return
    parse(sys.argv)
    config = tf_dpred_flags.config_from_flags()
    with terminal.quits_when_interrupted("check_scaling"), quiet.start():
        import tensorflow  # noqa: F401
    images = images_per_second(config)
    parts = seconds_of_parts(config)
    job = scaling.job_of(config)
    machine = machine_of(job, parts, images)
    network, data = config.network, config.data
    print(
        f"{network.backbone} x {network.width:g}, {data.image_size} pixels, batch "
        f"{job.batch}, {config.training.precision}, {machine.cores} cores; medians of "
        f"{REPEATS}"
    )
    print(report(job, parts, machine))


if __name__ == "__main__":
    sys.exit(terminal.run("check_scaling", main))
