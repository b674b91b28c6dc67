"""The parts that can be asked for, and the tables of the small ones."""

from __future__ import annotations

from collections.abc import Callable

from tools.benchmark import input_tables, step_tables
from tools.benchmark.options import SMALL, Options
from tools.benchmark.race import here, medians, run
from tools.benchmark.table import Table

SOLVER_SIZES = {
    "float32": "64,128,256,512,1024,2048",
    "float64": "64,128,256,512,1024",
}


def solver(options: Options) -> list[Table]:
    """W by eigh and by matrix products."""
    tables = []
    for dtype in ("float32", "float64"):
        command = here(
            "solver",
            f"--dtype={dtype}",
            f"--sizes={SOLVER_SIZES[dtype]}",
            f"--seconds={options.seconds / 10}",
        )
        found, about, absent = run({"solver": command}, options.rounds)
        if absent:
            raise SystemExit(f"solver: {absent['solver']}")
        middle = medians(found["solver"])
        columns = ("eigh {} error", "newton_schulz {} error")
        columns += ("eigh {} ms", "newton_schulz {} ms")
        rows = [
            (str(d), *(middle[column.format(d)] for column in columns))
            for d in about["solver"]["sizes"]
        ]
        header = ("d", "eigh, error", "newton_schulz, error")
        header += ("eigh, ms", "newton_schulz, ms")
        tables.append(Table(f"W from F, {dtype}", header, rows, [], found))
    return tables


def evaluation(options: Options) -> list[Table]:
    """Features beside the forward pass, and kNN."""
    command = here("evaluation", *SMALL, options.measuring)
    found, _, _ = run({"evaluation": command}, options.rounds)
    middle = medians(found["evaluation"])
    rows = [
        ("features, images/s", middle["features"]),
        ("forward pass alone, images/s", middle["forward"]),
        ("ratio", middle["features"] / middle["forward"]),
        ("kNN of 50,000 x 10,000 x 512, s", middle["knn s"]),
    ]
    return [Table("Evaluation, ResNet-18, 32 pixels", ("", ""), rows, [], found)]


def startup(options: Options) -> list[Table]:
    """Imports and the first step of the quickstart."""
    found, _, _ = run({"startup": here("startup")}, options.rounds)
    middle = medians(found["startup"])
    rows = [(name, middle[name]) for name in middle if name != "peak MB"]
    return [Table("Start", ("", "s"), rows, [], found)]


PARTS: dict[str, Callable[[Options], list[Table]]] = {
    "step": step_tables.step,
    "step_parts": step_tables.step_parts,
    "backbones": step_tables.backbones,
    "threads": step_tables.threads,
    "memory": step_tables.memory,
    "input": input_tables.inputs,
    "views": input_tables.views,
    "solver": solver,
    "evaluation": evaluation,
    "startup": startup,
    "checkpoint": step_tables.checkpoint,
    "monitoring": step_tables.monitoring,
}
