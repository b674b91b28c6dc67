"""What pre-training was worth: a trained encoder beside an untrained one.

    python -m tf_dpred.main --mode=evaluate --workdir=runs/quickstart

Runs logistic regression on frozen features, kNN, and fine-tuning on 10 % of the
labels; fine-tuning the untrained encoder is training from scratch. Prints one table.
The numbers are kept in the work directory, below evaluation/, and not computed twice.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.evaluation.evaluate import Evaluation
from tf_dpred.system import markdown

MODES = ("linear_eval", "knn", "finetune")


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=evaluate`; `config` is that of `encoders.settings.of_encoder`.

    Raises:
      Refused: see `evaluations`.
      OSError: a result could not be written; the table holds it.
    """
    made: list[Evaluation] = []
    print(table(evaluations(config, made)), flush=True)
    for evaluation in made:
        evaluation.check_written()


def evaluations(
    config: Config, made: list[Evaluation] | None = None
) -> dict[tuple[str, str], dict[str, Any]]:
    """(mode, encoder) -> result, for the encoder of `config` and the untrained one.

    Args:
      config: of `encoders.settings.of_encoder`.
      made: takes the evaluations, whose `check_written` is left to the caller.

    Raises:
      Refused: `--encoder=untrained`; see also `evaluate.Evaluation`.
    """
    trained = config.evaluation.encoder
    if trained == "untrained":
        refuse(
            "encoder", trained, "online or target: the untrained one is shown beside it"
        )
    found = {}
    for encoder in (trained, "untrained"):
        chosen = dataclasses.replace(config.evaluation, encoder=encoder)
        evaluation = Evaluation(dataclasses.replace(config, evaluation=chosen))
        if made is not None:
            made.append(evaluation)
        # Fine-tuning trains the untrained one as well. It comes first, since a batch
        # that is too large for the few labels is refused before anything is computed.
        for mode in reversed(MODES) if encoder == trained else MODES[:2]:
            found[mode, encoder] = evaluation.run(mode, reuse=True)
    return found


def table(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Top-1 on the test split; a row an encoder."""
    finetuned = next(r for (mode, _), r in found.items() if mode == "finetune")
    trained = finetuned["encoder"]
    linear = found["linear_eval", trained]
    header = (
        "encoder",
        f"linear ({linear['protocol']})",
        "kNN",
        f"fine-tuned, {finetuned['label_fraction']:.0%} of labels",
    )
    rows = []
    for encoder, part in (("untrained", "from_scratch"), (trained, "finetuned")):
        name = encoder
        if encoder == trained:
            name = f"{encoder}, step {linear['step']}"
        cells = [found[mode, encoder]["top1"] for mode in MODES[:2]]
        cells.append(finetuned[part]["top1"])
        rows.append((name, *(f"{cell:.4f}" for cell in cells)))
    caption = (
        f"{linear['dataset']}: top-1 on {linear['test_size']} images of "
        f"{linear['test_split']}, {linear['train_size']} of {linear['train_split']} "
        f"with labels; {finetuned['labelled_images']} for fine-tuning"
    )
    return f"{caption}\n\n{markdown.table(header, rows)}"
