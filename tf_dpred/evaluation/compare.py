"""Was it worth it? An encoder beside what there was before, and what can be said.

    python -m tf_dpred.main --mode=evaluate --workdir=runs/quickstart
    python -m tf_dpred.main --mode=evaluate --workdir=runs/mine --baseline=ResNet50

Rows: raw pixels, the untrained encoder, this one, `--baseline`, and the same network
trained from scratch on labels. With labels: a linear classifier, kNN, and fine-tuning
on 1 % and on `--label_fraction` of them. Always: the label-free measures, of views by
the run's own recipe. A sentence says whether this encoder is better. The numbers are
kept in the work directory, below evaluation/, and not computed twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import datasets
from tf_dpred.data.bad_images import BadImages, named_errors
from tf_dpred.data.source import Source
from tf_dpred.data.views import of_config
from tf_dpred.encoders import baseline, restore
from tf_dpred.encoders.restore import Encoder
from tf_dpred.evaluation import labelled, verdict, views
from tf_dpred.evaluation.evaluate import Evaluation
from tf_dpred.evaluation.verdict import Comparison, Rate
from tf_dpred.records import results
from tf_dpred.system import devices, markdown

FEW_LABELS = 0.01
# Names of columns and rows.
LINEAR, KNN, SCRATCH = "linear", "kNN", "from scratch"
SHOWN = {
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "alpha_req": "alpha",
    "view_alignment": "align.",
    "uniformity": "unif.",
}


@dataclasses.dataclass(frozen=True)
class Found:
    """The numbers of a comparison.

    Attributes:
      ours: name of the row that is judged.
      rates: row -> column -> top-1; a row that has no such number lacks the column.
      measures: row -> label-free measures.
      caption: what was measured on which images.
    """

    ours: str
    rates: Mapping[str, Mapping[str, Rate]]
    measures: Mapping[str, Mapping[str, Any]]
    caption: str


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=evaluate`; `config` is that of `encoders.settings.of_encoder`.

    Raises:
      Refused: see `evaluations`.
      OSError: a result could not be written; the table holds it.
    """
    made: list[Evaluation] = []
    found, encoder = evaluations(config, files.baseline, made)
    said = sentence(found)
    result = {
        "mode": "evaluate",
        "protocol": None,
        "dataset": config.data.dataset,
        "encoder": encoder.which,
        "step": encoder.step,
        "weights": encoder.fingerprint,
        "verdict": said,
    }
    print(f"{table(found)}\n\n{said[0].upper()}{said[1:]}.", flush=True)
    for evaluation in made:
        evaluation.check_written()
    results.write(Path(config.training.workdir), result)


def evaluations(
    config: Config,
    beside: str | None = None,
    made: list[Evaluation] | None = None,
) -> tuple[Found, Encoder]:
    """All numbers of an encoder and of what it is compared with.

    Args:
      config: of `encoders.settings.of_encoder`.
      beside: value of `--baseline`.
      made: takes the evaluations, whose `check_written` is left to the caller.

    Returns:
      The numbers, and the encoder.

    Raises:
      Refused: `--encoder=untrained`; see also `evaluate.Evaluation`.
    """
    which = config.evaluation.encoder
    if which == "untrained":
        refuse(
            "encoder", which, "online or target: the untrained one is shown beside it"
        )
    devices.prepare(config.training, "float32")
    trained = restore.open_encoder(config)
    # What cannot be opened is refused before anything is computed.
    others = [] if beside is None else [baseline.open_baseline(beside, trained.config)]
    ours = f"{which}, step {trained.step}"
    rows = {
        "raw pixels": baseline.pixels(trained.config),
        "untrained": restore.untrained(trained.config, trained.backbone),
        ours: trained,
        **{other.which.removeprefix("baseline "): other for other in others},
    }
    rates: dict[str, dict[str, Rate]] = {name: {} for name in rows}
    captions: list[str] = []
    # One walk over a folder for all of it.
    dataset = datasets.of_config(config)
    bad_images = BadImages(config.data.max_bad_images)
    splits = labelled.open_splits(config, bad_images, (None, None), dataset)
    if splits is not None:
        rates, captions = _with_labels(config, rows, ours, splits, made)
    measures = _without_labels(config, rows, bad_images, dataset)
    first = next(iter(measures.values()))
    held_out = "held-out" if first["view_held_out"] else "training"
    captions.append(
        f"view retrieval and the other measures without labels: "
        f"{first['view_images']} {held_out} images, two views of each by "
        f"--views={trained.config.data.views}"
    )
    return Found(ours, rates, measures, "; ".join(captions)), trained


def _with_labels(
    config: Config,
    rows: Mapping[str, Encoder],
    ours: str,
    splits: tuple[Source, Source],
    made: list[Evaluation] | None,
) -> tuple[dict[str, dict[str, Rate]], list[str]]:
    """Top-1 by row and column, and what it was measured on."""
    rates: dict[str, dict[str, Rate]] = {name: {} for name in rows}
    rates[SCRATCH] = {}
    found: dict[str, Any] = {}
    # A batch that is too large for the few labels is refused before all else.
    for name in sorted(rows, key=lambda row: row != ours):
        evaluation = Evaluation(config, rows[name], splits)
        used = [evaluation]
        n = evaluation.test.num_examples
        if name not in ("raw pixels", "untrained"):
            for fraction in _fractions(config, evaluation):
                chosen = dataclasses.replace(config.evaluation, label_fraction=fraction)
                few = Evaluation(
                    dataclasses.replace(config, evaluation=chosen), rows[name], splits
                )
                used.append(few)
                tuned = few.run("finetune", reuse=True)
                column = f"{fraction:.0%} labels"
                rates[name][column] = Rate(tuned["finetuned"]["top1"], n)
                if name == ours:
                    rates[SCRATCH][column] = Rate(tuned["from_scratch"]["top1"], n)
        for column, mode in ((LINEAR, "linear_eval"), (KNN, "knn")):
            found = evaluation.run(mode, reuse=True)
            rates[name][column] = Rate(found["top1"], n)
        if made is not None:
            made += used
    caption = (
        f"{found['dataset']}: top-1 on {found['test_size']} images of "
        f"{found['test_split']}, {found['train_size']} of {found['train_split']} with "
        f"labels, linear: {config.evaluation.protocol}"
    )
    return rates, [caption]


def _fractions(config: Config, evaluation: Evaluation) -> list[float]:
    """Of the labels; few of them only where a rate can be chosen with so few."""
    asked = config.evaluation.label_fraction
    each = round(FEW_LABELS * evaluation.train.num_examples / evaluation.num_classes)
    enough = each > 1 or config.evaluation.eval_lr is not None
    return sorted({asked, FEW_LABELS} if enough else {asked})


def _without_labels(
    config: Config,
    rows: Mapping[str, Encoder],
    bad_images: BadImages,
    dataset: datasets.DataSet,
) -> dict[str, dict[str, Any]]:
    """The label-free measures by row, on the same views of the same images."""
    trained = next(iter(rows.values())).config
    pair = of_config(trained)
    with named_errors():
        made = views.HeldOutViews.of_source(
            *views.held_out_source(config, bad_images, dataset),
            pair,
            trained.data.image_size,
        )
        facts = {
            "view_images": len(made.first),
            "view_held_out": made.held_out,
        }
        return {
            name: views.ViewMeasures(encoder.network)(made.resized(encoder.image_size))
            | facts
            for name, encoder in rows.items()
        }


def sentence(found: Found) -> str:
    """What can be said of the encoder, beside every other row that it can be told from.

    With labels by kNN, which needs no further choice. Without, only beside the network
    that it began as: other networks were not trained for these views, and recognising
    them more or less says nothing.
    """
    ours = found.rates[found.ours]
    parts = [
        Comparison(ours[KNN], rates[KNN]).sentence(name, KNN, "test images")
        for name, rates in _in_order(found.rates)
        if name != found.ours and KNN in rates
    ]
    views_say = verdict.of_views(
        found.measures["untrained"], found.measures[found.ours]
    )
    parts.append(views_say.sentence)
    return f"{found.ours}: {'; '.join(parts)}"


def _in_order(rates: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    """Rows; the untrained encoder first."""
    return sorted(rates.items(), key=lambda item: item[0] != "untrained")


def table(found: Found) -> str:
    """One table with 95 % intervals, and one of the other label-free measures."""
    parts = [f"{found.caption}; in brackets: 95 % intervals"]
    columns = list(dict.fromkeys(c for r in found.rates.values() for c in r))
    if columns:
        rows = [
            [name, *(rates[c].percent if c in rates else "" for c in columns)]
            for name, rates in found.rates.items()
        ]
        parts.append(markdown.table(["encoder", *(f"{c}, %" for c in columns)], rows))
    header = ["view top-1, %", "top-5", *SHOWN.values()]
    rows = [
        [
            name,
            Rate(m["view_top1"], m["view_images"]).percent,
            f"{100 * m['view_top5']:.1f}",
            *(f"{m[key]:.3g}" if key in m else "" for key in SHOWN),
        ]
        for name, m in found.measures.items()
    ]
    parts.append(markdown.table(["encoder", *header], rows))
    return "\n\n".join(parts)
