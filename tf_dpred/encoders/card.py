"""The model card beside an export: what was trained, how, and what it scores."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tf_dpred.config import EvaluationConfig
from tf_dpred.encoders.restore import Encoder
from tf_dpred.encoders.settings import CARD, EXPORT_VERSION
from tf_dpred.networks.encoder import Normalize
from tf_dpred.records import flags_json, results
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import devices
from tf_dpred.system.markdown import table

# Where things lay on the machine that trained, and how the encoder was evaluated.
_LEFT_OUT = {"workdir", "data_dir", "tpu"} | {
    field.name for field in dataclasses.fields(EvaluationConfig)
}


def write(encoder: Encoder, directory: Path, workdir: Path) -> None:
    """Writes `model_card.json` and `model_card.md`.

    Args:
      encoder: the exported one.
      directory: of the export.
      workdir: its evaluations of exactly these weights are quoted.
    """
    card = describe(encoder, workdir)
    (directory / CARD).write_text(json.dumps(card, indent=2) + "\n")
    (directory / CARD).with_suffix(".md").write_text(markdown(card))


def describe(encoder: Encoder, workdir: Path) -> dict[str, Any]:
    """The card as plain data; `flags` rebuild the network."""
    flags = encoder.config.to_dict()
    record = flags_json.read(Workdir(workdir)) or {}
    # Of the network: a backbone that normalises by itself gets the values as they are.
    layers = encoder.network.layers
    normalize = next(
        (x for x in layers if isinstance(x, Normalize)), encoder.preprocessing
    )
    channels = encoder.config.pixels.count
    r, d = (int(output.shape[-1]) for output in encoder.network.outputs)
    return {
        "format_version": EXPORT_VERSION,
        "encoder": encoder.which,
        "step": encoder.step,
        "weights": encoder.fingerprint,
        "run": record.get("run"),
        **({"own": record["own"]} if "own" in record else {}),
        "dataset": flags["dataset"],
        "split": flags["split"],
        "image_size": encoder.image_size,
        "representation": r,
        "projection": d,
        "parameters": encoder.bare().count_params(),
        "input": {
            "range": [0, 255],
            "dtype": ["uint8", "float32"],
            "channels": "RGB" if channels == 3 else channels,
            "value_range": encoder.config.pixels.value_range,
            "central_crop": encoder.preprocessing.crop_fraction,
            "interpolation": encoder.preprocessing.interpolation,
            "mean": normalize.mean,
            "std": normalize.std,
        },
        "evaluations": [
            result
            for result in results.read_all(workdir)
            if result.get("weights") == encoder.fingerprint and "verdict" not in result
        ],
        "flags": {name: v for name, v in flags.items() if name not in _LEFT_OUT},
        "versions": devices.versions(),
    }


def markdown(card: dict[str, Any]) -> str:
    """The card for people."""
    flags, source = card["flags"], card["input"]
    scores = [
        (_title(e), e["dataset"], f"{_score(e):.4f}") for e in card["evaluations"]
    ]
    evaluations = (
        table(("evaluation", "data set", "top-1"), scores)
        if scores
        else "None yet: `--mode=linear_eval`, `knn` or `finetune`, then export again."
    )
    facts = "\n".join(f"- `{name}`: {value}" for name, value in sorted(flags.items()))
    method = f"`{flags['method']}` with the predictor `{flags['predictor']}`"
    size, trained = card["image_size"], card["split"] or "its training split"
    return f"""\
# {flags["backbone"]}, self-supervised on {card["dataset"]}

The {card["encoder"]} network of a run with {method}, after {card["step"]}
optimizer steps on {card["dataset"]} ({trained}), without labels. Made by tf_dpred
{card["versions"]["tf_dpred"]}; export format {card["format_version"]}.

## Input and output

The SavedModel takes {_channels(source)} images of values in {source["range"]}, uint8 or
float, of any size; other values are mapped to these first (`value_range`:
{source["value_range"]}).
It resizes the central square (side: {source["central_crop"]:g} of the short side)
to {size} x {size} by {source["interpolation"]} interpolation and normalises.
`encoder.keras`, and what is converted from it, takes {size} x {size} images of the
same range; it normalises, but does not resize.

The outputs are `representation` [batch, {card["representation"]}] and `projection`
[batch, {card["projection"]}], float32; of `encoder.keras` the representation alone.
{card["parameters"]:,} parameters without the projector.

## Evaluation

{evaluations}

## Licence

The code is Apache-2.0. The weights were made from the images of {card["dataset"]}:
whether and how they may be used also depends on the terms of that data set, which this
card does not know.

## Settings

{facts}
"""


def _channels(source: dict[str, Any]) -> str:
    found = source["channels"]
    return "RGB" if found == "RGB" else f"{found}-channel"


def _title(evaluation: dict[str, Any]) -> str:
    mode, protocol = evaluation["mode"], evaluation.get("protocol")
    if isinstance(protocol, float):
        return f"fine-tuned on {protocol:.0%} of the labels"
    return {"linear_eval": f"linear ({protocol})", "knn": "kNN"}.get(mode, mode)


def _score(evaluation: dict[str, Any]) -> float:
    return evaluation.get("finetuned", evaluation)["top1"]
