"""The modes that use a trained encoder: linear_eval, knn, finetune and export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tf_dpred.data.bad_images import named_errors
from tf_dpred.encoders import export, restore
from tf_dpred.evaluation.evaluate import Evaluation, setup
from tf_dpred.records import results


def run(mode: str, given: Mapping[str, Any]) -> str:
    """Runs one mode on a finished pre-training.

    Args:
      mode: `linear_eval`, `knn`, `finetune` or `export`.
      given: the settings of the command line; the rest is that of the run.

    Returns:
      What to tell the user.

    Raises:
      ValueError: see `restore` and `evaluation.run`.
      OSError: an image could not be read.
    """
    config = restore.evaluation_config(given)
    if mode == "export":
        setup(config)
        return f"exported to {export.write(config)}"
    evaluation = Evaluation(config)
    with named_errors():
        result = evaluation.run(mode)
    header = ("start" if mode == "finetune" else "encoder", "top-1", "top-5", "chosen")
    return results.table(header, _rows(result))


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
