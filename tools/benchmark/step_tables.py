"""The tables of the step: whole, by part, by threads, its memory, its checkpoint."""

from __future__ import annotations

from tools.benchmark.options import BFLOAT16, LARGE, Options
from tools.benchmark.pytorch import torch_flags
from tools.benchmark.race import Absent, here, medians, run
from tools.benchmark.table import Table

MEMORY_BATCHES = (4, 8, 16)
PARTS_IN_ORDER = (
    "forward online",
    "forward target",
    "backward",
    "optimizer",
    "F",
    "W",
    "EMA",
)
# At 64 pixels, each beside ResNet-18 with the stem of ImageNet.
BACKBONES = {
    "ResNet50": [],
    "MobileNetV3Small": [],
    "EfficientNetV2B0": [],
    "ConvNeXtTiny": [],
    "vit_tiny": ["--patch_size=8"],
    "vit_small": ["--patch_size=8"],
}
THREADS = (("", ""), ("1", "1"), ("1", "2"), ("2", "1"), ("2", "2"))


def step(options: Options) -> list[Table]:
    """Images/s of the whole step: this package, PyTorch, the convolutions alone."""
    rows, values, notes = [], {}, []
    for name, flags in options.steps.items():
        commands = {
            "tf_dpred": here("step", *flags, options.measuring),
            "convolutions": here("ceilings", *flags, "--seconds=1"),
        }
        other = {}
        try:
            theirs = [*torch_flags(flags), options.measuring]
            commands["PyTorch"] = options.peer("torch_step", *theirs)
        except Absent as reason:
            other["PyTorch"] = str(reason)
        found, about, absent = run(commands, options.rounds, optional=["PyTorch"])
        absent |= other
        middle = {worker: medians(v)["images/s"] for worker, v in found.items()}
        ours = middle["tf_dpred"]
        rows.append(
            (
                name,
                ours,
                middle.get("PyTorch"),
                ours / middle["PyTorch"] if "PyTorch" in middle else None,
                middle["convolutions"],
                ours / middle["convolutions"],
            )
        )
        products = medians(found["convolutions"])
        notes.append(
            f"{name}: a product of 2048 x 2048 matrices runs at "
            f"{products['GFLOP/s float32']:.0f} GFLOP/s in float32 and "
            f"{products['GFLOP/s bfloat16']:.0f} in bfloat16."
        )
        notes += [f"{worker} is left out: {why}." for worker, why in absent.items()]
        values[name] = {"values": found, "about": about}
    header = ("step, images/s", "tf_dpred", "PyTorch", "ratio")
    header += ("convolutions alone", "share of them")
    return [Table("Step", header, rows, notes, values)]


def backbones(options: Options) -> list[Table]:
    """Images/s of the step of each backbone and of ResNet-18, in turns."""
    common = [
        "--image_size=64",
        "--stem=imagenet",
        "--batch_size=16",
        "--precision=float32",
    ]
    rows, values = [], {}
    for name, flags in BACKBONES.items():
        commands = {
            worker: here("step", *common, *own, options.measuring)
            for worker, own in (
                ("ResNet-18", []),
                (name, [f"--backbone={name}", *flags]),
            )
        }
        found, _, _ = run(commands, options.rounds)
        middle = {worker: medians(v)["images/s"] for worker, v in found.items()}
        beside, itself = middle["ResNet-18"], middle[name]
        rows.append((" ".join([name, *flags]), itself, beside, itself / beside))
        values[name] = found
    header = ("backbone, images/s", "itself", "ResNet-18", "ratio")
    return [Table("Backbones, 64 pixels, batch 16, float32", header, rows, [], values)]


def step_parts(options: Options) -> list[Table]:
    """Milliseconds of each part of the step."""
    rows, values = [], {}
    for name, flags in options.steps.items():
        seconds = f"--seconds={options.seconds / 5}"
        command = here("step_parts", *flags, seconds)
        found, _, _ = run({"parts": command}, options.rounds)
        middle = medians(found["parts"])
        whole = middle["step"]
        rows.append((name, *(middle.get(part) for part in PARTS_IN_ORDER), whole))
        rows.append(
            (
                "share of the step",
                *(f"{middle.get(part, 0) / whole:.2%}" for part in PARTS_IN_ORDER),
                "",
            )
        )
        values[name] = found["parts"]
    header = ("ms", *PARTS_IN_ORDER, "step")
    return [Table("Step by part", header, rows, [], values)]


def threads(options: Options) -> list[Table]:
    """Images/s of the step by the sizes of TensorFlow's thread pools."""
    rows, values = [], {}
    variables = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    environments = {
        f"{intra or 'default'} / {inter or 'default'}": {
            v: n for v, n in zip(variables, (intra, inter), strict=True) if n
        }
        for intra, inter in THREADS
    }
    for name, flags in options.steps.items():
        command = here("step", *flags, options.measuring)
        found, _, _ = run(
            dict.fromkeys(environments, command),
            options.rounds,
            environments=environments,
        )
        rows.append((name, *(medians(v)["images/s"] for v in found.values())))
        values[name] = found
    header = ("threads in / between operations, images/s", *environments)
    return [Table("Threads", header, rows, [], values)]


def memory(options: Options) -> list[Table]:
    """Peak memory of the step of ResNet-50 by batch, after one step and warm-up."""
    rows, values, notes = [], {}, {}
    for batch in MEMORY_BATCHES:
        flags = [*LARGE, *BFLOAT16, f"--batch_size={batch}"]
        cells = {}
        for name, command in {
            "tf_dpred": here("step", *flags, "--seconds=0"),
            "PyTorch": options.peer("torch_step", *torch_flags(flags), "--seconds=0"),
        }.items():
            # One at a time: together they might not fit.
            found, _, absent = run({name: command}, 1, optional=["PyTorch"])
            notes |= absent
            cells |= {worker: medians(v)["peak MB"] for worker, v in found.items()}
        rows.append((str(batch), cells.get("tf_dpred"), cells.get("PyTorch")))
        values[str(batch)] = cells
    header = ("batch", "tf_dpred, MB", "PyTorch, MB")
    title = "Peak memory, ResNet-50, 224 pixels, bfloat16"
    left_out = [f"{worker} is left out: {why}." for worker, why in notes.items()]
    return [Table(title, header, rows, left_out, values)]


def checkpoint(options: Options) -> list[Table]:
    """The cost of a checkpoint beside that of a step."""
    rows, values = [], {}
    for name, flags in options.steps.items():
        commands = {
            "checkpoint": here("checkpoint", *flags),
            "step": here("step", *flags, options.measuring),
        }
        found, _, _ = run(commands, options.rounds)
        middle = {worker: medians(v) for worker, v in found.items()}
        saved = middle["checkpoint"]
        hundred = 100 * saved["batch"] / middle["step"]["images/s"]
        wait = saved["s"]
        rows.append((name, wait, saved["MB"], f"{wait / hundred:.2%}"))
        values[name] = found
    header = ("", "s", "MB", "of the time if written every 100 steps")
    return [Table("Checkpoint", header, rows, [], values)]


def monitoring(options: Options) -> list[Table]:
    """The cost of each kind of record, in ms and as a share of the steps in between.

    Curves every 50 steps (--log_every), spectra and pictures every 390 (an epoch of
    CIFAR-10 at batch 128), label-free measures every fifth of those (--quality_every).
    """
    rows, values = [], {}
    for name, flags in options.steps.items():
        seconds = f"--seconds={options.seconds / 4}"
        commands = {
            "monitoring": here("monitoring", *flags, seconds),
            "step": here("step", *flags, options.measuring),
        }
        found, about, _ = run(commands, options.rounds)
        middle = {worker: medians(v) for worker, v in found.items()}
        step = 1e3 * about["step"]["batch"] / middle["step"]["images/s"]
        intervals = {"curves": 50, "spectra": 390, "pictures": 390}
        for kind, steps in (intervals | {"label-free measures": 5 * 390}).items():
            cost = middle["monitoring"][kind]
            rows.append((f"{name}: {kind}", cost, step, f"{cost / (steps * step):.3%}"))
        values[name] = found
    header = ("", "ms", "ms a step", "of the time")
    return [Table("Monitoring", header, rows, [], values)]
