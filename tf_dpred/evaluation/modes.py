"""`--mode=linear_eval`, `knn` and `finetune`: one evaluation, printed as a table."""

from __future__ import annotations

from typing import Any

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data.bad_images import named_errors
from tf_dpred.evaluation.evaluate import Evaluation
from tf_dpred.system import markdown


def linear_eval(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=linear_eval`; `config` is that of `encoders.settings.of_encoder`."""
    _run("linear_eval", config)


def knn(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=knn`, as `linear_eval`."""
    _run("knn", config)


def finetune(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=finetune`, as `linear_eval`."""
    _run("finetune", config)


def _run(mode: str, config: Config) -> None:
    with named_errors():
        result = Evaluation(config).run(mode)
    header = ("start" if mode == "finetune" else "encoder", "top-1", "top-5", "chosen")
    print(markdown.table(header, _rows(result)))


def _rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    encoder = f"{result['encoder']}, step {result['step']}"
    if result["mode"] == "finetune":
        starts = {encoder: result["finetuned"], "from scratch": result["from_scratch"]}
    else:
        starts = {encoder: result}
    rows: list[tuple[str, ...]] = []
    for name, found in starts.items():
        top5 = f"{found['top5']:.4f}" if "top5" in found else "-"
        chosen = (
            f"k={found['k']}, T={found['temperature']:g}"
            if "k" in found
            else f"rate {found['learning_rate']:g}"
        )
        rows.append((name, f"{found['top1']:.4f}", top5, chosen))
    return rows
