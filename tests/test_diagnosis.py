"""What --mode=diagnose says to records of runs."""

import json
import re

import numpy as np
import pytest

from tf_dpred.config import PREDICTOR_FACTS, Config
from tf_dpred.errors import Refused
from tf_dpred.evaluation import verdict
from tf_dpred.reports import diagnosis
from tf_dpred.theory import measures

D = 8


def entry(step, *, spread=0.8, size=1.0, w=None, tau=0.9, variance=0.2, rank=6.0):
    """A line of theory.jsonl for F = size diag(1, 1/2, 1/3, ...)."""
    s, u = measures.spectrum(size * np.diag(1 / np.arange(1.0, D + 1)))
    w = np.diag(np.sqrt(1 / np.arange(1.0, D + 1))) if w is None else w
    found = measures.of_predictor(w, s, u)
    return {
        "step": step,
        "eigenvalues": s.tolist(),
        "effective_rank": measures.effective_rank(s),
        "centered_rank": rank,
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


def epochs(untrained, trained, n=512):
    """epochs.jsonl of a run whose monitor measured view retrieval."""
    return [
        {"epoch": e, "step": 9 * e, "view_images": n, "view_held_out": True} | measured
        for e, measured in (
            (0, {"view_top1": untrained}),
            (15, {"view_top1": trained, "loss": -3.87, "feature_std": 0.25}),
        )
    ]


@pytest.mark.parametrize(
    ("untrained", "trained", "state", "said"),
    [
        (0.045, 0.219, "healthy", "better than untrained: view retrieval 0.219"),
        (0.008, 0.006, "nothing learned", verdict.NOTHING),
        (0.045, 0.008, "nothing learned", "worse than untrained: view retrieval 0.008"),
        (0.96, 0.97, "healthy", verdict.TOO_EASY),
    ],
)
def test_views__tell_what_the_spread_does_not(untrained, trained, state, said):
    found = judged([entry(1), entry(2)], epochs(untrained, trained))
    assert found.state == state
    assert str(found).startswith(f"{state.upper()}: ")
    assert said in found.reasons[0]
    assert bool(found.advice) == (said != "better than untrained: view retrieval 0.219")


def test_views__a_collapse_stays_one():
    found = judged([entry(1, spread=0.05)], epochs(0.045, 0.008))
    assert found.state == "collapsed"
    assert "worse than untrained" in found.reasons[0]


def test_views__not_measured_before_training_is_no_verdict():
    before, after = epochs(0.008, 0.006)
    assert judged([entry(1)], [after]).state == "healthy"
    for damaged in ({"view_top1": 7.0}, {"view_images": 0}):
        assert judged([entry(1)], [before, after | damaged]).state == "healthy"


def test_advice__a_dominating_mean_is_named():
    """One eigenvalue of 150 beside one of .2."""
    dominated = entry(1) | {"eigenvalues": [150.0, 0.2, *[0.01] * (D - 2)]}
    found = judged([dominated], epochs(0.008, 0.006))
    assert found.advice[0].startswith("the mean direction holds 100% of the trace of F")
    spread = judged([entry(1)], epochs(0.008, 0.006), views="simclr")
    assert not any("mean direction" in line for line in spread.advice)


@pytest.mark.parametrize("views", diagnosis.MILDER)
@pytest.mark.parametrize("rates", [(0.008, 0.006), (0.96, 0.97)])
def test_advice__on_views_can_be_followed(views, rates):
    found = judged([entry(1)], epochs(*rates), views=views)
    *advice, last = found.advice
    assert last == diagnosis.CHANGED
    for name, value in re.findall(r"--(views|view_strength)=([\w.]+)", "".join(advice)):
        kept = "simclr" if name == "view_strength" else value
        Config.from_dict({"views": kept, name: value if name == "views" else 0.5})
        assert value != views


def test_collapsed__to_one_point():
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
    assert any("Theorem 2" in line for line in found.levers)


def test_collapsed__to_few_directions():
    """Plus and minus one direction: the spread alone would not tell."""
    assert judged([entry(1, spread=0.9, rank=1.2)]).state == "collapsed"


def test_collapsed__to_zero_is_a_matter_of_the_unnormalised_loss():
    entries = [entry(1), entry(2, size=1e-4)]
    assert judged(entries, loss="mse").state == "collapsed"
    assert judged(entries, loss="cosine").state == "healthy"
    assert judged(entries, loss="iso").state == "healthy"


@pytest.mark.parametrize(
    ("spreads", "state"),
    [
        ([0.9, 0.6, 0.3, 0.2], "collapsing"),
        ([0.9, 0.3, 0.2, 0.22], "healthy"),  # it comes back
        # A quickstart run that ended at .92, seven epochs in: an early dip.
        ([0.59, 0.39, 0.34, 0.30, 0.28, 0.26], "healthy"),
        ([0.9, 0.8, 0.75, 0.7], "healthy"),
    ],
)
def test_collapsing__of_the_spread(spreads, state):
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
        assert any("Table 5" in line for line in found.advice)


def test_collapsing__of_the_directions():
    entries = [entry(step, rank=x) for step, x in enumerate((5.0, 4.5, 3.5), 1)]
    assert judged(entries).state == "collapsing"


def test_misaligned():
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    found = judged([entry(1, w=turned)], predictor="linear", ema=False)
    assert found.state == "misaligned"
    assert "over the 8 of 8 modes" in found.reasons[1]
    assert any("aligned by construction" in line for line in found.advice)
    assert any(line.startswith("--ema") for line in found.advice)


def test_misaligned__by_gradients_in_between():
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))[0]
    found = judged([entry(1, w=turned)], predictor="direct", freq=5)
    assert found.state == "misaligned"
    assert not any("by construction" in line for line in found.levers)
    assert any(line.startswith("--freq=1") for line in found.advice)


@pytest.mark.parametrize("state", ["misaligned", "collapsing", "collapsed"])
@pytest.mark.parametrize("optimizer", ["sgd", "lars", "adamw"])
@pytest.mark.parametrize("predictor", PREDICTOR_FACTS)
@pytest.mark.parametrize("ema", [True, False])
def test_advice__can_be_followed(state, optimizer, predictor, ema):
    """Every flag that is named exists, and the values that are given are accepted."""
    settings = {"optimizer": optimizer, "predictor": predictor, "ema": ema}
    advice = diagnosis._advice(state, Config.from_dict(settings))
    defaults = Config().to_dict()
    for line in advice:
        flags = re.findall(r"--(\w+)(?:=([\w.-]+))?", line)
        assert flags, line
        values = dict(settings)
        for name, value in flags:
            known = defaults[name]
            kind = float if known is None else type(known)
            values[name] = kind(value) if value else known
        if "--predictor_lr_multiplier" in line:
            values["predictor_lr_multiplier"] = 2.0
        Config.from_dict(values)


SGD = {
    "optimizer": "sgd",
    "loss": "mse",
    "momentum": 0.0,
    "predictor": "linear",
    "symmetric_loss": True,
}


def decay_line(**settings):
    found = judged([entry(1)], **{**SGD, **settings})
    return next((line for line in found.levers if "decay" in line), None)


def test_levers__distance_to_the_critical_decay():
    """By hand: eta = 0.04/4, critical 1/(4 * 1.2) = 0.2083, p- of the quadratic."""
    line = decay_line(weight_decay=0.04)
    assert "eta = 0.01 " in line
    assert "0.048 of the critical 0.208" in line
    boundary = (1 - np.sqrt(1 - 4 * 0.01 * 1.2)) / 2.4
    assert f"p below {boundary:.3g} does, as 0 of 8 do here" in line


def test_levers__two_directions_of_the_loss_or_one():
    line = decay_line(weight_decay=0.04, symmetric_loss=False)
    assert "eta = 0.02 (weight_decay/2)" in line


def test_levers__beyond_the_critical_decay():
    assert "every mode collapses (#5)" in decay_line(weight_decay=4.0)


def test_levers__no_decay():
    assert "remembers its start (#3)" in decay_line(weight_decay=0.0)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "lars"},
        {"optimizer": "adamw"},
        {"predictor": "mlp"},
        {"predictor": "direct"},
        {"stop_gradient": False, "ema": False},
    ],
)
def test_levers__decay_only_where_the_theory_has_it(settings):
    line = decay_line(weight_decay=0.04, **settings)
    assert line is None or "eta" not in line


def test_levers__a_target_that_never_moves():
    assert "eta" in decay_line(weight_decay=0.04, tau_base=1.0)


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
    names = ("step", "eigenvalues", "effective_rank", "centered_rank", "tau")
    bare = {name: entry(1)[name] for name in names}
    assert "HEALTHY" in diagnosis.report(written(tmp_path, [bare]))


def test_refusals(tmp_path):
    with pytest.raises(Refused, match="accepted: the work directory of a pre"):
        diagnosis.read_records(str(tmp_path / "none"))
    with pytest.raises(Refused, match=r"without a measurement in theory\.jsonl"):
        diagnosis.read_records(written(tmp_path, []))
    (tmp_path / "flags.json").write_text("{")
    with pytest.raises(Refused, match=r"with a damaged flags\.json"):
        diagnosis.read_records(str(tmp_path))
