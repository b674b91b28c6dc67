"""What pre-training was worth: a trained encoder beside an untrained one.

    python tools/evaluate.py runs/quickstart

Runs logistic regression on frozen features, kNN, and fine-tuning on 10 % of the
labels; fine-tuning the untrained encoder is training from scratch. Prints one table.
The numbers are kept in the work directory, below evaluation/, and not computed twice.
Flags of tf_dpred.main may follow: `--data_dir=...`, `--eval_lr=0.1`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from tf_dpred import flags as tf_dpred_flags
from tf_dpred.system import quiet

MODES = ("linear_eval", "knn", "finetune")


def evaluations(given: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """(mode, encoder) -> result, for the online and the untrained encoder.

    Args:
      given: settings that were given, `workdir` among them.

    Raises:
      ValueError: see `evaluation.run.Evaluation`.
    """
    with quiet.start():
        from tf_dpred.encoders import settings
        from tf_dpred.evaluation.evaluate import Evaluation

    found = {}
    for encoder in (given.get("encoder", "online"), "untrained"):
        config = settings.of_encoder({**given, "encoder": encoder})
        evaluation = Evaluation(config)
        for mode in MODES if encoder != "untrained" else MODES[:2]:
            found[mode, encoder] = evaluation.run(mode, reuse=True)
    return found


def table(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Top-1 on the test split; a row an encoder."""
    from tf_dpred.records import results

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
    return f"{caption}\n\n{results.table(header, rows)}"


def main(arguments: Sequence[str]) -> None:
    logging.set_verbosity(logging.INFO)
    workdirs = [a for a in arguments if not a.startswith("--")]
    if len(workdirs) != 1:
        sys.exit(f"evaluate: received {workdirs}, accepted: one work directory.")
    rest = [a for a in arguments if a.startswith("--")]
    try:
        flags.FLAGS(["evaluate", *rest])
        given = tf_dpred_flags.given_settings() | {"workdir": str(Path(workdirs[0]))}
        found = evaluations(given)
    except (flags.Error, ValueError) as error:
        sys.exit(f"evaluate: {' '.join(str(error).split())}")
    print(table(found))


if __name__ == "__main__":
    main(sys.argv[1:])
