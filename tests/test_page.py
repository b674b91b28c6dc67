"""One page that says what the work directories hold."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import toys

from tf_dpred import main
from tf_dpred.callbacks.tensorboard import TensorBoard
from tf_dpred.config import Config, FilesConfig
from tf_dpred.errors import Refused
from tf_dpred.reports import page


def run(workdir, **files):
    paths = {name: str(value) for name, value in files.items()}
    page.run(Config.from_dict({"workdir": str(workdir)}), FilesConfig(**paths))


def workdir(path, rho, knn):
    """A work directory of two epochs with an evaluation and pictures."""
    path.mkdir()
    record = {
        "flags": {"rho": rho, "eps": 0.1},
        "num_examples": 1234,
        "versions": {"keras": "3.15"},
        "devices": ["/device:CPU:0"],
    }
    (path / "flags.json").write_text(json.dumps(record))
    views = {"view_images": 512, "view_held_out": True}
    epochs = [{"epoch": 0, "step": 0, "knn": 0.25, "view_top1": 0.045, **views}]
    epochs += [
        {"epoch": e, "step": 5 * e, "loss": -e, "feature_std": 0.5, "knn": knn}
        for e in (1, 2)
    ]
    epochs[-1] |= {"view_top1": knn - 0.25, "lidar": 12.5, **views}
    theory = {
        "step": 10,
        "eigenvalues": [2.0, 1.0],
        "centered_rank": 1.5,
        "effective_rank": 1.8,
    }
    for name, entries in (("epochs", epochs), ("theory", [theory])):
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        (path / f"{name}.jsonl").write_text(text)
    model = toys.compiled()
    board = TensorBoard(str(path / "tensorboard"), 4, 1)
    board.set_model(model)
    board.image("views", np.zeros((8, 8, 3), np.uint8))
    board.scalars({"speed/images_per_second": 100.0})
    board.scalars({"speed/images_per_second": 300.0})
    board.scalars({"speed/images_per_second": 120.0})
    evaluation = {"mode": "linear_eval", "protocol": "features", "dataset": "digits"}
    evaluation |= {"encoder": "online", "top1": knn + 0.1}
    (path / "evaluation/x").mkdir(parents=True)
    (path / "evaluation/x/result.json").write_text(json.dumps(evaluation))
    return path


class Page(HTMLParser):
    """Tables as text, and the tags that are open."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open, self.seen = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture
def text(tmp_path, capsys):
    first = workdir(tmp_path / "first", 0.3, 0.5)
    second = workdir(tmp_path / "second<&>", 0.5, 0.625)
    output = tmp_path / "page.html"
    run(first, beside=second, output=output)
    assert "wrote" in capsys.readouterr().out
    return output.read_text()


def test_report__results_settings_and_speed(text):
    page = Page(text)
    assert page.open == []
    for row in (
        ["images", "1,234", "1,234"],
        ["loss", "-2.0000", "-2.0000"],
        ["kNN, untrained", "0.2500", "0.2500"],
        ["kNN", "0.5000", "0.6250"],
        ["linear_eval, features, digits, online: top-1", "0.6000", "0.7250"],
        ["rho", "0.3", "0.5"],
        ["eps", "0.1", "0.1"],
        ["keras", "3.15", "3.15"],
        ["images/s, median", "120", "120"],
    ):
        assert row in page.rows
    assert [a for tag, a in page.seen if tag == "tr"].count({"class": "differs"}) == 1


def test_report__opens_with_the_verdict(text):
    page = Page(text)
    assert ["view retrieval: top-1, untrained", "0.0450", "0.0450"] in page.rows
    assert ["view retrieval: top-1", "0.2500", "0.3750"] in page.rows
    assert ["LiDAR", "12.5000", "12.5000"] in page.rows
    opening = text[text.index("</h1>") : text.index("<h2>Results")]
    assert opening.count("better than untrained: view retrieval 0.") == 2
    assert "0.045 (0.030 to 0.067), 512 held-out images." in opening


def test_report__a_run_that_was_not_measured_says_so(tmp_path):
    path = workdir(tmp_path / "run", 0.3, 0.5)
    (path / "epochs.jsonl").write_text("")
    run(path)
    assert "not measured (--quality_every, or " in (path / "report.html").read_text()


def test_report__holds_its_pictures_and_needs_no_network(text):
    page = Page(text)
    images = [a["src"] for tag, a in page.seen if tag == "img"]
    assert len(images) == 2
    assert all(src.startswith("data:image/png;base64,") for src in images)
    assert sum(tag == "svg" for tag, _ in page.seen) == 3  # curves, two spectra
    fetched = [
        value
        for tag, attributes in page.seen
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href") and re.match(r"(https?:)?//", value)
    ]
    assert fetched == [] and "<script" not in text and "@import" not in text


def test_report__of_one_run_lies_in_its_directory(tmp_path, capsys):
    path = workdir(tmp_path / "run", 0.3, 0.5)
    run(path)
    assert capsys.readouterr().out.startswith(f"wrote {path / 'report.html'}, ")
    assert ["rho", "0.3"] in Page((path / "report.html").read_text()).rows


def test_report__tensorboard_is_not_heard(tmp_path, caplog):
    caplog.set_level("INFO")
    run(workdir(tmp_path / "run", 0.3, 0.5))
    assert [r.name for r in caplog.records if main._is_not_chatter(r)] == []


def test_report__without_tensorboard(tmp_path):
    path = workdir(tmp_path / "run", 0.3, 0.5)
    shutil.rmtree(path / "tensorboard")
    run(path)
    text = (path / "report.html").read_text()
    page = Page(text)
    assert ["kNN", "0.5000"] in page.rows and ["keras", "3.15"] in page.rows
    assert "img" not in [tag for tag, _ in page.seen]
    missing = "tensorboard/ (views, neighbours, speed)"
    assert f"<p>Not in the work directory: {missing}.</p>" in text


PARTS = ["epochs.jsonl", "theory.jsonl", "tensorboard", "evaluation"]


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("part", [*PARTS, "all of them"])
def test_report__a_copy_that_lacks_a_part(part, empty, tmp_path):
    path = workdir(tmp_path / "run", 0.3, 0.5)
    names = PARTS if part == "all of them" else [part]
    for name in names:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
            if empty:
                (path / name).mkdir()
        else:
            (path / name).unlink()
            if empty:
                (path / name).write_text("")
    run(path)
    text = (path / "report.html").read_text()
    assert Page(text).open == [] and ["rho", "0.3"] in Page(text).rows
    (said,) = re.findall("<p>Not in the work directory: (.*)</p>", text)
    assert all((name in said) == (name in names) for name in PARTS)


def test_report__a_whole_directory_lacks_nothing(text):
    assert "Not in the work directory" not in text


def test_report__refuses_in_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "flags.json").write_text('{"flags": {}}')
    accepted = "accepted: the work directory of a run"
    with pytest.raises(Refused, match=rf"^--workdir: received '.*', {accepted}"):
        run(tmp_path)
    with pytest.raises(Refused, match=rf"^--beside: received 'no/run', {accepted}"):
        run(tmp_path / "run", beside="no/run")
    for output in ("no/page.html", "run"):
        with pytest.raises(
            Refused, match=r"^--output: received '.*', accepted: the na"
        ):
            run(tmp_path / "run", output=tmp_path / output)
