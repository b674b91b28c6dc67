"""The eigen-decompositions of a program, by the solver that JAX has for a device.

TensorFlow writes them as XLA's own, a Jacobi method whose eigenvectors are off by 1e-9
in float64. JAX calls LAPACK on a CPU and cuSOLVER on a GPU: exact, and faster.
"""

from __future__ import annotations

import re

import jax
import numpy as np
from jax import export
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

CALL = re.compile(
    r"(?P<name>%\S+) = stablehlo\.custom_call @Eigh\((?P<argument>%\S+)\) .*"
    r": \((?P<kind>tensor<(?P<d>\d+)x\d+x(?P<type>f\d\d)>)\) -> tuple<(?P<made>.*)>$",
    re.MULTILINE,
)
# How to divide it over devices, which nobody does; an artifact cannot hold it.
RULE = re.compile(r", sdy\.sharding_rule = #sdy\.op_sharding_rule<.*?\}(, custom)?>")
TYPES = {"f32": np.float32, "f64": np.float64}


def by_jax(program: bytes) -> bytes:
    """A portable StableHLO artifact -> the same with JAX's eigh, for this device."""
    with mlir.make_ir_context():
        text = _text(program)
        solvers: dict[str, str] = {}

        def call(found: re.Match) -> str:
            solver = f"eigh_{found['d']}_{found['type']}"
            if solver not in solvers:
                solvers[solver] = _solver(solver, int(found["d"]), found["type"])
            name, made = found["name"], found["made"]
            both = f"%both_{name[1:]}"
            return (
                f"{both}:2 = call @{solver}({found['argument']}) : "
                f"({found['kind']}) -> ({made})\n"
                f"{name} = stablehlo.tuple {both}#0, {both}#1 : tuple<{made}>"
            )

        text = CALL.sub(call, text)
        if "@Eigh" in text:
            raise ValueError("Invalid program: an eigh that is not known.")
        if not solvers:
            return program
        end = text.rstrip().rindex("}")
        module = ir.Module.parse(text[:end] + "\n".join(solvers.values()) + "}")
        version = stablehlo.get_current_version()
        return stablehlo.serialize_portable_artifact(module, version)


def _text(program: bytes) -> str:
    module = stablehlo.deserialize_portable_artifact(ir.Context.current, program)
    return module.operation.get_asm(enable_debug_info=False)


def _solver(name: str, d: int, kind: str) -> str:
    """JAX's eigh of [d, d] as functions of MLIR; the first one has the name."""

    def eigh(matrix):
        return jax.lax.linalg.eigh(matrix, lower=True, symmetrize_input=False)

    matrix = jax.ShapeDtypeStruct((d, d), TYPES[kind])
    text = _text(export.export(jax.jit(eigh))(matrix).mlir_module_serialized)
    text = RULE.sub("", text)
    for inner in re.findall(r"func\.func \w+ @([\w.]+)", text):
        new = name if inner == "main" else f"{name}_{inner}"
        text = re.sub(rf"@{re.escape(inner)}(?![\w.])", f"@{new}", text)
    body = text[text.index("{\n") + 2 : text.rstrip().rindex("}")]
    return body.replace("func.func public", "func.func private")
