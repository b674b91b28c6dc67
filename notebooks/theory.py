# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why it does not collapse
#
# The linear theory of [arXiv 2102.06810](https://arxiv.org/abs/2102.06810): one mode,
# where it goes from each start, how much decay it bears; and beside it a linear network
# that is really trained. All of it, with the theorems: `docs/theory.md`.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from tf_dpred.system import quiet

with quiet.start():
    import keras
    import tensorflow as tf

    from tf_dpred.callbacks.target_ema import TargetEMA
    from tf_dpred.model import DirectPred
    from tf_dpred.optimizers import SGD
    from tf_dpred.predictors import Linear
    from tf_dpred.schedules import ema_momentum
    from tf_dpred.system.devices import set_precision
    from tf_dpred.theory import basin, flow, modes
    from tf_dpred.theory.levers import Levers, from_training

# Cut short, to see whether it runs: TF_DPRED_SHORT=1 python notebooks/theory.py
SHORT = os.environ.get("TF_DPRED_SHORT") == "1"
HOME = Path(os.environ.get("TF_DPRED_OUTPUT") or tempfile.mkdtemp())

# %% [markdown]
# ## One mode
#
# Where F = W W^T and the predictor W_p share an eigenvector, its eigenvalues s (of F)
# and p (of W_p) move by themselves, with tau, how far the target has come (Eqs. 13-15):
#
#     dp = alpha_p s [tau - (1+sigma^2) p] - eta p
#     ds = 2 p s [tau - (1+sigma^2) p] - 2 eta s
#     dtau = beta (1 - tau) - tau ds/(2s)
#
# alpha_p is the predictor's rate over the network's, eta the weight decay, beta the
# rate of the EMA, sigma^2 the strength of the augmentation. Without EMA (SimSiam) tau
# is 1.

# %%
levers = Levers(decay=0.05, variance=0.5)
p_minus, p_plus = modes.fixed_points(levers.decay, variance=levers.variance)
print(f"fixed points of p: 0, {p_minus:.6f} (unstable), {p_plus:.6f}")

# %% [markdown]
# ## The basin of collapse
#
# On the parabola s = p^2/alpha_p a mode that starts below p- is lost; one above it
# learns, up to p+. `basin.simulated_boundary` finds the boundary by trying starts.

# %%
held = modes.flow_at_constant_tau(levers, tau=1.0)
times = np.linspace(0, 400, 201)


def on_parabola(factor):
    """p over time from `factor` p-."""
    p = factor * p_minus
    return flow.integrate(held, ([p], [p**2]), times)[0][:, 0]


print(f"boundary: {p_minus:.6f} predicted", end=", ")
print(f"{basin.simulated_boundary(levers):.6f} simulated")
for factor in (0.98, 1.02):
    print(f"p starts at {factor} p-, ends at {on_parabola(factor)[-1]:.6f}")

# %%
p, s = np.meshgrid(np.linspace(-1, 1.5, 41), np.linspace(0, 1.5, 31))
dp, ds, _ = modes.velocity(p, s, 1.0, levers)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
axes[0].streamplot(p, s, dp, ds, color="grey", density=0.7, linewidth=0.7)
axes[0].plot(p[0], p[0] ** 2, "--", label="s = p^2/alpha_p")
axes[0].fill_between(*basin.separatrix(levers), color="C1", alpha=0.2, label="lost")
axes[0].plot([0, p_plus], [0, p_plus**2], "ko", label="stable")
axes[0].plot([p_minus], [p_minus**2], "ks", mfc="white", label="saddle")
axes[0].set(xlabel="p", ylabel="s", ylim=(0, 1.5), title="where a mode goes")
axes[0].legend(fontsize=8)
for factor in (0.9, 0.98, 1.02, 1.1, 2.0):
    axes[1].plot(times, on_parabola(factor), label=f"{factor} p-")
axes[1].set(xlabel="time", ylabel="p", title="on the parabola, by its start")
axes[1].legend(fontsize=8)
figure.tight_layout()
figure.savefig(HOME / "basin.png", dpi=100)

# %% [markdown]
# ## The critical decay
#
# Above tau^2/(4 (1+sigma^2)) there are no fixed points but 0: every start collapses.

# %%
decays = np.linspace(0, 0.25, 251)
low, high = modes.fixed_points(decays, variance=levers.variance)
critical = float(modes.critical_decay(variance=levers.variance))
figure, axis = plt.subplots(figsize=(5, 3.4))
axis.plot(decays, high, label="p+, where features end")
axis.plot(decays, low, "--", label="p-, below which they are lost")
axis.axvline(critical, color="grey", lw=1)
axis.set(xlabel="decay eta", ylabel="p", title=f"critical decay {critical:.4f}")
axis.legend(fontsize=8)
figure.tight_layout()
figure.savefig(HOME / "critical_decay.png", dpi=100)

# %% [markdown]
# ## A linear network, trained
#
# The classes that train ResNets, here with linear networks in float64, the mse loss and
# plain SGD, on views whose moments are exactly X = I and X' = sigma^2 I. One step of a
# symmetric loss takes the time h = 4 lr of the flow (`levers.from_training`); the
# deviation from the solved modes is that of finite steps.

# %%
set_precision("float64")
STEPS = 50 if SHORT else 1000
LEARNING_RATE, DECAY, TAU, VARIANCE = 0.005, 0.16, 0.992, 0.25
levers, h = from_training(
    LEARNING_RATE, weight_decay=DECAY, tau_base=TAU, variance=VARIANCE
)
print(f"eta {levers.decay:g}, beta {levers.ema_rate:g}, time of a step {h:g}")


def views(size, variance):
    """Two views [2 size, size] with E x1 x1^T = (1 + variance) I and E x1 x2^T = I."""
    one, both = np.eye(size), (1 + variance) * np.eye(size)
    root = np.linalg.cholesky(np.block([[both, one], [one, both]]))
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=root.shape))[0]
    pair = np.sqrt(2 * size) * rotation @ root.T
    return pair[:, :size], pair[:, size:]


def linear_network(w, name):
    """x -> (x, W x)."""
    x = keras.Input((w.shape[1],))
    dense = keras.layers.Dense(w.shape[0], use_bias=False, name="w")
    network = keras.Model(x, [x, dense(x)], name=name)
    dense.kernel.assign(w.T)
    return network


class Record(keras.callbacks.Callback):
    """p and s of every mode, before the first and after each step."""

    rows = None

    def on_train_begin(self, logs=None):
        self.rows = []
        self.on_train_batch_end(0)

    def on_train_batch_end(self, batch, logs=None):
        w = self.model.online.get_layer("w").kernel.numpy().T
        self.rows.append(
            (np.diag(self.model.predictor.matrix.numpy()), np.diag(w @ w.T))
        )


# Three modes: one that is lost, two that are learned.
p, s = np.array([0.02, 0.3, 0.5]), np.array([0.002, 0.2, 0.1])
w_p, w, w_a = flow.from_modes(p, s, tau=0.0, v=np.eye(5, 3))
predictor = Linear()
model = DirectPred(
    linear_network(w, "online"), linear_network(w_a, "target"), predictor, loss="mse"
)
predictor.matrix.assign(w_p)
model.compile(SGD(LEARNING_RATE, momentum=0.0, weight_decay=DECAY))
record = Record()
model.fit(
    tf.data.Dataset.from_tensors(views(5, VARIANCE)).repeat(STEPS),
    callbacks=[TargetEMA(ema_momentum("constant", TAU, STEPS)), record],
    shuffle=False,
    verbose=0,
)
trained = np.array(record.rows)  # [STEPS + 1, (p, s), mode]

# %%
time = h * np.arange(STEPS + 1)
solved = flow.integrate(modes.flow(levers), (p, s, np.zeros(3)), time)
low, high = modes.fixed_points(levers.decay, 1.0, VARIANCE)
print(f"p- {low:.4f} and p+ {high:.4f} where tau = 1")
print("largest deviation of p:", np.abs(trained[:, 0] - solved[0]).max())
print("largest deviation of s:", np.abs(trained[:, 1] - solved[1]).max())

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
for axis, name, found, expected in zip(
    axes, "ps", (trained[:, 0], trained[:, 1]), solved[:2], strict=True
):
    axis.plot(time, expected, color="grey", lw=4, alpha=0.4)
    axis.plot(time, found, lw=1.2)
    axis.set(xlabel="time", ylabel=name)
axes[0].set_title("grey: theory, lines: trained")
figure.tight_layout()
figure.savefig(HOME / "trained.png", dpi=100)
set_precision("float32")
