"""One page about one run, or about several side by side.

    python -m tf_dpred.main --mode=report --workdir=runs/mine
    python -m tf_dpred.main --mode=report --workdir=runs/a --beside=runs/b,runs/c

Curves, spectra, views, neighbours, evaluations, settings and their differences,
environment and speed, all from the work directories. The page is one HTML file that
needs no network; without --output it is report.html in the (first) work directory.
"""

from __future__ import annotations

import base64
import html
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.evaluation import verdict
from tf_dpred.records import flags_json, lines, results
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import json_files
from tf_dpred.system.files import output_file, printable, write_whole

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top;
  border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.differs { background: #fff3d6; }
img, svg { max-width: 100%; height: auto; }
img { width: 44rem; image-rendering: pixelated; }
figure { margin: 1rem 0; } figcaption { color: #666; font-size: 13px; }
details { margin: .5rem 0; } code { font-size: 13px; }
@media print { body { max-width: none; margin: 0; } details > * { display: block; }
  figure, table { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Run:
    """What a work directory holds.

    Attributes:
      name: the directory as it was given.
      record: flags.json.
      epochs, theory: the lines of the files of that name.
      evaluations: results of linear_eval, knn and finetune.
      speeds: images/s, as TensorBoard has them.
      pictures: name -> the latest, PNG bytes.
      missing: what the directory lacks of all that, in words.
    """

    name: str
    record: dict[str, Any]
    epochs: list[dict]
    theory: list[dict]
    evaluations: list[dict[str, Any]]
    speeds: list[float]
    pictures: dict[str, bytes]
    missing: list[str]


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=report`: the page of `--workdir` and `--beside` into `--output`.

    Raises:
      Refused: a directory holds no run, or the output cannot be written.
      OSError: the page could not be written.
    """
    workdir = config.training.workdir
    runs = [open_run(workdir, "workdir")]
    if files.beside is not None:
        runs += [open_run(other, "beside") for other in files.beside.split(",")]
    # After the directory is known to be that of a run.
    name = files.output or str(Workdir(workdir).report)
    output = output_file(name, "an html file")
    write_whole(output, page(runs))
    print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB")


def open_run(name: str, flag: str) -> Run:
    """Reads a work directory.

    Args:
      name: of the directory.
      flag: that names it, for the message.

    Raises:
      Refused: it holds no run, or a damaged file.
    """
    workdir = Workdir(name)
    record = flags_json.read(workdir, flag)
    if record is None:
        refuse(flag, name, "the work directory of a run")
    speeds, pictures = _read_tensorboard(workdir.tensorboard)
    epochs = json_files.read_lines(workdir.epochs, lines.EPOCH, flag)
    theory = json_files.read_lines(workdir.theory, lines.THEORY, flag)
    evaluations = results.read_all(workdir.path, flag)
    parts = {
        f"{workdir.epochs.name} (curves)": epochs,
        f"{workdir.theory.name} (spectra)": theory,
        f"{workdir.tensorboard.name}/ (views, neighbours, speed)": speeds or pictures,
        f"{workdir.evaluation.name}/": evaluations,
    }
    missing = [part for part, found in parts.items() if not found]
    return Run(
        printable(name), record, epochs, theory, evaluations, speeds, pictures, missing
    )


def _read_tensorboard(directory: Path) -> tuple[list[float], dict[str, bytes]]:
    """`speeds` and `pictures` of a `Run`; empty where the directory was removed."""
    if not directory.is_dir() or not any(directory.iterdir()):
        return [], {}
    events = EventAccumulator(str(directory), {"tensors": 0}).Reload()
    found = set(events.Tags()["tensors"])
    speed = "speed/images_per_second"
    speeds = [_array(e).item() for e in events.Tensors(speed)] if speed in found else []
    # An image is stored as width, height, PNG.
    pictures = {
        name: _array(events.Tensors(name)[-1])[2]
        for name in ("views", "neighbours")
        if name in found
    }
    return speeds, pictures


def _array(event) -> np.ndarray:
    return tf.make_ndarray(event.tensor_proto)


def page(runs: Sequence[Run]) -> str:
    """The whole page, HTML."""
    from tf_dpred.reports import run_curves

    title = " beside ".join(run.name for run in runs)
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        *(_verdict(run) for run in runs),
        "<h2>Results</h2>",
        _table(["", *(run.name for run in runs)], _results(runs)),
        "<h2>Curves</h2>",
        _figure(_inline(run_curves.svg(runs)), CURVES_CAPTION),
    ]
    for run in runs:
        sections += _of_one(run)
    sections += ["<h2>Settings</h2>", _settings(runs)]
    sections += ["<h2>Environment and speed</h2>", _environment(runs)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


# Label-free measures of the representation, and how they are shown.
QUALITY = {
    "view_top1": "view retrieval: top-1",
    "view_top5": "view retrieval: top-5",
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "alpha_req": "alpha-ReQ",
    "view_alignment": "alignment of views",
    "uniformity": "uniformity",
}
CURVES_CAPTION = (
    "Loss and feature std: means of an epoch; feature std is that of the normalised "
    "projections times sqrt(d), 1 = spread over the sphere, 0 = collapsed. kNN: top-1 "
    "of the representation, epoch 0 untrained. View retrieval: how often the nearest "
    "second view is that of the same image. Directions: effective rank of the "
    "projections' covariance around their mean. LiDAR: directions that "
    "tell images apart."
)


def _verdict(run: Run) -> str:
    """The sentence that says whether it was worth it."""
    found = verdict.of_epochs(run.epochs)
    said = [e["verdict"] for e in run.evaluations if "verdict" in e]
    if not said and found is not None:
        said = [found.sentence]
    text = said[-1] if said else "not measured (--quality_every, or --mode=evaluate)"
    return f"<p><b>{html.escape(run.name)}</b>: {html.escape(text)}.</p>"


def _results(runs: Sequence[Run]) -> list[list[str]]:
    """Rows: what is measured, then a cell for each run."""
    rows: dict[str, list[str]] = {}

    def add(name: str, value: Callable[[Run], Any], form: str = "") -> None:
        cells = []
        for run in runs:
            found = value(run)
            cells.append("" if found is None else format(found, form))
        if any(cells):
            rows[name] = cells

    def last(name: str) -> Callable[[Run], Any]:
        return lambda run: next(
            (e[name] for e in reversed(run.epochs) if name in e), None
        )

    def untrained(name: str) -> Callable[[Run], Any]:
        return lambda run: next(
            (e.get(name) for e in run.epochs if e["epoch"] == 0), None
        )

    def top1(row: str) -> Callable[[Run], Any]:
        return lambda run: next(
            (_top1(e) for e in run.evaluations if _protocol(e) == row), None
        )

    add("images", lambda run: run.record.get("num_examples"), ",")
    add("epochs", last("epoch"))
    add("steps", last("step"), ",")
    add("loss", last("loss"), ".4f")
    add("feature std x sqrt(d)", last("feature_std"), ".3f")
    add("kNN, untrained", untrained("knn"), ".4f")
    add("kNN", last("knn"), ".4f")
    for name, shown in QUALITY.items():
        add(f"{shown}, untrained", untrained(name), ".4f")
        add(shown, last(name), ".4f")
    # Every protocol, data set and encoder is a row.
    for row in dict.fromkeys(_protocol(e) for run in runs for e in run.evaluations):
        add(row, top1(row), ".4f")
    return [[name, *cells] for name, cells in rows.items()]


def _protocol(evaluation: dict[str, Any]) -> str:
    names = ("mode", "protocol", "dataset", "encoder")
    parts = [str(evaluation[name]) for name in names if evaluation.get(name)]
    return ", ".join(parts) + ": top-1"


def _top1(evaluation: dict[str, Any]) -> float | None:
    finetuned = evaluation.get("finetuned")
    return finetuned["top1"] if finetuned else evaluation.get("top1")


def _of_one(run: Run) -> list[str]:
    """Spectra, views and neighbours of one run."""
    from tf_dpred.reports import spectra

    sections = [f"<h2>{html.escape(run.name)}</h2>"]
    if run.missing:
        parts = html.escape(", ".join(run.missing))
        sections.append(f"<p>Not in the work directory: {parts}.</p>")
    if run.theory:
        with tempfile.TemporaryDirectory() as directory:
            _, svg = spectra.draw(run.theory, Path(directory) / "spectra")
            sections.append(_figure(_inline(svg.read_text()), "Spectra of F and W."))
    captions = {
        "views": "From above: the image as evaluation sees it, view 1, view 2.",
        "neighbours": "Test images and their nearest neighbours, nearest first; green: "
        "of the same class, red: of another.",
    }
    for name, png in run.pictures.items():
        data = base64.b64encode(png).decode()
        image = f'<img alt="{name}" src="data:image/png;base64,{data}">'
        sections.append(_figure(image, captions[name]))
    return sections


def _settings(runs: Sequence[Run]) -> str:
    """All flags; those in which the runs differ come first and are marked."""
    flags = [run.record["flags"] | _own(run) for run in runs]
    names = list(dict.fromkeys(name for given in flags for name in given))
    rows = {name: [str(given.get(name)) for given in flags] for name in names}
    differing = [n for n in names if len(set(rows[n])) > 1]
    header = ["flag", *(run.name for run in runs)]
    same = [[n, *rows[n]] for n in names if n not in differing]
    parts = []
    if differing:
        parts.append(_table(header, [[n, *rows[n]] for n in differing], "differs"))
    summary = "flags in which they agree" if differing else "all flags"
    parts.append(
        f"<details{'' if differing else ' open'}><summary>{summary}</summary>"
        f"{_table(header, same)}</details>"
    )
    return "\n".join(parts)


def _own(run: Run) -> dict[str, str]:
    """What a program gave to a run beside its flags, as rows of their table."""
    own = run.record.get("own", {})
    found = {"own views": own["views"]["name"]} if "views" in own else {}
    if "callbacks" in own:
        found["own callbacks"] = ", ".join(own["callbacks"])
    return found


def _environment(runs: Sequence[Run]) -> str:
    rows: dict[str, list[str]] = {}
    for index, run in enumerate(runs):
        versions = run.record.get("versions", {})
        devices = run.record.get("devices", [])
        speed = f"{statistics.median(run.speeds):,.0f}" if run.speeds else ""
        cells = {
            **versions,
            "devices": ", ".join(devices),
            "images/s, median": speed,
        }
        for name, value in cells.items():
            rows.setdefault(name, [""] * len(runs))[index] = str(value)
    body = [[name, *cells] for name, cells in rows.items()]
    return _table(["", *(run.name for run in runs)], body)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for name, *cells in rows:
        body = "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in cells)
        lines.append(f'<tr class="{kind}"><td>{html.escape(name)}</td>{body}</tr>')
    return f"<table><tr>{head}</tr>\n{''.join(lines)}</table>"


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _inline(svg: str) -> str:
    """An SVG file as a part of a page."""
    return svg[svg.index("<svg") :]
