"""Trains what `--mode=compile` wrote, on any device of JAX; needs NumPy and JAX alone.

    python -m tf_dpred.main --mode=compile --recipe=quickstart --output=compiled
    python tools/pjrt_run.py compiled --workdir=runs/default

This file, `pjrt/` beside it and the directory are all that the other machine needs,
and the JAX of its device: `pip install jax`, `jax[cuda12]`, `jax[cuda13]`, ...
`--mode=pretrain`, with the flags of `--mode=compile`, continues the work directory;
`--mode=export` and the evaluations read it. It has no theory.jsonl and no TensorBoard.

    python tools/pjrt_run.py compiled --time=20

measures images a second, with the images on the device and sent by the host, and
memory.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from pjrt.compiled import Compiled
from pjrt.knn import accuracy
from pjrt.records import Records
from pjrt.report import FAILED, PREEMPTED, log, refuse

LINE_SECONDS, WARM_UP = 60.0, 3


class Training:
    """A run: state on the devices, and what it does after steps and epochs."""

    def __init__(self, compiled: Compiled, records: Records, devices: list):
        self.compiled, self.records, self.devices = compiled, records, devices
        self.manifest, self.flags = compiled.manifest, compiled.flags
        self.steps_per_epoch = self.manifest["steps_per_epoch"]
        values = compiled.arrays("state")
        found = records.load()
        self.restored = found is not None
        values |= found or {}
        self.state = compiled.place(values)
        self.done = int(values[self.manifest["counter"]])
        records.resume(self.done)
        self.labelled = {}
        if self.flags["knn_every"] and "knn.npz" in self.manifest["sha256"]:
            self.labelled = compiled.arrays("knn")
            self.features = compiled.features()
        self._stopped = False

    def stop(self, *_) -> None:
        """Asks for a checkpoint after this step, and the end."""
        self._stopped = True

    def save(self) -> None:
        names = self.manifest["saved"]
        self.records.save(self.done, {n: np.asarray(self.state[n]) for n in names})

    def check_finite(self) -> None:
        """Ends the run where a step was not finite, unless those are skipped."""
        step = int(self.state[self.manifest["not_finite"]])
        if step >= 0 and self.flags["on_nonfinite"] == "stop":
            log(f"error: a number is not finite at step {step}")
            sys.exit(FAILED)

    def knn(self, epoch: int) -> dict[str, float]:
        """{"knn": accuracy} where an epoch is evaluated."""
        last = epoch == self.flags["epochs"]
        if not self.labelled or (epoch % self.flags["knn_every"] and not last):
            return {}
        found = accuracy(
            self.features(self.state, self.labelled["bank"]),
            self.labelled["bank_labels"],
            self.features(self.state, self.labelled["test"]),
            self.labelled["test_labels"],
            k=self.flags["knn_k"],
            temperature=self.flags["knn_temperature"],
            num_classes=self.manifest["num_classes"],
        )
        log(f"epoch {epoch}: kNN {found:.4f} (k={self.flags['knn_k']})")
        return {"knn": found}

    def run(self, images: np.ndarray, *, streamed: bool, most: int | None) -> None:
        """Trains to the last epoch, or `most` steps; logs, evaluates and saves."""
        steps, epochs = self.steps_per_epoch, self.flags["epochs"]
        end = steps * epochs
        end = end if most is None else min(end, self.done + most)
        if self.done >= steps * epochs:
            log(f"nothing to do: all {epochs} epochs are done")
            return
        self.records.write_flags(self.devices)
        step = self.compiled.step(self.state, images, streamed=streamed)
        if self.done == 0 and (found := self.knn(0)):
            self.records.add({"epoch": 0, "step": 0, **found})
        stream = self.compiled.inputs(images, self.done, streamed=streamed)
        every, mark = self.flags["checkpoint_every"], None
        while self.done < end and not self._stopped:
            if self.done % steps == 0:
                self._reset_metrics()
            self.state, logs = step(self.state, *next(stream))
            self.done += 1
            if mark is None:
                jax.block_until_ready(logs)  # the first step is left out of the speed
                mark = self.done, time.perf_counter()
            if self.done % steps == 0:
                self.check_finite()
                self._end_epoch(logs, mark)
                mark = self.done, time.perf_counter()
            elif time.perf_counter() - mark[1] >= LINE_SECONDS:
                self.check_finite()
                self._report(_numbers(logs), mark)
                mark = self.done, time.perf_counter()
            if every and self.done % every == 0 and self.done % steps:
                self.check_finite()
                self.save()
        if self.done % steps:
            self.check_finite()
            self.save()
        if self._stopped and self.done < end:
            log(f"stopped by a signal after step {self.done}; a checkpoint was saved")
            sys.exit(PREEMPTED)
        if self.done == steps * epochs:
            self.records.finish()

    def _reset_metrics(self) -> None:
        zeros = {
            n: np.zeros(v.shape, v.dtype)
            for n, v in self.state.items()
            if n.startswith("metrics/")
        }
        self.state = {**self.state, **self.compiled.place(zeros)}

    def _end_epoch(self, logs, mark) -> None:
        """The line of an epoch comes before its checkpoint, as in the program."""
        epoch = self.done // self.steps_per_epoch
        numbers = _numbers(logs)
        rate = numbers.pop("lr")
        for shown, variable in self.manifest["shown"].items():
            numbers[shown] = self.state[variable].item()
        numbers |= self.knn(epoch)
        self._report({**numbers, "lr": rate}, mark)
        self.records.add({"epoch": epoch, "step": self.done, **numbers})
        self.save()

    def _report(self, logs: dict[str, float], mark) -> None:
        seconds, steps = time.perf_counter() - mark[1], self.done - mark[0]
        epoch = f"{self.done / self.steps_per_epoch:.2f}".rstrip("0").rstrip(".")
        parts = [f"epoch {epoch}/{self.flags['epochs']}", f"loss {logs['loss']:.4f}"]
        parts.append(f"std {logs['feature_std']:.3f}")
        parts += [f"kNN {logs['knn']:.4f}"] if "knn" in logs else []
        parts.append(f"lr {logs['lr']:.3g}")
        if steps and seconds > 0:
            left = self.flags["epochs"] * self.steps_per_epoch - self.done
            parts.append(f"{steps * self.compiled.batch / seconds:.0f} images/s")
            parts.append(f"ETA {left * seconds / steps:.0f} s")
        log("  ".join(parts))


def _numbers(logs) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items()}


def measure(compiled: Compiled, images: np.ndarray, steps: int) -> None:
    """Prints images a second of so many steps, after warm-up, and the memory."""
    for streamed in (False, True):
        state = compiled.place(compiled.arrays("state"))
        begun = time.perf_counter()
        step = compiled.step(state, images, streamed=streamed)
        compiled_in = time.perf_counter() - begun
        stream = compiled.inputs(images, 0, streamed=streamed)
        for number in range(WARM_UP + steps):
            if number == WARM_UP:
                jax.block_until_ready(state)
                begun = time.perf_counter()
            state, _ = step(state, *next(stream))
        jax.block_until_ready(state)
        rate = steps * compiled.batch / (time.perf_counter() - begun)
        flops = (step.cost_analysis() or {}).get("flops", 0) / compiled.batch
        print(
            f"{'streamed' if streamed else 'resident'}: {rate:.1f} images/s, "
            f"{rate * flops / 1e12:.3g} TFLOP/s as XLA counts, "
            f"compiled in {compiled_in:.1f} s, {_memory(step)}",
            flush=True,
        )


def _memory(step) -> str:
    """The most memory so far: of a device where it says so, else of the process."""
    known = jax.devices()[0].memory_stats()
    if known and "peak_bytes_in_use" in known:
        return f"at most {known['peak_bytes_in_use'] / 2**20:.0f} MiB of the device"
    need = step.memory_analysis().temp_size_in_bytes / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return f"{need:.0f} MiB beside state and images; the process at most {most:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="of --mode=compile")
    parser.add_argument("--workdir", type=Path, help="of the run")
    parser.add_argument("--devices", type=int, help="how many; default: all")
    parser.add_argument("--steps", type=int, help="train at most so many steps now")
    parser.add_argument(
        "--stream", action="store_true", help="keep the images on the host"
    )
    parser.add_argument("--time", type=int, metavar="STEPS", help="only measure")
    given = parser.parse_args()
    # Counters of 64 bits, and the whole of float64.
    jax.config.update("jax_enable_x64", True)
    devices = jax.devices()
    if given.devices is not None and not 0 < given.devices <= len(devices):
        refuse("--devices", given.devices, f"1 to {len(devices)}")
    for name in ("steps", "time"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            refuse(f"--{name}", getattr(given, name), "at least 1")
    if (given.workdir is None) == (given.time is None):
        refuse("--workdir", given.workdir, "a directory, or --time alone")
    devices = devices[: given.devices]
    compiled = Compiled(given.directory, devices)
    images = compiled.arrays("images")["images"]
    if given.time is not None:
        measure(compiled, images, given.time)
        return
    training = Training(compiled, Records(given.workdir, compiled), devices)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, training.stop)
    log(
        f"{len(devices)} x {devices[0].device_kind} (JAX {jax.__version__}), batch "
        f"{compiled.batch}, {len(images)} images, {training.steps_per_epoch} steps per "
        f"epoch, {compiled.flags['epochs']} epochs, {compiled.flags['precision']}"
    )
    try:
        training.run(images, streamed=given.stream, most=given.steps)
    except OSError as error:
        print(f"pjrt_run: {error}", file=sys.stderr)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
