"""The directory of `--mode=compile`, and its programs under JAX."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import queue
import threading
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from jax import export

from pjrt import eigh, streams
from pjrt.report import refuse

MANIFEST, FORMAT_VERSION = "program.json", 1
WAITING = 4  # batches that the host prepares ahead


class Compiled:
    """The programs and arrays of a directory, checked.

    Args:
      directory: that `--mode=compile` wrote.
      devices: JAX's, over which the batch is divided.
    """

    def __init__(self, directory: Path, devices: list):
        self.directory = directory
        try:
            self.manifest = json.loads((directory / MANIFEST).read_text())
            found = self.manifest["format_version"]
            sums = self.manifest["sha256"]
        except (OSError, ValueError, KeyError) as error:
            refuse("directory", f"{directory} ({error})", "one of --mode=compile")
        if found != FORMAT_VERSION:
            refuse("directory", f"format {found}", f"format {FORMAT_VERSION}")
        for name, expected in sums.items():
            path = directory / name
            content = path.read_bytes() if path.is_file() else b""
            if hashlib.sha256(content).hexdigest() != expected:
                refuse("directory", f"{directory} with a damaged {name}", "a whole one")
        self.flags = self.manifest["record"]["flags"]
        self.batch = self.flags["batch_size"]
        if self.batch % len(devices):
            refuse("--devices", len(devices), f"a divisor of the batch of {self.batch}")
        mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
        spec = jax.sharding.PartitionSpec
        self.everywhere = jax.sharding.NamedSharding(mesh, spec())
        self.divided = jax.sharding.NamedSharding(mesh, spec("batch"))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.directory / f"{name}.npz", allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def place(self, values):
        """Arrays on every device."""
        return jax.device_put(values, self.everywhere)

    def inputs(self, images: np.ndarray, step: int, *, streamed: bool):
        """The arguments of `step` behind the state, from a step on, without end."""
        stream = streams.batches(self.flags["seed"], len(images), self.batch, step)
        held = None if streamed else self.place(images)
        for indices, draws1, draws2 in _ahead(stream):
            given = images[indices] if streamed else held
            if streamed:
                given = jax.device_put(given, self.divided)
            yield given, *jax.device_put((indices, draws1, draws2), self.divided)

    def program(self, name: str):
        """A function of arrays by name -> results by name; for use inside `jax.jit`."""
        described = self.manifest["programs"][name]

        def abstract(part):
            return tuple(
                jax.core.ShapedArray(tuple(shape), np.dtype(_numpy(dtype)))
                for shape, dtype in described[part].values()
            )

        newest = export.maximum_supported_calling_convention_version
        given, made = abstract("arguments"), abstract("results")
        unknown = (None,) * max(len(given), len(made))
        known = {
            "fun_name": name,
            "in_tree": jax.tree.structure((given, {})),
            "in_avals": given,
            "out_tree": jax.tree.structure(made),
            "out_avals": made,
            "_has_named_shardings": False,
            "_in_named_shardings": unknown[: len(given)],
            "_out_named_shardings": unknown[: len(made)],
            "in_shardings_hlo": unknown[: len(given)],
            "out_shardings_hlo": unknown[: len(made)],
            "nr_devices": 1,  # a program without shardings runs on any number
            "platforms": (jax.devices()[0].platform,),
            "ordered_effects": (),
            "unordered_effects": (),
            "disabled_safety_checks": (export.DisabledSafetyCheck.platform(),),
            "mlir_module_serialized": eigh.by_jax(
                (self.directory / f"{name}.stablehlo").read_bytes()
            ),
            "calling_convention_version": newest,
            "module_kept_var_idx": tuple(range(len(given))),
            "uses_global_constants": False,
            "_get_vjp": None,
        }
        # Versions of JAX differ in the fields; all of them are known here.
        fields = {field.name for field in dataclasses.fields(export.Exported)}
        exported = export.Exported(**{k: v for k, v in known.items() if k in fields})

        def call(values):
            results = exported.call(*[values[key] for key in described["arguments"]])
            return dict(zip(described["results"], results, strict=True))

        return call

    def step(self, state, images, *, streamed: bool):
        """Compiles state, images, (indices,) draws -> state, logs; state is donated.

        Args:
          state, images: arrays, of whose shapes it is compiled.
          streamed: the host sends the images of each batch; else all of them are
            there, and the host sends indices.
        """
        program = self.program("step")

        def one_step(state, images, indices, draws1, draws2):
            batch = images if streamed else images[indices]
            inputs = {"images": batch, "draws1": draws1, "draws2": draws2}
            results = program({**state, **inputs})
            new = {name: results.get(name, value) for name, value in state.items()}
            prefix = "logs/"
            logs = {k[5:]: v for k, v in results.items() if k.startswith(prefix)}
            return new, logs

        each, whole = self.divided, self.everywhere
        jitted = jax.jit(
            one_step,
            donate_argnums=0,
            in_shardings=(whole, each if streamed else whole, each, each, each),
            out_shardings=(whole, whole),
        )
        if streamed:
            images = np.zeros((self.batch, *images.shape[1:]), np.uint8)
        indices = np.zeros(self.batch, np.int32)
        drawn = np.zeros((self.batch, streams.NUM_DRAWS), np.float32)
        return jitted.lower(state, images, indices, drawn, drawn).compile()

    def features(self):
        """state, uint8 [N, S, S, 3] -> float32 [N, r], in batches of the training's."""
        program = self.program("forward")
        names = self.manifest["programs"]["forward"]["arguments"].keys()
        forward = jax.jit(
            lambda state, images: program({**state, "images": images})[
                "representation"
            ],
            in_shardings=(self.everywhere, self.divided),
            out_shardings=self.everywhere,
        )

        def call(state, images):
            own = {name: state[name] for name in names if name != "images"}
            found = []
            for start in range(0, len(images), self.batch):
                part = images[start : start + self.batch]
                missing = [(0, self.batch - len(part))] + [(0, 0)] * 3
                made = np.asarray(forward(own, np.pad(part, missing)))
                found.append(made[: len(part)].astype(np.float32))
            return np.concatenate(found)

        return call


def _numpy(dtype: str):
    return getattr(ml_dtypes, dtype, dtype)


def _ahead(iterator):
    """The same elements, made by a thread while the device computes."""
    made: queue.Queue = queue.Queue(WAITING)

    def fill() -> None:
        for element in iterator:
            made.put(element)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield made.get()
