"""What a training step costs on any number of devices: computed, nothing is run.

    python -m tools.scaling --flagfile=configs/imagenet.cfg
    python -m tools.scaling --flagfile=configs/imagenet.cfg --devices=8,64 --json
    python -m tools.scaling --flagfile=configs/imagenet.cfg --hardware=tpu-v3 \
      --per_device=8 --flops=30e12

Takes the flags of `tf_dpred.main`, and the hardware as a preset that further flags
change number by number. docs/scaling.md has the formulas and what they say.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import Config, refuse
from tf_dpred.errors import Refused
from tf_dpred.main import parse
from tf_dpred.system import markdown, quiet, terminal
from tools.hardware import MACHINES, Machine

VIEWS = 2
FLOAT32 = 4  # bytes; variables, gradients and statistics under every mixed precision
# A symmetric matrix with its eigenvectors by the QR method (Golub and Van Loan, Matrix
# Computations, 8.3); 4/3 d^3 of it is the reduction to a tridiagonal matrix.
EIGH_FLOPS = 9
# How often an update reads or writes a whole variable, and its operations, as
# `optimizers.py`, Keras' AdamW and `target_ema.py` are written. A compiler fuses them.
PASSES = {"lars": 23, "sgd": 15, "adamw": 35, "ema": 7}
OPERATIONS = {"lars": 20, "sgd": 8, "adamw": 14, "ema": 4}
# Operations of a synchronised BatchNorm, which on one device is a single fused one.
BATCH_NORM_OPERATIONS = 20
# Bytes of an encoded image: ImageNet's training images are 138 GB.
RECORD = 138e9 / 1_281_167
INPUT = ("decoding and views", "reading")


@dataclass(frozen=True)
class Network:
    """What a network costs, for one image.

    Attributes:
      macs: multiply-adds of the forward pass.
      parameters, variables: trainable numbers, and the variables that hold them.
      layers: at least one operation each.
      batch_norms: channels of each BatchNorm.
      activations: bytes that the backward pass needs again, on one device.
      wide_activations: the same on several, where BatchNorm keeps float32 inputs.
    """

    macs: int
    parameters: int
    variables: int
    layers: int
    batch_norms: tuple[int, ...] = ()
    activations: int = 0
    wide_activations: int = 0


@dataclass(frozen=True)
class Job:
    """A configuration, as far as its cost goes.

    Attributes:
      network, predictor: the online network is the network; so is the target.
      d: length of a projection.
      closed_form: W is set from F every `freq` steps.
      target: there is a separate one.
      symmetric: both views are predicted, so gradients pass through both.
      copies_state: `on_nonfinite=skip` keeps the variables of the step before.
      reads_all: every host reads all records of the data set, as those of TFDS.
    """

    network: Network
    predictor: Network
    batch: int
    d: int
    image_size: int
    freq: int = 1
    accumulation_steps: int = 1
    steps_per_execution: int = 1
    optimizer: str = "lars"
    closed_form: bool = True
    target: bool = True
    symmetric: bool = True
    copies_state: bool = False
    reads_all: bool = True

    @property
    def learned(self) -> int:
        """Numbers that the optimizer trains."""
        return self.network.parameters + self.predictor.parameters

    @property
    def trained_views(self) -> int:
        return VIEWS if self.symmetric else 1


def facts(model) -> Network:
    """The costs of a built Keras model or predictor, from its layers."""
    import keras

    from tf_dpred.system import keras_private

    layers = {
        id(layer): layer
        for layer in keras_private.all_layers(model)
        if not isinstance(layer, keras.Model | keras.layers.InputLayer)
    }.values()
    macs = math.prod(model.matrix.shape) if hasattr(model, "matrix") else 0
    channels, kept, wide = [], {}, {}
    for layer in layers:
        names = ("kernel", "depthwise_kernel", "pointwise_kernel")
        kernels = [k for k in (getattr(layer, n, None) for n in names) if k is not None]
        places = math.prod(layer.output.shape[1:-1])
        macs += sum(places * math.prod(kernel.shape) for kernel in kernels)
        # The backward pass needs the inputs of what multiplies, and where a ReLU or a
        # maximum came from; each tensor once.
        if kernels or isinstance(layer, keras.layers.MaxPooling2D):
            kept[id(layer.input)] = layer.input
        if isinstance(layer, keras.layers.ReLU | keras.layers.MaxPooling2D):
            kept[id(layer.output)] = layer.output
        if isinstance(layer, keras.layers.BatchNormalization):
            wide[id(layer.input)] = layer.input
            channels.append(layer.output.shape[-1])
    narrow = sum(size(x) for key, x in kept.items() if key not in wide)
    return Network(
        macs=macs,
        parameters=sum(math.prod(v.shape) for v in model.trainable_variables),
        variables=len(model.trainable_variables),
        layers=len(layers),
        batch_norms=tuple(channels),
        activations=narrow + sum(size(x) for x in wide.values()),
        wide_activations=narrow + sum(size(x, FLOAT32) for x in wide.values()),
    )


def size(tensor, at_least: int = 0) -> int:
    """Bytes of a symbolic tensor, for one image."""
    import tensorflow as tf

    return math.prod(tensor.shape[1:]) * max(tf.as_dtype(tensor.dtype).size, at_least)


def job_of(config: Config) -> Job:
    """Builds the networks of a configuration and looks at them.

    Raises:
      ValueError: see `backbones.backbone`.
    """
    from tf_dpred.data.preprocessing import Preprocessing
    from tf_dpred.networks import backbones, encoder
    from tf_dpred.predictors import ClosedForm, make_predictor
    from tf_dpred.system import devices

    devices.set_precision(devices.precision_of(config.training))
    image_size, d = config.data.image_size, config.network.projector_dim
    preprocessing = Preprocessing.of(config)
    backbone = backbones.backbone(config.network, image_size)
    network = encoder.network(
        backbone, config.network, preprocessing.mean, preprocessing.std, "online"
    )
    predictor = make_predictor(config.predictor)
    predictor.build((None, d))
    return Job(
        facts(network),
        facts(predictor),
        batch=config.training.batch_size,
        d=d,
        image_size=image_size,
        freq=config.predictor.freq,
        accumulation_steps=config.training.accumulation_steps,
        steps_per_execution=config.training.steps_per_execution,
        optimizer=config.optimizer.optimizer,
        closed_form=isinstance(predictor, ClosedForm),
        target=config.objective.ema,
        symmetric=config.objective.symmetric_loss,
        copies_state=config.training.on_nonfinite == "skip",
        reads_all=config.data.dataset not in ("digits", "folder"),
    )


def exchange(size: float, n: int, bandwidth: float, latency: float) -> float:
    """Seconds until n devices have the sum of `size` bytes: by a ring or by a tree."""
    if n == 1:
        return 0.0
    ring = 2 * (n - 1) * latency + 2 * (n - 1) / n * size / bandwidth
    tree = 2 * math.ceil(math.log2(n)) * latency + 2 * size / bandwidth
    return min(ring, tree)


def all_reduce(size: float, devices: int, machine: Machine) -> float:
    """Seconds of an all-reduce: within hosts, then each device's part between them."""
    local = min(devices, machine.per_host)
    hosts = math.ceil(devices / machine.per_host)
    inside = exchange(size, local, machine.local_bandwidth, machine.local_latency)
    return inside + exchange(size / local, hosts, machine.bandwidth, machine.latency)


def reduced(job: Job) -> dict[str, list[int]]:
    """Bytes of every all-reduce of a step on several devices.

    A BatchNorm makes two in a forward pass, of the mean and then of the variance, and
    two in its backward pass.
    """
    d, k = job.d, job.accumulation_steps
    forward_backward = VIEWS * (1 + job.target) + job.trained_views
    norms = job.network.batch_norms * (2 * k * forward_backward)
    norms += job.predictor.batch_norms * (2 * k * 2 * job.trained_views)
    return {
        "BatchNorm all-reduces": [FLOAT32 * channels for channels in norms],
        "gradient all-reduce": [FLOAT32 * job.learned],
        "F, all-reduce": [FLOAT32 * d**2, FLOAT32 * d],
        # The features' spread twice, four quantities of `FiniteCheck`, the loss with
        # the three moments of the views.
        "logs, all-reduces": [FLOAT32 * d, FLOAT32 * d, FLOAT32 * 4, FLOAT32 * 4],
    }


def device_costs(job: Job, machine: Machine, devices: int) -> dict[str, float]:
    """Seconds of each part of a step that a device does, one after the other."""
    images = job.batch / devices
    k, network, predictor = job.accumulation_steps, job.network, job.predictor
    norms = len(network.batch_norms) * BATCH_NORM_OPERATIONS * (devices > 1)
    launches = k * (network.layers + norms) * machine.launch

    def passes(count: int, macs: float) -> float:
        """`count` passes through a network, which need `macs` an image in all."""
        return max(2 * images * macs / machine.flops, count * launches)

    def update(kind: str, parameters: int, variables: int) -> float:
        moved = PASSES[kind] * FLOAT32 * parameters / machine.memory_bandwidth
        return max(moved, OPERATIONS[kind] * variables * machine.launch)

    reduces = {
        part: sum(all_reduce(size, devices, machine) for size in sizes)
        for part, sizes in reduced(job).items()
    }
    trained = job.trained_views * (network.macs + predictor.macs)
    predicted = job.trained_views * predictor.macs
    set_w = EIGH_FLOPS / machine.eigh_flops + 2 / machine.flops32
    sums = 3 * FLOAT32 * job.learned * (k - 1) / machine.memory_bandwidth
    variables = network.variables + predictor.variables
    return {
        "forward, online": passes(VIEWS, VIEWS * network.macs + predicted),
        "forward, target": job.target * passes(VIEWS, VIEWS * network.macs),
        "backward": passes(2 * job.trained_views, 2 * trained),
        "sum of micro-batches": sums,
        **reduces,
        "F, product": 2 * VIEWS * images * job.d**2 / machine.flops32,
        "eigen-decomposition": job.closed_form * set_w * job.d**3 / job.freq,
        "optimizer": update(job.optimizer, job.learned, variables),
        "EMA": job.target * update("ema", network.parameters, network.variables),
        "host to device": VIEWS * images * pixels(job) / machine.transfer,
        "call": machine.call / job.steps_per_execution,
    }


def pixels(job: Job) -> int:
    """Bytes of one view, uint8."""
    return 3 * job.image_size**2


def input_costs(job: Job, machine: Machine, devices: int) -> dict[str, float]:
    """Seconds that a host needs for a step's images, while devices do the last one."""
    hosts = math.ceil(devices / machine.per_host)
    decoded = job.batch / (hosts if machine.shares_input else 1)
    read = job.batch if job.reads_all else decoded
    decoding = decoded / (machine.cores * machine.images_per_core)
    return dict(zip(INPUT, (decoding, read * RECORD / machine.reading), strict=True))


def memory(job: Job, devices: int) -> dict[str, float]:
    """Bytes on a device, at least: without workspace and a framework's own copies."""
    images = job.batch / devices
    network = job.network
    activations = network.wide_activations if devices > 1 else network.activations
    gradients = 1 if job.accumulation_steps == 1 else 2
    state = job.learned + job.target * network.parameters + job.learned
    return {
        "views, whole batch": VIEWS * images * pixels(job),
        "activations of a micro-batch": (
            job.trained_views * activations * images / job.accumulation_steps
        ),
        "online, target, momentum": FLOAT32 * state * (1 + job.copies_state),
        "gradients": FLOAT32 * job.learned * gradients,
        "F and W": FLOAT32 * 2 * job.d**2,
    }


def smallest_accumulation(job: Job, machine: Machine, devices: int) -> int | None:
    """The fewest micro-batches that fit; None: not even two images a micro-batch do."""
    images = job.batch // devices
    for k in range(1, images // 2 + 1):
        split = dataclasses.replace(job, accumulation_steps=k)
        if images % k == 0 and sum(memory(split, devices).values()) <= machine.memory:
            return k
    return None


def column(job: Job, machine: Machine, devices: int) -> dict:
    """All numbers for one count of devices."""
    device, inputs = (f(job, machine, devices) for f in (device_costs, input_costs))
    norms = len(reduced(job)["BatchNorm all-reduces"])
    on_device = sum(device.values())
    step = max(on_device, *inputs.values())
    slowest = device if step == on_device else inputs
    ideal = dataclasses.replace(machine, launch=0.0)
    ideal = list(device_costs(job, ideal, devices).values())[:3]
    return {
        "devices": devices,
        "batch": job.batch,
        "images per device and micro-batch": (
            job.batch / devices / job.accumulation_steps
        ),
        "seconds": {**device, **inputs},
        "on the device": on_device,
        "step": step,
        "images/s": job.batch / step,
        "useful": sum(ideal) / step,
        "bottleneck": max(slowest, key=slowest.get),
        "largest on the device": max(device, key=device.get),
        "BatchNorm all-reduces": norms if devices > 1 else 0,
        "memory": memory(job, devices),
        "accumulation_steps that fit": smallest_accumulation(job, machine, devices),
    }


def table(columns: Sequence[dict]) -> str:
    """Markdown; milliseconds, a column for each count of devices."""

    def row(name: str, cell) -> tuple[str, ...]:
        return name, *(cell(c) for c in columns)

    def milliseconds(part: str):
        return lambda c: f"{1e3 * c['seconds'][part]:.2f}"

    def fit(c: dict) -> str:
        return str(c["accumulation_steps that fit"] or "none")

    parts = [row(part, milliseconds(part)) for part in columns[0]["seconds"]]
    each = "images per device and micro-batch"
    rows = [
        row("batch", lambda c: f"{c['batch']:,}"),
        row(each, lambda c: f"{c[each]:g}"),
        *(r for r in parts if r[0] not in INPUT),
        row("all on the device", lambda c: f"{1e3 * c['on the device']:.2f}"),
        *((f"beside it: {r[0]}", *r[1:]) for r in parts if r[0] in INPUT),
        row("**step**", lambda c: f"**{1e3 * c['step']:.1f}**"),
        row("images/s", lambda c: f"{c['images/s']:,.0f}"),
        row("forward and backward at full rate", lambda c: f"{c['useful']:.0%}"),
        row("**bottleneck**", lambda c: f"**{c['bottleneck']}**"),
        row("largest on the device", lambda c: c["largest on the device"]),
        row("all-reduces of BatchNorms", lambda c: str(c["BatchNorm all-reduces"])),
        row("memory, GB at least", lambda c: f"{sum(c['memory'].values()) / 1e9:.1f}"),
        row("accumulation_steps that fit", fit),
    ]
    return markdown.table(row("ms; devices:", lambda c: f"{c['devices']:,}"), rows)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Also: the flags of tf_dpred.main. Numbers of the hardware:",
        allow_abbrev=False,
    )
    parser.add_argument("--hardware", choices=MACHINES, default="a100")
    parser.add_argument("--devices", default="8,64,512,4096", help="counts, by commas")
    parser.add_argument(
        "--per_device", type=int, help="images of a micro-batch, instead of batch_size"
    )
    parser.add_argument("--json", action="store_true", help="instead of the table")
    for field in dataclasses.fields(Machine):
        if field.name != "shares_input":
            parser.add_argument(f"--{field.name}", type=float, help=argparse.SUPPRESS)
    return parser


def machine_of(given: argparse.Namespace) -> Machine:
    """The preset with the numbers that were given.

    Raises:
      Refused: a number that is not above 0 (for seconds: below 0).
    """
    changed = {}
    for field in dataclasses.fields(Machine):
        value = getattr(given, field.name, None)
        if value is None:
            continue
        least = 0 if field.name in ("launch", "latency", "local_latency", "call") else 1
        if not value >= least or (field.name == "per_host" and math.isinf(value)):
            shown = int(value) if value.is_integer() else value
            refuse(field.name, shown, f"at least {least}")
        changed[field.name] = int(value) if field.name == "per_host" else value
    return dataclasses.replace(MACHINES[given.hardware], **changed)


def compute(given: argparse.Namespace, config: Config) -> tuple[list[dict], list[str]]:
    """The columns, and why others were left out.

    Raises:
      Refused: a wrong option.
    """
    from tf_dpred.system import devices

    machine = machine_of(given)
    counts = given.devices.split(",")
    if not all(re.fullmatch("0*[1-9][0-9]{0,8}", count) for count in counts):
        refuse("devices", given.devices, "whole numbers above 0, as 8,64,512")
    if given.per_device is not None and given.per_device < 2:
        refuse("per_device", given.per_device, "at least 2")
    job, columns, refused = job_of(config), [], []
    for count in map(int, counts):
        training = config.training
        if given.per_device is not None:
            batch = given.per_device * count * training.accumulation_steps
            training = dataclasses.replace(training, batch_size=batch)
        try:
            devices.check_batch(training, count)
        except Refused as error:
            refused.append(f"{count:,} devices: {error}")
            continue
        own = dataclasses.replace(job, batch=training.batch_size)
        columns.append(column(own, machine, count))
    return columns, refused


def main(arguments: Sequence[str]) -> None:
    given, rest = options().parse_known_args(arguments)
    parse([sys.argv[0], *rest])
    config = tf_dpred_flags.config_from_flags()
    with terminal.quits_when_interrupted("scaling"), quiet.start():
        import tensorflow  # noqa: F401
    columns, refused = compute(given, config)
    if given.json:
        print(json.dumps({"columns": columns, "refused": refused}, indent=2))
        return
    if columns:
        print(table(columns))
    for line in refused:
        print(f"\n{line}")


if __name__ == "__main__":
    sys.exit(terminal.run("scaling", lambda: main(sys.argv[1:])))
