"""Table 3's collapse of the symmetric predictor without EMA: where it happens.

    python tools/symmetric_predictor.py            # small networks, trained on digits
    python tools/symmetric_predictor.py --flow     # the linear flow, where it does not

The paper (arXiv 2102.06810) trains a ResNet-18 on STL-10 with a linear predictor and no
EMA: 36.6 % if the predictor is kept symmetric after every step, 72.9 % if it is free.
Here it is a dense network with a projector, scikit-learn's digits (8 x 8, in the
package), the cosine loss, and seconds. Each row is one setting, trained with both
predictors from the same weights and on the same views: median, least and most over the
seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from tf_dpred.system import markdown, quiet

with quiet.start():
    import keras
    import tensorflow as tf
    from sklearn.datasets import load_digits

    from tf_dpred import spectrum
    from tf_dpred.callbacks.target_ema import TargetEMA
    from tf_dpred.model import DirectPred
    from tf_dpred.networks.normalization import BatchNormalization
    from tf_dpred.optimizers import SGD
    from tf_dpred.predictors import Linear, Symmetric
    from tf_dpred.schedules import ema_momentum
    from tf_dpred.theory import observations
    from tf_dpred.theory.levers import Levers

SIDE, HIDDEN, DIM, BATCH, TRAINED = 8, 64, 16, 128, 1437
PREDICTORS = {"symmetric": Symmetric, "free": Linear}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained; the defaults are where the two predictors part.

    Attributes:
      relu, batch_norm: of the hidden layers; without both the network is linear.
      learning_rate, momentum, weight_decay: of SGD, constant.
      predictor_decay: None: `weight_decay`.
      steps: of training.
      tau: of the EMA; None: the target is the online network.
    """

    relu: bool = True
    batch_norm: bool = False
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 4e-3
    predictor_decay: float | None = None
    steps: int = 1500
    tau: float | None = None


SETTINGS = {
    "ReLU, rate .1, decay 4e-3": Setting(),
    "decay 4e-4": Setting(weight_decay=4e-4),
    "no decay": Setting(weight_decay=0.0),
    "decay 4e-3 on the predictor alone": Setting(weight_decay=0, predictor_decay=4e-3),
    "rate .03, as much time": Setting(learning_rate=0.03, steps=5000),
    "EMA .996": Setting(tau=0.996),
    "linear network": Setting(relu=False),
    "BatchNorm, no ReLU": Setting(batch_norm=True, relu=False),
    "BatchNorm and ReLU": Setting(batch_norm=True),
}


def network(setting: Setting, name: str) -> keras.Model:
    """Pixels [n, 64] -> (representation [n, 64], projection [n, 16])."""
    uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")

    def hidden(x, initializer):
        x = keras.layers.Dense(HIDDEN, kernel_initializer=initializer)(x)
        if setting.batch_norm:
            x = BatchNormalization()(x)
        return keras.layers.ReLU()(x) if setting.relu else x

    pixels = keras.Input((SIDE**2,))
    representation = hidden(pixels, "he_normal")
    projected = hidden(representation, uniform)
    projection = keras.layers.Dense(DIM, kernel_initializer=uniform)(projected)
    return keras.Model(pixels, [representation, projection], name=name)


def views(
    images: np.ndarray, steps: int, seed: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Two batches [128, 64] a step: moved by up to a pixel, other light, noise."""
    rng = np.random.default_rng(seed)
    around = np.pad(images.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)))
    grid = np.arange(SIDE)
    for _ in range(steps):
        chosen = around[rng.integers(0, len(images), BATCH)]
        pair = []
        for _ in range(2):
            top, left = rng.integers(0, 3, (2, BATCH))
            rows = (top[:, None] + grid)[:, :, None]
            columns = (left[:, None] + grid)[:, None, :]
            view = chosen[np.arange(BATCH)[:, None, None], rows, columns]
            view = view * rng.uniform(0.6, 1.4, (BATCH, 1, 1))
            view = view + rng.normal(0, 0.1, view.shape)
            pair.append(view.reshape(BATCH, -1).astype(np.float32))
        yield tuple(pair)


def train(setting: Setting, kind: str, seed: int) -> DirectPred:
    """A trained model with a `symmetric` or a `free` predictor."""
    keras.utils.set_random_seed(seed)
    online = network(setting, "online")
    target = None if setting.tau is None else network(setting, "target")
    model = DirectPred(online, target, PREDICTORS[kind]())
    # Both kinds start from one symmetric W.
    model.predictor.matrix.assign(spectrum.symmetrize(model.predictor.matrix))
    model.compile(
        SGD(setting.learning_rate, setting.momentum, setting.weight_decay),
        predictor_weight_decay=setting.predictor_decay,
    )
    images = load_digits().data[:TRAINED] / 16
    batch = tf.TensorSpec((BATCH, SIDE**2))
    data = tf.data.Dataset.from_generator(
        lambda: views(images, setting.steps, seed), output_signature=(batch, batch)
    )
    callbacks = []
    if setting.tau is not None:
        target.set_weights(online.get_weights())
        callbacks.append(TargetEMA(ema_momentum("constant", setting.tau, 1)))
    model.fit(
        data.repeat(),
        steps_per_epoch=setting.steps,
        verbose=0,
        shuffle=False,
        callbacks=callbacks,
    )
    return model


def measure(model: DirectPred) -> tuple[float, float]:
    """Feature std x sqrt(d), and accuracy of the nearest neighbour by representation.

    Both of clean images; the neighbours of the 360 that were not trained on are among
    the 1,437 that were.
    """
    digits = load_digits()
    hidden, projection = model.online((digits.data / 16).astype(np.float32))
    hidden = tf.math.l2_normalize(hidden, axis=1, epsilon=1e-24).numpy()
    near = np.argmax(hidden[TRAINED:] @ hidden[:TRAINED].T, axis=1)
    right = digits.target[:TRAINED][near] == digits.target[TRAINED:]
    return float(spectrum.feature_std(projection)), float(np.mean(right))


def digits_table(names: Sequence[str], seeds: int) -> str:
    """A Markdown table: both measures for both predictors, least to most over seeds."""
    header = ["setting", "1-NN, symmetric", "1-NN, free", "std, symmetric", "std, free"]
    rows = []
    for name in names:
        cells: dict[str, list[tuple[float, float]]] = {}
        for kind in PREDICTORS:
            cells[kind] = [
                measure(train(SETTINGS[name], kind, seed)) for seed in range(seeds)
            ]
        row = [name]
        for index, digits in ((1, 3), (0, 3)):
            for kind in PREDICTORS:
                values = [found[index] for found in cells[kind]]
                middle = statistics.median(values)
                row.append(
                    f"{middle:.{digits}f} ({min(values):.{digits}f} to "
                    f"{max(values):.{digits}f})"
                )
        rows.append(row)
        print(" | ".join(row), file=sys.stderr, flush=True)
    return markdown.table(header, rows)


def flow_table(runs: int) -> str:
    """A Markdown table: modes left of six, for 72 settings of the linear flow."""
    decays = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
    header = ["start", "sigma^2", "alpha_p", *(f"eta {eta:g}" for eta in decays)]
    rows = []
    for aligned, variance, rate in itertools.product(
        (False, True), (0.1, 1.0), (0.5, 1.0, 4.0)
    ):
        row = ["aligned" if aligned else "random", f"{variance:g}", f"{rate:g}"]
        for decay in decays:
            levers = Levers(rate, decay, variance=variance)
            left = [
                observations.surviving_modes(kept, levers, aligned=aligned, runs=runs)
                for kept in (True, False)
            ]
            row.append(f"{left[0]:.1f}, {left[1]:.1f}")
        rows.append(row)
    return markdown.table(header, rows)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flow", action="store_true", help="the linear flow")
    parser.add_argument("--seeds", type=int, default=3, help="starts of each setting")
    parser.add_argument("--setting", action="append", choices=SETTINGS, help="only it")
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        parser.error(f"received --seeds {given.seeds}, accepted: at least 1.")
    if given.flow:
        print("Modes left of six (symmetric, free), mean over random starts:\n")
        print(flow_table(given.seeds))
    else:
        print(digits_table(given.setting or list(SETTINGS), given.seeds))


if __name__ == "__main__":
    main(sys.argv[1:])
