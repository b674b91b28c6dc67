"""Linear networks that are really trained, beside the flow of the theory.

    python tools/linear_networks.py

`DirectPred` with linear networks, the mse loss and SGD takes ordinary training steps on
data whose X and X' are known; the matrices are compared with the solved flow at every
step. Prints the largest deviation for three step sizes: it halves with the step.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from tf_dpred.system import markdown, quiet, terminal

with quiet.start():
    import keras
    import tensorflow as tf

    from tf_dpred.callbacks.target_ema import TargetEMA
    from tf_dpred.model import DirectPred
    from tf_dpred.optimizers import SGD
    from tf_dpred.predictors import Identity, Linear, Symmetric
    from tf_dpred.schedules import ema_momentum
    from tf_dpred.system.devices import set_precision
    from tf_dpred.theory import flow, modes, theorems
    from tf_dpred.theory.levers import Levers, loss_factor

State = tuple[np.ndarray, ...]
N1, N2 = 5, 3


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained, and the flow that it should follow.

    Args:
      levers: with an `ema_rate` where there is a target.
      kind: `free` (the predictor), `symmetric`, `none` (no predictor) or
        `no_stop_gradient`.
      both_directions: the symmetric loss.
      momentum: of SGD.
    """

    levers: Levers
    kind: str = "free"
    both_directions: bool = True
    momentum: float = 0.0

    def flow(self, x: np.ndarray, x_aug: np.ndarray) -> flow.Flow:
        """The flow of the matrices that are trained, and of a target's matrix."""
        if self.kind == "none":
            return flow.no_predictor(x_aug, self.levers)
        if self.kind == "no_stop_gradient":
            return flow.no_stop_gradient(x, x_aug, self.levers)
        rule = flow.simsiam if self.levers.ema_rate is None else flow.with_target
        return rule(x, x_aug, self.levers, symmetric=self.kind == "symmetric")

    def matrices(self, start: State) -> State:
        """Those of (W_p, W, W_a) that the flow has."""
        w_p, w, w_a = start
        if self.kind == "none":
            return (w,)
        return (w_p, w) if self.levers.ema_rate is None else (w_p, w, w_a)

    def settings(self, step: float) -> dict[str, float | None]:
        """The arguments of `from_training` that give these levers and this step."""
        factor = loss_factor(self.both_directions)
        rate = self.levers.predictor_rate
        ema_rate = self.levers.ema_rate
        return {
            "learning_rate": step * (1 - self.momentum) / factor,
            "symmetric": self.both_directions,
            "momentum": self.momentum,
            "weight_decay": factor * self.levers.decay,
            "predictor_lr_multiplier": rate,
            "predictor_weight_decay": factor * self.levers.decay_of_predictor / rate,
            "tau_base": None if ema_rate is None else 1 - ema_rate * step,
        }


def views(x: np.ndarray, x_aug: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two views with exactly these moments: E x1 x1^T = X + X', E x1 x2^T = X.

    Args:
      x, x_aug: X and X', [n1, n1] positive definite.

    Returns:
      Two arrays [2 n1, n1].
    """
    n1 = len(x)
    root = np.linalg.cholesky(np.block([[x + x_aug, x], [x, x + x_aug]]))
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(2 * n1, 2 * n1)))[0]
    both = np.sqrt(2 * n1) * basis @ root.T
    return both[:, :n1], both[:, n1:]


def linear_network(w: np.ndarray, name: str) -> keras.Model:
    """Vectors x [n, n1] -> (x, W x [n, n2])."""
    vectors = keras.Input((w.shape[1],))
    dense = keras.layers.Dense(w.shape[0], use_bias=False, name="w")
    network = keras.Model(vectors, [vectors, dense(vectors)], name=name)
    dense.kernel.assign(w.T)
    return network


class _Recorder(keras.callbacks.Callback):
    """Records the matrices before the first and after every step."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.states: list[State] = []

    def _record(self) -> None:
        networks = [self.model.online]
        if self.model.has_separate_target:
            networks.append(self.model.target)
        state = [n.get_layer("w").kernel.numpy().T for n in networks]
        if self.kind != "none":
            state.insert(0, self.model.predictor.matrix.numpy())
        self.states.append(tuple(state))

    def on_train_begin(self, logs=None) -> None:
        self._record()

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self._record()


def train(
    case: Case, start: State, x: np.ndarray, x_aug: np.ndarray, step: float, steps: int
) -> State:
    """Trains `DirectPred` in float64.

    Args:
      case: what is trained.
      start: W_p [n2, n2], W [n2, n1] and W_a [n2, n1] of step 0.
      x, x_aug: X and X', [n1, n1].
      step: h, the time of the flow that one step takes.
      steps: their number.

    Returns:
      The matrices of the case's flow, each with a leading axis [steps + 1].
    """
    set_precision("float64")
    settings = case.settings(step)
    w_p, w, w_a = start
    classes = {"none": Identity, "symmetric": Symmetric}
    predictor = classes.get(case.kind, Linear)(rho=0.0)
    has_target = case.levers.ema_rate is not None
    model = DirectPred(
        linear_network(w, "online"),
        linear_network(w_a, "target") if has_target else None,
        predictor,
        loss="mse",
        symmetric=case.both_directions,
        stop_gradient=case.kind != "no_stop_gradient",
    )
    rate = settings["learning_rate"]
    of_predictor = {}
    if case.kind != "none":
        predictor.matrix.assign(w_p)
        of_predictor = {
            "predictor_learning_rate": settings["predictor_lr_multiplier"] * rate,
            "predictor_weight_decay": settings["predictor_weight_decay"],
        }
    model.compile(SGD(rate, case.momentum, settings["weight_decay"]), **of_predictor)
    pair = views(x, x_aug)
    data = tf.data.Dataset.from_tensors(pair).repeat(steps)
    recorder = _Recorder(case.kind)
    callbacks: list[keras.callbacks.Callback] = [recorder]
    if has_target:
        tau = ema_momentum("constant", settings["tau_base"], steps)
        callbacks.insert(0, TargetEMA(tau))
    model.fit(data, verbose=0, shuffle=False, callbacks=callbacks)
    return tuple(np.stack(m) for m in zip(*recorder.states, strict=True))


def deviation(found: State, expected: State) -> float:
    """The largest difference of an entry over the largest entry, of any matrix."""
    return max(
        float(np.abs(a - b).max() / np.abs(b).max())
        for a, b in zip(found, expected, strict=True)
    )


def error(
    case: Case, start: State, x: np.ndarray, x_aug: np.ndarray, time: float, steps: int
) -> float:
    """`deviation` of training from the flow, over `time` in so many steps."""
    times = np.linspace(0, time, steps + 1)
    expected = flow.integrate(case.flow(x, x_aug), case.matrices(start), times)
    return deviation(train(case, start, x, x_aug, time / steps, steps), expected)


def modes_of(state: State, u: np.ndarray) -> tuple[np.ndarray, ...]:
    """p_j, s_j and tau_j of matrices W_p, W, W_a with a leading axis [t].

    Args:
      u: [n2, n2] the eigenvectors.

    Returns:
      Three arrays [t, n2].
    """
    w_p, w, w_a = state
    rows, target_rows = u.T @ w, u.T @ w_a
    p = np.einsum("ij,tik,kj->tj", u, w_p, u)
    s = np.sum(rows**2, axis=-1)
    return p, s, np.sum(rows * target_rows, axis=-1) / s


def mode_errors(time: float, steps: int) -> dict[str, float]:
    """p_j, s_j and tau_j of trained networks against Eqs. 13-15.

    X = I, X' = .25 I, three aligned modes, alpha_p 1.5, eta .04, beta .4.

    Returns:
      The largest difference of each from the solved modes.
    """
    levers = Levers(1.5, 0.04, ema_rate=0.4, variance=0.25)
    rng = np.random.default_rng(1)
    u = np.linalg.qr(rng.normal(size=(N2, N2)))[0]
    v = np.linalg.qr(rng.normal(size=(N1, N2)))[0]
    p, s, tau = np.array([0.3, 0.5, 0.04]), np.array([0.2, 0.1, 0.002]), np.zeros(N2)
    expected = flow.integrate(
        modes.flow(levers), (p, s, tau), np.linspace(0, time, steps + 1)
    )
    x = np.eye(N1)
    start = flow.from_modes(p, s, tau, u, v)
    trained = train(Case(levers), start, x, levers.variance * x, time / steps, steps)
    found = modes_of(trained, u)
    return {
        name: float(np.abs(a - b).max())
        for name, a, b in zip(("p", "s", "tau"), found, expected, strict=True)
    }


def cases() -> dict[str, Case]:
    """What is compared, by name."""
    with_target = Levers(1.5, 0.03, 0.05, 0.4)
    without = Levers(1.5, 0.03, 0.05)
    return {
        "EMA target": Case(with_target),
        "EMA target, one direction": Case(with_target, both_directions=False),
        "EMA target, momentum .5": Case(with_target, momentum=0.5),
        "EMA target, symmetric predictor": Case(with_target, "symmetric"),
        "SimSiam": Case(without),
        "SimSiam, symmetric predictor": Case(without, "symmetric"),
        "no stop-gradient": Case(without, "no_stop_gradient"),
        "no predictor": Case(without, "none"),
    }


def random_start(case: Case) -> tuple[State, np.ndarray, np.ndarray]:
    """(W_p, W, W_a), X and X' at random; W_p symmetric where it is kept so."""
    rng = np.random.default_rng(0)
    x, x_aug = theorems.random_moments(rng, N1)
    w_p, w = theorems.random_weights(rng, N1, N2)
    if case.kind == "symmetric":
        w_p = (w_p + w_p.T) / 2
    return (w_p, w, rng.normal(0, 0.5, w.shape)), x, x_aug


def report(time: float, steps: tuple[int, ...]) -> str:
    """A Markdown table: deviations by step, and the ratio of the last two."""
    by_step = [f"h = {time / n:g}" for n in steps]
    header = [f"trained for t = {time:g}", *by_step, "last ratio"]
    rows = []

    def add(name: str, found: list[float]) -> None:
        cells = [*(f"{value:.2e}" for value in found), f"{found[-2] / found[-1]:.3f}"]
        rows.append([name, *cells])

    for name, case in cases().items():
        start, x, x_aug = random_start(case)
        add(name, [error(case, start, x, x_aug, time, n) for n in steps])
    by_steps = [mode_errors(time, n) for n in steps]
    for quantity in by_steps[0]:
        add(f"modes: {quantity}_j", [found[quantity] for found in by_steps])
    return markdown.table(header, rows)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--time", type=float, default=2.0, help="of the flow")
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[100, 200, 400], help="two or more"
    )
    given = parser.parse_args(arguments)
    if len(given.steps) < 2 or min(given.steps) < 1 or not given.time > 0:
        parser.error(
            f"received --steps {given.steps} --time {given.time}, accepted: two or "
            "more --steps of at least 1, --time above 0."
        )
    print(report(given.time, tuple(given.steps)))


if __name__ == "__main__":
    sys.exit(terminal.run("linear_networks", lambda: main(sys.argv[1:])))
