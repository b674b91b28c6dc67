"""`--mode=diagnose`: is a run healthy, and what does the theory say about it?

Reads what the run wrote down (flags.json, epochs.jsonl, theory.jsonl); trains nothing
and loads no network.
"""

from __future__ import annotations

import dataclasses
import textwrap

import numpy as np

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.encoders import settings
from tf_dpred.evaluation import verdict
from tf_dpred.records import lines
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import json_files
from tf_dpred.theory import measures, modes
from tf_dpred.theory.levers import loss_factor

COLLAPSED_SPREAD = 0.1  # feature std x sqrt(d), as `CollapseWarning`
COLLAPSED_RANK = 2.0  # effective directions around the mean
LOW_SPREAD, LOW_RANK = 0.25, 4.0  # a fall below these is a warning
FADED = 1e-3  # of the largest eigenvalue of F that was ever measured
ALIGNED = 0.9
DOMINATED = 0.9  # of the trace of F, by its largest eigenvalue
NOTHING_LEARNED = "nothing learned"
# Recipes of views, the strongest first.
MILDER = ("simclr", "byol", "stl10", "cifar", "digits")
CHANGED = "changed flags need a new --workdir (more --epochs do not)"


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found, in words.

    Attributes:
      state: `healthy`, `nothing learned`, `misaligned`, `collapsing` or `collapsed`.
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


def read_records(workdir: str) -> tuple[Config, list[dict], list[dict]]:
    """What a run wrote down, as `judge` takes it.

    Raises:
      Refused: the directory holds no run that was measured at least once.
    """
    config = Config.from_dict(settings.recorded({"workdir": workdir}))
    path = Workdir(workdir)
    entries = json_files.read_lines(path.theory, lines.THEORY)
    if not entries:
        refuse(
            "workdir",
            workdir,
            "a run of at least one epoch, or with --theory_every",
            detail=" without a measurement in theory.jsonl",
        )
    return config, entries, json_files.read_lines(path.epochs, lines.EPOCH)


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=diagnose` on `--workdir`."""
    print(report(config.training.workdir))


def report(workdir: str) -> str:
    """The diagnosis as text; draws `theory.png` and `theory.svg`.

    Raises:
      Refused: see `read_records`.
    """
    config, entries, epochs = read_records(workdir)
    found = judge(config, entries, epochs)
    from tf_dpred.reports import spectra  # Matplotlib takes a second to load

    try:
        files = spectra.draw(entries, Workdir(workdir).spectra, f"{workdir}:")
        drawn = f"drew {', '.join(map(str, files))}"
    except OSError as error:
        drawn = f"no picture: {error}"
    return f"{found}\n\n{drawn}"


def judge(config: Config, entries: list[dict], epochs: list[dict]) -> Diagnosis:
    """The diagnosis of a run's records.

    Args:
      config: of the run.
      entries: the lines of theory.jsonl, at least one.
      epochs: the lines of epochs.jsonl.
    """
    state, reasons = _state(config, entries)
    views = verdict.of_epochs(epochs)
    if views is not None:
        reasons.insert(0, views.sentence)
        if state == "healthy" and views.word != "better" and not views.too_easy:
            state = NOTHING_LEARNED
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
        [*_advice(state, config), *_view_advice(state, views, entries[-1], config)],
        _limits(config),
    )


def _state(config: Config, entries: list[dict]) -> tuple[str, list[str]]:
    last = entries[-1]
    spreads = [e["feature_std"] for e in entries if "feature_std" in e]
    ranks = [e["centered_rank"] for e in entries]
    sizes = [e["eigenvalues"][0] for e in entries]
    spread = "feature std x sqrt(d)"
    if spreads and spreads[-1] < COLLAPSED_SPREAD:
        return "collapsed", [
            f"{spread} is {spreads[-1]:.4f} (1 spread, 0 one point; collapsed below "
            f"{COLLAPSED_SPREAD})"
        ]
    if ranks[-1] < COLLAPSED_RANK:
        return "collapsed", [
            f"the features fill {ranks[-1]:.1f} directions around their mean "
            f"(collapsed below {COLLAPSED_RANK:g})"
        ]
    # Only this loss depends on the length of a projection.
    if config.objective.loss == "mse" and sizes[-1] < FADED * max(sizes):
        return "collapsed", [
            f"the largest eigenvalue of F fell from {max(sizes):.3g} to {sizes[-1]:.3g}"
        ]
    for name, values, low in (
        (spread, spreads, LOW_SPREAD),
        ("the number of directions", ranks, LOW_RANK),
    ):
        if len(values) > 2 and values[-1] < low and _falls(values):
            return "collapsing", [
                f"{name} is {values[-1]:.3g}, below {low:g}, and falls (it was "
                f"{values[-3]:.3g} and {values[-2]:.3g})"
            ]
    if last.get("alignment", 1.0) < ALIGNED:
        before = [e["alignment"] for e in entries[-3:]]
        return "misaligned", [
            f"{spread} is {spreads[-1]:.3f}" if spreads else "not collapsed",
            f"W and F do not share their eigenvectors: mean |cosine| "
            f"{last['alignment']:.3f} over {_modes(last)} (aligned from {ALIGNED})"
            + (", and rising" if before[-1] > before[0] else ""),
        ]
    healthy = [f"{spread} is {spreads[-1]:.3f}"] if spreads else []
    healthy.append(f"{ranks[-1]:.1f} effective directions around the mean")
    if "alignment" in last:
        healthy.append(f"W and F aligned ({last['alignment']:.3f}, {_modes(last)})")
    return "healthy", healthy


def _modes(entry: dict) -> str:
    s = np.array(entry["eigenvalues"])
    return (
        f"the {measures.leading_modes(s)} of {len(s)} modes above "
        f"{measures.SMALLEST:g} of the largest"
    )


def _falls(values: list[float]) -> bool:
    return values[-1] < values[-2] < values[-3]


def _measured(last: dict) -> list[str]:
    s = last["eigenvalues"]
    lines = [
        f"step {last['step']}: eigenvalues of F {s[0]:.3g} to {s[-1]:.3g}; effective "
        f"rank {last['effective_rank']:.1f} of {len(s)}, around the mean "
        f"{last['centered_rank']:.1f}"
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


def _levers(config: Config, last: dict) -> list[str]:
    objective, predictor = config.objective, config.predictor
    if not objective.stop_gradient:
        return ["no stop-gradient: in the theory every mode decays (Theorem 2)"]
    if predictor.predictor == "none":
        return ["no predictor: in the theory every mode decays (Theorem 2, W_p = I)"]
    lines = []
    if _trains_a_matrix(config):
        multiplier = config.optimizer.predictor_lr_multiplier
        lines.append(
            f"the predictor is trained, at {multiplier:g} x the learning rate: more "
            "shrinks the basin of collapse (#1) and keeps alignment (#6), but features "
            "stay smaller (#2)"
        )
    elif predictor.facts.set_from_f:
        lines.append(
            "the predictor is set from F, so it is aligned by construction"
            if predictor.freq == 1
            else f"the predictor is set from F every {predictor.freq} steps; gradients "
            "turn it away in between"
        )
    if objective.ema:
        lines.append(
            f"EMA {objective.tau_base:g}: a curriculum that keeps alignment (#8) and "
            "widens the basin of collapse (#10)"
        )
    else:
        lines.append("no EMA: tau = 1 from the start; alignment has no curriculum (#8)")
    if _trains_a_matrix(config) and config.optimizer.optimizer == "sgd":
        lines.append(_decay(config, last))
    return lines


def _trains_a_matrix(config: Config) -> bool:
    """Whether the theory of a trained predictor applies to this one."""
    return config.predictor.facts.trained and config.predictor.facts.matrix


def _decay(config: Config, last: dict) -> str:
    """The weight decay beside the critical one of the theory, at tau = 1."""
    factor = loss_factor(config.objective.symmetric_loss)
    eta = config.optimizer.weight_decay / factor
    if eta == 0:
        return "no decay: in the theory F remembers its start (#3)"
    variance = max(last.get("variance") or 0.0, 0.0)
    critical = float(modes.critical_decay(1.0, variance))
    text = (
        f"decay: eta = {eta:.3g} (weight_decay/{factor}), {eta / critical:.2g} of the "
        f"critical {critical:.3g} = 1/(4(1+sigma^2)); in the theory "
    )
    if eta >= critical:
        return text + "every mode collapses (#5)"
    boundary = float(modes.basin_boundary(eta, 1.0, variance))
    text += f"a mode with p below {boundary:.3g} does"
    if config.objective.loss == "mse":
        lost = sum(p < boundary for p in last["p"])
        text += f", as {lost} of {len(last['p'])} do here"
    return text


def _view_advice(
    state: str, views: verdict.ViewVerdict | None, last: dict, config: Config
) -> list[str]:
    """What may help an encoder that does not know its own views better than before."""
    if views is None or (state != NOTHING_LEARNED and not views.too_easy):
        return []
    place = MILDER.index(config.data.views)
    if views.too_easy:
        stronger = ", ".join(f"--views={name}" for name in MILDER[:place])
        return [
            f"the views are too weak: {stronger or '--view_strength above 1'}",
            CHANGED,
        ]
    lines = []
    s = np.maximum(last["eigenvalues"], 0)
    if s[0] > DOMINATED * s.sum():
        lines.append(
            f"the mean direction holds {s[0] / s.sum():.0%} of the trace of F, W is "
            "about eps elsewhere; --projector_output_bn and --predictor=mlp spread the "
            "features, which alone taught an encoder nothing where it was tried"
        )
    milder = [f"--views={name}" for name in MILDER[place + 1 :]]
    if config.data.views == "simclr":
        milder.insert(0, f"--view_strength={config.data.view_strength / 2:g}")
    if milder:
        lines.append(
            f"the views may be too strong (--mode=preview): {', '.join(milder)}"
        )
    return [*lines, CHANGED]


def _advice(state: str, config: Config) -> list[str]:
    if state in ("healthy", NOTHING_LEARNED):
        return []
    objective, optimizer = config.objective, config.optimizer
    name = config.predictor.predictor
    own_rate = optimizer.optimizer in ("sgd", "lars")
    lines = []
    if not objective.stop_gradient:
        lines.append("--stop_gradient: without it nothing else helps (Theorem 2)")
    if name == "none":
        lines.append("--predictor=direct: without a predictor features collapse")
    if state in ("collapsing", "collapsed"):
        if not objective.ema:
            lines.append("--ema: without it several predictors collapse (Table 3)")
        if name == "symmetric" and not objective.ema and own_rate:
            lines.append(
                "or decay on the predictor alone, --weight_decay=0 "
                "--predictor_weight_decay=4e-4 (Table 5)"
            )
        elif optimizer.weight_decay:
            lines.append("less --weight_decay narrows the basin of collapse (#4, #5)")
        if _trains_a_matrix(config) and own_rate:
            lines.append("--predictor_lr_multiplier above 1 shrinks the basin (#1)")
        lines.append(
            "a lower --base_lr, more --warmup_epochs: the theory's steps are small"
        )
    else:
        if config.predictor.facts.set_from_f:
            lines.append("--freq=1: W is set after every step")
        else:
            lines.append("--predictor=direct is aligned by construction")
        if _trains_a_matrix(config):
            lines.append("more --epochs: a trained predictor aligns over time")
            if not objective.ema:
                lines.append("--ema lets alignment come first (#8)")
            if own_rate:
                lines.append("--predictor_lr_multiplier above 1 keeps alignment (#6)")
            lines.append("so does more --weight_decay (#7)")
    return [*lines, CHANGED]


def _limits(config: Config) -> list[str]:
    """Assumptions of the theory that do not hold here; no backbone is linear."""
    loss, optimizer = config.objective.loss, config.optimizer
    lines = [f"the theory's networks are linear, {config.network.backbone} is not"]
    if loss != "mse":
        lines.append(
            f"its loss is the unnormalised mse; this one, {loss}, does not see the "
            "scale of p"
        )
    if optimizer.optimizer != "sgd":
        lines.append(
            f"its optimizer is gradient descent, {optimizer.optimizer} has no eta of it"
        )
    elif optimizer.momentum:
        lines.append("momentum counts as a longer step only")
    if not config.predictor.facts.matrix:
        lines.append(f"its predictor is a matrix, {config.predictor.predictor} is not")
    lines.append("so thresholds are orders of magnitude; trust the directions")
    return lines
