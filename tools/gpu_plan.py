"""What to measure on an accelerator, in order of worth, in the minutes there are.

    python tools/gpu_plan.py prepare plan --data_dir=DIR   # here: needs TensorFlow
    python tools/gpu_plan.py run plan --minutes=60         # there: needs JAX alone
    python tools/gpu_plan.py table plan                    # Markdown of what was run

`prepare` compiles each part (`--mode=compile`) and trains the twenty steps of
`equality`. `plan/`, this file, `pjrt_run.py`, `pjrt/` and `peers/` then go to the other
machine; images that parts share are stored once, by hard links. What a part gave is a
line of `plan/results.jsonl`; `run` begins where the last one stopped, in the middle of
a training if need be. `--tiny` prepares all kinds of parts at sizes that a CPU runs in
minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

TOOLS = Path(__file__).parent
# In float64, over the largest value of a variable (docs/devices.md).
EQUAL = 1e-6
TRAINED_SECONDS = 20  # to save a checkpoint after a signal
# Dense bfloat16, TFLOP/s, as NVIDIA states it.
PEAKS = {"H100": 989, "H200": 989, "A100": 312, "L40": 362, "L4": 121, "T4": 65}
# Views of which no rounding makes other pixels.
FLIPPED = ["--crop_scale=1,1", "--crop_ratio=1,1", "--flip=0.5", "--blur=0"]
FLIPPED += ["--jitter_probability=0", "--gray=0"]
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}

# name -> what it is: "flags" of --mode=compile, or "torch", those of torch_step.py;
# "env" of the process that runs it.
Parts = dict[str, dict[str, Any]]


def rates(backbone: str, size: int, batches: list[int], cifar: list[str]) -> Parts:
    """Steps whose rate is measured, each beside the same step in PyTorch."""
    found: Parts = {}
    stem = "small" if size < 96 else "imagenet"
    for batch in batches:
        step = [
            f"--backbone={backbone}",
            f"--image_size={size}",
            f"--stem={stem}",
            f"--batch_size={batch}",
        ]
        views = "cifar" if size < 96 else "byol"
        ours = [*cifar, *step, f"--views={views}", f"--train_size={batch}"]
        name = f"{backbone}-{size}-{batch}"
        for precision in ("mixed_bfloat16", "float32"):
            given = [f"--precision={precision}"]
            found[f"rate-{name}-{precision}"] = {"flags": ours + given}
            if precision == "float32":
                plain = {"flags": ours + given, "env": NO_TF32}
                found[f"rate-{name}-{precision}-without-tf32"] = plain
            torch = {"torch": [*step, *given, "--compile"]}
            found[f"torch-{name}-{precision}"] = torch
    return found


def parts(data_dir: str, tiny: bool) -> Parts:
    """All parts, in the order in which they run."""
    cifar = ["--dataset=cifar10", f"--data_dir={data_dir}"]
    of_cifar = ["--recipe=cifar10", f"--data_dir={data_dir}"]
    small = ["--width=0.125", "--projector_hidden=16", "--projector_dim=8"]
    equality = [*small, *FLIPPED, "--batch_size=16", "--train_size=80", "--epochs=4"]
    equality += ["--precision=float64", "--knn_every=0", "--quality_every=0"]
    if tiny:
        least = [*small, "--batch_size=8", "--train_size=16", "--knn_train_size=16"]
        return {
            "equality": {"flags": equality},
            "rate-tiny": {"flags": least},
            "torch-tiny": {"torch": ["--batch_size=8"]},
            "train-tiny": {"flags": [*least, "--epochs=2", "--knn_test_size=16"]},
        }
    found: Parts = {"equality": {"flags": [*equality, *cifar]}}
    found |= rates("resnet18", 32, [128, 512, 2048, 4096], cifar)
    found |= rates("resnet50", 224, [128, 256, 512], cifar)
    for d in (128, 256, 512, 1024):
        for solver in ("eigh", "newton_schulz"):
            given = [f"--projector_dim={d}", f"--solver={solver}", "--train_size=512"]
            found[f"rate-{solver}-{d}"] = {"flags": of_cifar + given}
    lars = ["--optimizer=lars", "--batch_size=4096", "--base_lr=0.3"]
    lars += ["--weight_decay=1e-6", "--warmup_epochs=10", "--lr_schedule=cosine"]
    runs = {
        "directpred": of_cifar,
        "freq5": [*of_cifar, "--freq=5"],
        "linear": ["--recipe=cifar10_linear", f"--data_dir={data_dir}"],
        "byol": ["--recipe=cifar10_byol", f"--data_dir={data_dir}"],
        "lars-4096": [*of_cifar, *lars],
    }
    for epochs in (100, 300):
        long = [f"--epochs={epochs}", "--precision=mixed_bfloat16"]
        for name, given in runs.items():
            found[f"train-{name}-{epochs}"] = {"flags": given + long}
    return found


def program(*arguments: str) -> None:
    """`python -m tf_dpred.main ARGUMENTS`; ends this one where it fails."""
    done = subprocess.run([sys.executable, "-m", "tf_dpred.main", *arguments])
    if done.returncode:
        sys.exit(done.returncode)


def prepare(plan: Path, data_dir: str, tiny: bool) -> None:
    """Compiles what is not there yet."""
    plan.mkdir(parents=True, exist_ok=True)
    wanted, images = parts(data_dir, tiny), {}
    for name, part in wanted.items():
        output = plan / name
        if "torch" in part:
            continue
        if not (output / "program.json").exists():
            own = [f"--output={output}", f"--workdir={plan / 'unused'}"]
            program(*part["flags"], "--mode=compile", *own)
        sums = json.loads((output / "program.json").read_text())["sha256"]
        for file in ("images.npz", "knn.npz"):
            same = images.setdefault(sums.get(file), output / file)
            if file in sums and not same.samefile(output / file):
                (output / file).unlink()
                (output / file).hardlink_to(same)
    reference = plan / "reference"
    if not (reference / "result.json").exists():
        on_device = ["--augment_on=device", "--cache=device"]
        program(*wanted["equality"]["flags"], *on_device, f"--workdir={reference}")
    (plan / "plan.json").write_text(json.dumps(wanted, indent=2) + "\n")


def last(workdir: Path) -> dict[str, np.ndarray]:
    """The arrays of the newest checkpoint."""
    path = max((workdir / "checkpoints").glob("step-*.npz"))
    with np.load(path, allow_pickle=False) as file:
        skipped = ("names", "run", "format_version")
        return {n: file[n] for n in file.files if n not in skipped}


def outcome(
    command: list[str], seconds: float, env: dict[str, str], stdin: str = ""
) -> tuple[int, str, str]:
    """A process's code and output; asked to save and stop when the time is over."""
    started = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    try:
        out, err = started.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        started.send_signal(signal.SIGTERM)
        try:
            out, err = started.communicate(timeout=TRAINED_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            out, err = started.communicate()
    return started.returncode, out, err


def run_part(plan: Path, name: str, part: dict, seconds: float) -> dict | None:
    """What a part gave; None where the time was over."""
    work, kind = plan / "runs" / name, name.partition("-")[0]
    if kind == "torch":
        command = [str(TOOLS / "peers" / "torch_step.py"), *part["torch"]]
    else:
        how = "--time=20" if kind == "rate" else f"--workdir={work}"
        command = [str(TOOLS / "pjrt_run.py"), str(plan / name), how]
    code, out, err = outcome(command, seconds, part.get("env", {}), "\n")
    if code in (75, -signal.SIGTERM, -signal.SIGKILL):
        return None
    if code:
        return {"failed": err.strip().splitlines()[-1:]}
    if kind == "torch":
        return json.loads(out.splitlines()[-1])
    if kind == "rate":
        found = re.findall(r"^(\w+): ([\d.]+) images/s, (.*)$", out, re.MULTILINE)
        return {
            how: {"images/s": float(rate), "and": text} for how, rate, text in found
        }
    if kind == "equality":
        worst = difference(last(work), last(plan / "reference"))
        return {"difference": worst[0], "of": worst[1], "equal": worst[0] < EQUAL}
    return json.loads((work / "result.json").read_text())


def difference(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray]
) -> tuple[float, str]:
    """The largest, over the largest value of its variable; and which that is."""
    return max(
        (float(np.max(np.abs(found[n] - v)) / max(np.max(np.abs(v)), 1e-2)), n)
        for n, v in expected.items()
        if np.issubdtype(v.dtype, np.floating)
    )


def results(plan: Path) -> dict[str, dict]:
    """The lines of `results.jsonl` by the names of their parts."""
    path = plan / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {line["part"]: line for line in map(json.loads, lines)}


def run(plan: Path, minutes: float) -> None:
    """Runs what was not run, until the time is over."""
    end = time.monotonic() + 60 * minutes
    device = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.devices()[0].device_kind)"],
        capture_output=True,
        text=True,
    )
    if device.returncode:
        sys.exit(f"gpu_plan: {device.stderr.strip().splitlines()[-1]}")
    for name, part in json.loads((plan / "plan.json").read_text()).items():
        if name in results(plan):
            continue
        left = end - time.monotonic() - TRAINED_SECONDS
        begun = time.monotonic()
        found = run_part(plan, name, part, left) if left > 0 else None
        if found is None:
            print(f"the time is over at {name}; the same command continues")
            return
        seconds = round(time.monotonic() - begun, 1)
        line = {"part": name, "device": device.stdout.strip(), "seconds": seconds}
        line["result"] = found
        print(json.dumps(line), flush=True)
        with (plan / "results.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    print("all parts are done")


def table(plan: Path) -> None:
    """Prints what was run as Markdown."""
    print("| part | device | seconds | result |\n|---|---|---|---|")
    done = results(plan)
    for name in json.loads((plan / "plan.json").read_text()):
        if name not in done:
            print(f"| {name} | | | not run |")
            continue
        line = done[name]
        text = json.dumps(line["result"]) + _share(line["device"], json.dumps(line))
        print(f"| {name} | {line['device']} | {line['seconds']} | {text} |")


def _share(device: str, text: str) -> str:
    """The part of a known card's peak that a rate reaches."""
    peak = next((v for name, v in PEAKS.items() if name in device), None)
    reached = re.search(r"([\d.]+) TFLOP/s", text)
    if peak is None or reached is None:
        return ""
    return f" {float(reached[1]) / peak:.0%} of {peak} TFLOP/s (bfloat16)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("prepare", "run", "table"))
    parser.add_argument("plan", type=Path, help="directory of the prepared parts")
    parser.add_argument("--data_dir", default="", help="of CIFAR-10, for prepare")
    parser.add_argument("--tiny", action="store_true", help="prepare a dry run")
    parser.add_argument("--minutes", type=float, default=60.0, help="for run")
    given = parser.parse_args()
    if given.what == "prepare":
        if not given.tiny and not given.data_dir:
            parser.error("prepare: received no --data_dir, accepted: that of CIFAR-10")
        prepare(given.plan, given.data_dir, given.tiny)
        return
    if not (given.plan / "plan.json").exists():
        parser.error(f"received {given.plan}, accepted: a directory of prepare")
    if given.what == "run":
        run(given.plan, given.minutes)
    else:
        table(given.plan)


if __name__ == "__main__":
    main()
