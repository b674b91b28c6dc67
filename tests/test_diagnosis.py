"""What --mode=diagnose says to records of runs."""

import json

import numpy as np
import pytest

from tf_dpred import diagnosis
from tf_dpred.config import Config
from tf_dpred.theory import measures

D = 8


def entry(step, *, spread=0.8, size=1.0, w=None, tau=0.9, variance=0.2):
    """A line of theory.jsonl for F = size diag(1, 1/2, 1/3, ...)."""
    s, u = measures.spectrum(size * np.diag(1 / np.arange(1.0, D + 1)))
    w = np.diag(np.sqrt(1 / np.arange(1.0, D + 1))) if w is None else w
    found = measures.of_predictor(w, s, u)
    return {
        "step": step,
        "eigenvalues": s.tolist(),
        "effective_rank": measures.effective_rank(s),
        "feature_std": spread,
        "tau": tau,
        "variance": variance,
        **{k: v.tolist() if hasattr(v, "tolist") else v for k, v in found.items()},
    }


def judged(entries, epochs=(), **settings):
    return diagnosis.judge(Config.from_dict(settings), list(entries), list(epochs))


def test_healthy():
    knn = [{"epoch": 0, "knn": 0.3}, {"epoch": 4, "knn": 0.5}]
    found = judged([entry(1), entry(2), entry(3)], knn)
    assert found.state == "healthy"
    assert found.advice == []
    text = str(found)
    assert text.startswith("HEALTHY: feature std x sqrt(d) is 0.800; ")
    assert "kNN accuracy 0.300 at epoch 0, 0.500 at epoch 4." in text
    assert "tau 0.900" in text and "sigma^2 0.200" in text
    assert "s_j^0.50" in text


def test_healthy__knn_that_does_not_rise_is_said():
    knn = [{"epoch": 0, "knn": 0.3}, {"epoch": 4, "knn": 0.2}]
    assert "nothing was learned" in str(judged([entry(1)], knn))


def test_collapsed__to_one_direction():
    found = judged(
        [entry(1, spread=0.9), entry(2, spread=0.05)],
        predictor="none",
        ema=False,
        stop_gradient=False,
    )
    assert found.state == "collapsed"
    assert "0.0500 (1 spread" in found.reasons[0]
    assert any(line.startswith("--stop_gradient") for line in found.advice)
    assert any(line.startswith("--predictor=direct") for line in found.advice)
    assert sum("Theorem 2" in line for line in found.levers) == 2


def test_collapsed__to_zero_is_a_matter_of_the_unnormalised_loss():
    entries = [entry(1), entry(2, size=1e-4)]
    assert judged(entries, loss="mse").state == "collapsed"
    assert judged(entries, loss="cosine").state == "healthy"


@pytest.mark.parametrize(
    ("spreads", "state"),
    [
        ([0.9, 0.8, 0.7, 0.5], "collapsing"),
        ([0.9, 0.4, 0.45, 0.5], "healthy"),  # it comes back
        ([0.9, 0.8, 0.75, 0.7], "healthy"),  # not much yet
    ],
)
def test_collapsing(spreads, state):
    found = judged(
        [entry(step, spread=x) for step, x in enumerate(spreads, 1)],
        predictor="symmetric",
        ema=False,
        optimizer="sgd",
        weight_decay=4e-4,
    )
    assert found.state == state
    if state == "collapsing":
        assert any("Table 3" in line for line in found.advice)
        assert any("#4" in line for line in found.advice)


def test_misaligned():
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    found = judged([entry(1, w=turned)], predictor="linear", ema=False)
    assert found.state == "misaligned"
    assert any("aligned by construction" in line for line in found.advice)
    assert any(line.startswith("--ema") for line in found.advice)


SGD = {
    "optimizer": "sgd",
    "loss": "mse",
    "momentum": 0.0,
    "predictor": "linear",
    "symmetric_loss": True,
}


def test_levers__distance_to_the_critical_decay():
    """By hand: eta = 0.04/4, critical .9^2/(4 * 1.2) = 0.16875, p- of the quadratic."""
    found = judged([entry(1)], **SGD, weight_decay=0.04)
    (line,) = [line for line in found.levers if line.startswith("decay")]
    assert "eta = 0.01 " in line
    assert "0.059 of the critical 0.169" in line
    boundary = (0.9 - np.sqrt(0.81 - 4 * 0.01 * 1.2)) / 2.4
    assert f"p below {boundary:.3g} collapses" in line
    assert "as 0 of the 8 leading modes do here" in line


def test_levers__beyond_the_critical_decay():
    found = judged([entry(1)], **SGD, weight_decay=4.0)
    assert any("every mode collapses (#5)" in line for line in found.levers)


@pytest.mark.parametrize("optimizer", ["lars", "adamw"])
def test_levers__no_decay_of_the_theory(optimizer):
    found = judged([entry(1)], optimizer=optimizer)
    assert not any(line.startswith("decay") for line in found.levers)
    assert any(f"{optimizer} has no eta" in line for line in found.limits)


def test_limits__always_said():
    assert any("linear, resnet18 is not" in line for line in judged([entry(1)]).limits)
    assert any("scale of p" in line for line in judged([entry(1)]).limits)
    assert not any("scale of p" in line for line in judged([entry(1)], **SGD).limits)


def written(directory, entries):
    flags = {"flags": Config.from_dict({"predictor": "linear"}).to_dict()}
    (directory / "flags.json").write_text(json.dumps(flags))
    lines = "".join(json.dumps(e) + "\n" for e in entries)
    (directory / "theory.jsonl").write_text(lines)
    return str(directory)


def test_report__text_and_picture(tmp_path):
    text = diagnosis.report(written(tmp_path, [entry(1), entry(2), entry(3)]))
    assert text.startswith("HEALTHY")
    for name in ("theory.png", "theory.svg"):
        assert name in text
        assert (tmp_path / name).stat().st_size > 5000


def test_report__without_a_matrix(tmp_path):
    names = ("step", "eigenvalues", "effective_rank", "tau", "variance")
    bare = {name: entry(1)[name] for name in names}
    assert "HEALTHY" in diagnosis.report(written(tmp_path, [bare]))


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"without flags\.json .*accepted: the work"):
        diagnosis.diagnose(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"without a measurement in theory\.jsonl"):
        diagnosis.diagnose(written(tmp_path, []))
