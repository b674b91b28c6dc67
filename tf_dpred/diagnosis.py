"""`--mode=diagnose`: is a run healthy, and what does the theory say to it?

Reads what the run wrote down (flags.json, epochs.jsonl, theory.jsonl); trains nothing
and loads no network.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap
from pathlib import Path

import numpy as np

from tf_dpred.callbacks.history import read
from tf_dpred.config import Config
from tf_dpred.theory import measures, modes
from tf_dpred.theory.levers import Levers, from_training

COLLAPSED_SPREAD = 0.1  # feature std x sqrt(d), as `CollapseWarning`
FADED = 1e-3  # of the largest eigenvalue of F that was ever measured
ALIGNED = 0.9
FALLING = 0.7  # of the best: below it, and still going down, is a warning


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found, in words.

    Attributes:
      state: `healthy`, `misaligned`, `collapsing` or `collapsed`.
      reasons: why, with the numbers.
      measured: the last measurement, a line each.
      levers: what predictor, stop-gradient, EMA and decay do in this run.
      advice: what the theory suggests; empty for a healthy run.
      limits: assumptions of the theory that do not hold here.
    """

    state: str
    reasons: list[str]
    measured: list[str]
    levers: list[str]
    advice: list[str]
    limits: list[str]

    def __str__(self) -> str:
        parts = [f"{self.state.upper()}: {'; '.join(self.reasons)}."]
        for title in ("measured", "levers", "advice", "limits"):
            lines = getattr(self, title)
            if lines:
                parts.append(f"\n{title.capitalize()}:")
                parts += [
                    textwrap.fill(line, 88, initial_indent="- ", subsequent_indent="  ")
                    for line in lines
                ]
        return "\n".join(parts)


def diagnose(workdir: str) -> Diagnosis:
    """Reads a work directory.

    Raises:
      ValueError: it holds no run that was measured at least once.
    """
    path = Path(workdir)
    try:
        record = json.loads((path / "flags.json").read_text())
    except OSError as error:
        raise ValueError(
            f"--workdir: received {workdir!r} without flags.json ({error.strerror}), "
            "accepted: the work directory of a run."
        ) from error
    entries = read(path / "theory.jsonl")
    if not entries:
        raise ValueError(
            f"--workdir: received {workdir!r} without a measurement in theory.jsonl, "
            "accepted: a run of at least one epoch, or with --theory_every."
        )
    config = Config.from_dict(record["flags"])
    return judge(config, entries, read(path / "epochs.jsonl"))


def report(workdir: str) -> str:
    """The diagnosis as text; draws `theory.png` and `.svg` where Matplotlib is.

    Raises:
      ValueError: see `diagnose`.
    """
    found = diagnose(workdir)
    path = Path(workdir) / "theory"
    try:
        from tf_dpred.theory import picture
    except ModuleNotFoundError as error:
        drawn = f"no picture: {error.name} is missing, pip install 'tf-dpred[theory]'"
    else:
        files = picture.draw(read(path.with_suffix(".jsonl")), path, f"{workdir}:")
        drawn = f"drew {', '.join(map(str, files))}"
    return f"{found}\n\n{drawn}"


def judge(config: Config, entries: list[dict], epochs: list[dict]) -> Diagnosis:
    """The diagnosis of a run's records.

    Args:
      config: of the run.
      entries: the lines of theory.jsonl, at least one.
      epochs: the lines of epochs.jsonl.
    """
    state, reasons = _state(config, entries)
    knn = [(entry["epoch"], entry["knn"]) for entry in epochs if "knn" in entry]
    if len(knn) > 1:
        (first, before), (last, after) = knn[0], knn[-1]
        reasons.append(
            f"kNN accuracy {before:.3f} at epoch {first}, {after:.3f} at epoch {last}"
            + ("" if after > before else ": nothing was learned by that measure")
        )
    return Diagnosis(
        state,
        reasons,
        _measured(entries[-1]),
        _levers(config, entries[-1]),
        _advice(state, config),
        _limits(config),
    )


def _state(config: Config, entries: list[dict]) -> tuple[str, list[str]]:
    last = entries[-1]
    spreads = [e["feature_std"] for e in entries if "feature_std" in e]
    sizes = [e["eigenvalues"][0] for e in entries]
    if spreads and spreads[-1] < COLLAPSED_SPREAD:
        return "collapsed", [
            f"feature std x sqrt(d) is {spreads[-1]:.4f} (1 spread, 0 collapsed; "
            f"collapsed below {COLLAPSED_SPREAD})"
        ]
    # The cosine loss does not see the length of a projection.
    if config.objective.loss != "cosine" and sizes[-1] < FADED * max(sizes):
        return "collapsed", [
            f"the largest eigenvalue of F fell from {max(sizes):.3g} to {sizes[-1]:.3g}"
        ]
    ranks = [e["effective_rank"] for e in entries]
    for name, values in (("feature std x sqrt(d)", spreads), ("effective rank", ranks)):
        if len(values) > 2 and values[-1] < FALLING * max(values) and _falls(values):
            return "collapsing", [
                f"{name} falls: {max(values):.3g} at its best, {values[-1]:.3g} now"
            ]
    if last.get("alignment", 1.0) < ALIGNED:
        rising = len(entries) > 2 and last["alignment"] > entries[-3]["alignment"]
        return "misaligned", [
            f"W and F do not share their eigenvectors: mean |cosine| is "
            f"{last['alignment']:.3f} over the leading modes (aligned from {ALIGNED})"
            + (", and rising" if rising else "")
        ]
    healthy = []
    if spreads:
        healthy.append(f"feature std x sqrt(d) is {spreads[-1]:.3f}")
    healthy.append(f"{last['effective_rank']:.1f} effective directions")
    if "alignment" in last:
        healthy.append(f"W and F aligned ({last['alignment']:.3f})")
    return "healthy", healthy


def _falls(values: list[float]) -> bool:
    return values[-1] < values[-2] < values[-3]


def _measured(last: dict) -> list[str]:
    s = last["eigenvalues"]
    lines = [
        f"step {last['step']}: effective rank of F {last['effective_rank']:.1f} of "
        f"{len(s)}, eigenvalues {s[0]:.3g} to {s[-1]:.3g}"
    ]
    if "alignment" in last:
        lines.append(
            f"alignment {last['alignment']:.3f} (1: same eigenvectors), commutator "
            f"{last['commutator']:.3g} (0), asymmetry of W {last['asymmetry']:.3g} (0)"
        )
        if last["exponent"] is not None:
            lines.append(
                f"p_j grows like s_j^{last['exponent']:.2f}; the theory's invariant "
                "leads to 0.5 (a boost eps lowers the fit)"
            )
    tau, variance = last.get("tau"), last.get("variance")
    if tau is not None:
        lines.append(f"tau {tau:.3f}: the target in terms of the online network")
    if variance is not None:
        lines.append(f"sigma^2 {variance:.3f}: what the two views do not share")
    return lines


def levers_of(config: Config, variance: float = 0.0) -> Levers | None:
    """The theory's levers of a run; None where its optimizer has no such terms."""
    optimizer, objective = config.optimizer, config.objective
    if optimizer.optimizer != "sgd":
        return None
    rate = optimizer.base_lr * config.training.batch_size / 256
    levers, _ = from_training(
        rate,
        symmetric=objective.symmetric_loss,
        momentum=optimizer.momentum,
        weight_decay=optimizer.weight_decay,
        predictor_lr_multiplier=optimizer.predictor_lr_multiplier,
        predictor_weight_decay=optimizer.predictor_weight_decay,
        tau_base=objective.tau_base if objective.ema else None,
        variance=variance,
    )
    return levers


def _levers(config: Config, last: dict) -> list[str]:
    objective, name = config.objective, config.predictor.predictor
    lines = []
    if not objective.stop_gradient:
        lines.append("no stop-gradient: every mode decays (Theorem 2)")
    if name == "none":
        lines.append("no predictor: every mode decays (Theorem 2, W_p = I)")
    elif name in ("linear", "symmetric"):
        multiplier = config.optimizer.predictor_lr_multiplier
        lines.append(
            f"the predictor is trained, at {multiplier:g} x the learning rate: more "
            "shrinks the basin of collapse (#1) and loosens alignment (#6)"
        )
    elif name != "mlp":
        lines.append("the predictor is set from F, so it is aligned by construction")
    if objective.ema:
        lines.append(
            f"EMA {objective.tau_base:g}: a curriculum that keeps alignment (#8) and "
            "widens the basin of collapse (#10)"
        )
    else:
        lines.append("no EMA: tau = 1 from the start; alignment has no curriculum (#8)")
    variance = max(last.get("variance") or 0.0, 0.0)
    levers = levers_of(config, variance)
    if levers is not None:
        tau = min(last.get("tau") or 1.0, 1.0)
        critical = float(modes.critical_decay(tau, variance))
        share = levers.decay / critical if critical > 0 else float("inf")
        text = (
            f"decay: eta = {levers.decay:.3g} (weight_decay over the factor of the "
            f"loss), {share:.2g} of the critical {critical:.3g} = tau^2/(4(1+sigma^2))"
        )
        if share >= 1:
            text += ": every mode collapses (#5)"
        else:
            boundary = float(modes.basin_boundary(levers.decay, tau, variance))
            text += f"; a mode with p below {boundary:.3g} collapses"
            if "p" in last and config.objective.loss == "mse":
                count = measures.leading_modes(np.array(last["eigenvalues"]))
                lost = sum(p < boundary for p in last["p"][:count])
                text += f", as {lost} of the {count} leading modes do here"
        lines.append(text)
    return lines


def _advice(state: str, config: Config) -> list[str]:
    objective, name = config.objective, config.predictor.predictor
    if state == "healthy":
        return []
    lines = []
    if not objective.stop_gradient:
        lines.append("--stop_gradient: without it nothing else helps (Theorem 2)")
    if name == "none":
        lines.append("--predictor=direct: without a predictor features collapse")
    if state in ("collapsing", "collapsed"):
        if config.optimizer.optimizer == "sgd" and config.optimizer.weight_decay:
            lines.append("less --weight_decay narrows the basin of collapse (#4, #5)")
        if not objective.ema and name == "symmetric":
            lines.append("--ema: the symmetric predictor needs it (paper, Table 3)")
        if name in ("linear", "symmetric"):
            lines.append("--predictor_lr_multiplier above 1 shrinks the basin (#1)")
        lines.append("a lower --base_lr or longer warm-up: the theory has small steps")
    else:
        if name in ("linear", "symmetric", "mlp"):
            lines.append("--predictor=direct is aligned by construction")
        if not objective.ema:
            lines.append("--ema lets alignment come first (#8)")
        if config.predictor.freq > 1:
            lines.append("a smaller --freq: gradients turn W away in between")
        lines.append("more epochs: a trained predictor aligns over time (Theorem 3)")
    return lines


def _limits(config: Config) -> list[str]:
    """Where the run leaves what the theory covers; no backbone here is linear."""
    loss, optimizer = config.objective.loss, config.optimizer
    lines = [f"the theory's networks are linear, {config.network.backbone} is not"]
    if loss != "mse":
        lines.append(
            f"its loss is the unnormalised mse, this one {loss}"
            + ("; the scale of p means nothing to it" if loss == "cosine" else "")
        )
    if optimizer.optimizer != "sgd":
        lines.append(
            f"its optimizer is gradient descent, {optimizer.optimizer} has no eta of it"
        )
    elif optimizer.momentum:
        lines.append("momentum counts as a longer step only")
    if config.predictor.predictor == "mlp":
        lines.append("its predictor is a matrix, the mlp is not")
    lines.append("so thresholds are orders of magnitude; trust the directions")
    return lines
