"""W by eigh and by matrix products: error and time by d.

    echo | python -m tools.benchmark.solver --sizes=64,128

F is made of d/2 rows, so half of its eigenvalues are zero. The error is the largest
eigenvalue of the difference from W in float64; the largest of W is 1.1.
"""

from __future__ import annotations

import argparse

import numpy as np

import tf_dpred  # noqa: F401, chooses TensorFlow's kernels before that loads
from tools.peers.serve import milliseconds, serve

EPS = 0.1
SOLVERS = ("eigh", "newton_schulz")


def correlation_and_w(d: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """F of a type, and W = (F/m)^(1/2) + eps I by numpy in float64."""
    rows = np.random.default_rng(d).normal(size=(max(d // 2, 1), d)).astype(dtype)
    f = rows.T @ rows / rows.dtype.type(len(rows))
    s, u = np.linalg.eigh(f.astype(np.float64))
    s = np.maximum(s, 0)
    return f, (u * (np.sqrt(s / s.max()) + EPS)) @ u.T


def functions(dtype: str):
    """Solver -> a compiled F -> W."""
    import tensorflow as tf

    from tf_dpred import newton_schulz, spectrum

    def by_eigh(f: tf.Tensor) -> tf.Tensor:
        s, u = tf.linalg.eigh(f)
        return spectrum.from_eigenvalues(spectrum.eigenvalue_map(s, EPS), u)

    def by_products(f: tf.Tensor) -> tf.Tensor:
        return newton_schulz.predictor(f, EPS, "reference")

    signature = [tf.TensorSpec([None, None], dtype)]
    calls = zip(SOLVERS, (by_eigh, by_products), strict=True)
    return {name: tf.function(call, input_signature=signature) for name, call in calls}


def main() -> None:
    import tensorflow as tf

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="64,128,256,512,1024,2048")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--seconds", type=float, default=0.5)
    given = parser.parse_args()
    solvers = functions(given.dtype)
    cases, errors = {}, {}
    for d in map(int, given.sizes.split(",")):
        f, w = correlation_and_w(d, given.dtype)
        cases[d] = tf.constant(f)
        for name, solver in solvers.items():
            s = np.linalg.eigvalsh(solver(cases[d]).numpy() - w)
            errors[f"{name} {d} error"] = float(np.abs(s).max())

    def measure() -> dict[str, float]:
        times = {
            f"{name} {d} ms": milliseconds(
                lambda solver=solver, f=f: solver(f)[0, 0].numpy(), given.seconds
            )
            for d, f in cases.items()
            for name, solver in solvers.items()
        }
        return times | errors

    serve(measure, sizes=sorted(cases))


if __name__ == "__main__":
    main()
