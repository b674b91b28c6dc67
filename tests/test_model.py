"""The training step: what moves, by how much, and on what it does not depend."""

import keras
import numpy as np
import pytest
import toys

from tf_dpred.losses import LOSSES
from tf_dpred.model import DirectPred
from tf_dpred.optimizers import SGD
from tf_dpred.predictors import MLP, Direct, Identity, Linear
from tf_dpred.records.state import training_state
from tf_dpred.step.trace_once import TraceOnce


def cosine(p, z):
    p, z = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (p, z))
    return -2 * np.sum(p * z, axis=1)


def projections(network, views):
    return [network(view, training=True)[1].numpy() for view in views]


# What the target sees of the step.


def test_train_step__no_gradient_reaches_the_target():
    model = toys.model()
    before = {
        name: toys.arrays(getattr(model, name).trainable_variables)
        for name in ("online", "target")
    }
    model.compile(SGD(0.1, weight_decay=0.1), run_eagerly=True)
    toys.fit(model, toys.views(3), tau=1.0)
    after = toys.arrays(model.target.trainable_variables)
    for found, value in zip(after, before["target"], strict=True):
        np.testing.assert_array_equal(found, value)
    after = toys.arrays(model.online.trainable_variables)
    assert all((a != b).any() for a, b in zip(after, before["online"], strict=True))


def test_compile__the_optimizer_does_not_know_the_target():
    model = toys.model(Linear())
    model.compile(SGD(0.1), run_eagerly=True)
    # step, rate, and a momentum for each learned variable
    learned = model.online.trainable_variables + model.predictor.trainable_variables
    assert len(model.optimizer.variables) == 2 + len(learned)
    assert not any("target" in v.path for v in model.optimizer.variables)
    assert not any("target" in v.path for v in model.learned_variables)


def test_train_step__target_keeps_its_own_batch_norm_statistics():
    model = toys.trained(tau=0.0)
    online, target = (n.get_layer("bn") for n in (model.online, model.target))
    np.testing.assert_array_equal(online.gamma.numpy(), target.gamma.numpy())
    difference = online.moving_mean.numpy() - target.moving_mean.numpy()
    assert np.abs(difference).min() > 1e-3


def test_train_step__ema_follows_the_optimizer():
    """With tau = 0 the target is the online network AFTER the step."""
    model = toys.trained(steps=1, tau=0.0)
    for online, target in zip(
        model.online.trainable_variables, model.target.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(online.numpy(), target.numpy())


def test_train_step__predictor_is_set_after_the_optimizer(policy):
    """W is that of F with this batch; F is of projections BEFORE the step."""
    policy("float64")
    model = toys.model()
    views = toys.views(1)
    f = np.concatenate(projections(model.online, [v[0] for v in views]))
    model.compile(SGD(0.1), run_eagerly=True)
    toys.fit(model, views)
    correlation = f.T @ f / len(f)
    np.testing.assert_allclose(model.predictor.correlation, correlation, **toys.TIGHT)
    s, u = np.linalg.eigh(correlation)
    w = u @ np.diag(np.sqrt(s / s.max()) + 0.1) @ u.T
    np.testing.assert_allclose(model.predictor.matrix.numpy(), w, **toys.TIGHT)


def test_train_step__without_target_the_network_is_shared():
    model = toys.trained(target=False)
    assert model.target is model.online
    assert not model.has_separate_target
    assert not any(name.startswith("target") for name in training_state(model))


# The loss.


@pytest.mark.parametrize(
    ("loss", "symmetric", "target"),
    [
        *((loss, symmetric, True) for loss in LOSSES for symmetric in (True, False)),
        ("cosine", True, False),
    ],
)
def test_loss__numpy(loss, symmetric, target, policy):
    policy("float64")
    model = toys.model(loss=loss, symmetric=symmetric, target=target)
    views = toys.views(1)
    batch = [v[0] for v in views]
    f1, f2 = projections(model.online, batch)
    z1, z2 = projections(model.target, batch)
    w = np.diag([1.0, 0.5, 0.25, 2.0])
    model.predictor.matrix.assign(w)

    def distance(f, z):
        p = f @ w.T
        if loss == "cosine":
            return cosine(p, z)
        if loss == "mse":
            return np.sum((p - z) ** 2, axis=1)
        p_norm, z_norm = np.linalg.norm(p, axis=1), np.linalg.norm(z, axis=1)
        q = f @ np.sqrt(w)
        return -2 * (
            np.sum(f * z, axis=1) / (p_norm * z_norm)
            - 0.5 * np.sum(p * z, axis=1) / (p_norm**3 * z_norm) * np.sum(q**2, axis=1)
        )

    expected = distance(f1, z2) + (distance(f2, z1) if symmetric else 0)
    model.compile(SGD(0.1), run_eagerly=True)
    history = toys.fit(model, views).history
    np.testing.assert_allclose(history["loss"], [expected.mean()], rtol=1e-10)


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_stop_gradient__analytic_on_a_linear_network(stop_gradient, symmetric, policy):
    """f = A x, p = W f, mse: dL/dA of e = W A x1 - A x2, through z or not."""
    policy("float64")
    rng = np.random.default_rng(0)
    a, w = rng.normal(size=(3, 5)), rng.normal(size=(3, 3))
    vectors = keras.Input((5,))
    projection = keras.layers.Dense(3, use_bias=False, name="a")(vectors)
    network = keras.Model(vectors, [projection, projection])
    model = DirectPred(
        network,
        None,
        Linear(),
        loss="mse",
        symmetric=symmetric,
        stop_gradient=stop_gradient,
    )
    network.get_layer("a").kernel.assign(a.T)
    model.predictor.matrix.assign(w)
    views = rng.normal(size=(2, 1, 8, 5))
    da, dw = np.zeros_like(a), np.zeros_like(w)
    x1, x2 = views[:, 0]
    for x, y in [(x1, x2), (x2, x1)][: 2 if symmetric else 1]:
        e = x @ a.T @ w.T - y @ a.T
        da += 2 / 8 * w.T @ e.T @ x
        da -= 0 if stop_gradient else 2 / 8 * e.T @ y
        dw += 2 / 8 * e.T @ (x @ a.T)
    model.compile(SGD(0.1, momentum=0.0), run_eagerly=True)
    toys.fit(model, tuple(views))
    kernel = network.get_layer("a").kernel.numpy()
    np.testing.assert_allclose(kernel.T, a - 0.1 * da, **toys.TIGHT)
    np.testing.assert_allclose(
        model.predictor.matrix.numpy(), w - 0.1 * dw, **toys.TIGHT
    )


@pytest.mark.parametrize(
    ("symmetric", "target", "passes"),
    [(True, True, 4), (False, True, 2), (True, False, 2), (False, False, 2)],
)
def test_train_step__no_forward_pass_that_the_loss_does_not_need(
    symmetric, target, passes, monkeypatch
):
    seen, project = [], TraceOnce._project

    def counted(self, images):
        seen.append(images)
        return project(self, images)

    monkeypatch.setattr(TraceOnce, "_project", counted)
    toys.trained(steps=1, symmetric=symmetric, target=target)
    assert len(seen) == passes


def test_compile__takes_account_of_layers_that_are_frozen():
    model = toys.trained(steps=1, compiled={})
    layer = model.online.get_layer("bn")
    layer.trainable = False
    model.compile(SGD(0.1))
    before = layer.moving_mean.numpy()
    toys.fit(model, toys.views(1))
    np.testing.assert_array_equal(layer.moving_mean.numpy(), before)


def test_train_step__one_direction_takes_f_of_the_first_view(policy):
    policy("float64")
    model = toys.model(symmetric=False)
    views = toys.views(1)
    f1, _ = projections(model.online, [v[0] for v in views])
    model.compile(SGD(0.1), run_eagerly=True)
    toys.fit(model, views)
    expected = f1.T @ f1 / len(f1)
    np.testing.assert_allclose(model.predictor.correlation, expected, **toys.TIGHT)
    own, across, of_target = model.view_moments.read()
    assert own == pytest.approx(np.mean(np.sum(f1**2, axis=1)), rel=1e-6)
    assert np.isnan(across) and np.isnan(of_target)


# How the step is run must not matter.


def test_train_step__a_network_is_traced_once_for_both_views(monkeypatch):
    """And rounds to the bit as if each view were traced, BatchNorm's gradient too."""
    traced, project = [], TraceOnce._project

    def counted(self, images):
        traced.append(self)
        return project(self, images)

    monkeypatch.setattr(TraceOnce, "_project", counted)
    once = toys.state_of(toys.trained(compiled={}))
    assert len(traced) == 2  # the online network and the target
    monkeypatch.setattr(TraceOnce, "__call__", TraceOnce._project)
    each = toys.state_of(toys.trained(compiled={}))
    assert len(traced) == 2 + 4
    assert [n for n in once if once[n].tobytes() != each[n].tobytes()] == []


@pytest.mark.parametrize(
    "predictor", [lambda: Direct(freq=2), MLP], ids=["direct", "mlp"]
)
def test_train_step__eager_equals_graph(predictor, policy):
    policy("float64")
    toys.assert_equal_state(
        toys.trained(predictor(), compiled={}), toys.trained(predictor())
    )


def test_train_step__jit_equals_eager(policy):
    policy("float64")
    jit = toys.trained(Direct(freq=1), compiled={"jit_compile": True})
    # XLA's own eigh stops at fewer digits than LAPACK's.
    toys.assert_equal_state(jit, toys.trained(Direct(freq=1)), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("predictor", [Direct, Linear], ids=lambda c: c.__name__)
def test_accumulation__equals_the_whole_batch(predictor, policy):
    policy("float64")
    whole, split = (
        toys.trained(predictor(), steps=2, batch_norm=False, accumulation_steps=count)
        for count in (1, 4)
    )
    toys.assert_equal_state(split, whole)
    logs = whole.history.history
    assert set(logs) == {"loss", "feature_std", "tau"}
    for name, value in logs.items():
        np.testing.assert_allclose(split.history.history[name], value, rtol=1e-10)


def test_accumulation__one_micro_batch_after_the_other(monkeypatch):
    """In a graph nothing else keeps all forward passes from running, and staying."""
    model = toys.model(accumulation_steps=3)
    model.compile(SGD(0.1))
    waits_for = []
    loss = model._loss

    def watched(view1, view2):
        waits_for.append(len(view1.op.control_inputs))
        return loss(view1, view2)

    monkeypatch.setattr(model, "_loss", watched)
    toys.fit(model, toys.views(1, batch=6))
    assert waits_for[0] == 0
    assert all(count > 0 for count in waits_for[1:]) and len(waits_for) == 3


# Settings of the predictor alone.


def test_compile__predictor_settings_reach_only_the_predictor(policy):
    policy("float64")

    def stepped(**settings):
        model = toys.model(Linear())
        before = model.predictor.matrix.numpy()
        model.compile(SGD(0.1, weight_decay=0.01), run_eagerly=True, **settings)
        toys.fit(model, toys.views(1))
        online = toys.arrays(model.online.trainable_variables)
        return before, model.predictor.matrix.numpy(), online

    before, after, plain = stepped()
    gradient = (before - after) / 0.1 - 0.01 * before
    for settings, rate, decay in [
        ({"predictor_learning_rate": 1.0}, 1.0, 0.01),
        ({"predictor_weight_decay": 0.0}, 0.1, 0.0),
        ({"predictor_learning_rate": 0.2, "predictor_weight_decay": 0.5}, 0.2, 0.5),
    ]:
        _, matrix, online = stepped(**settings)
        expected = before - rate * (gradient + decay * before)
        np.testing.assert_allclose(
            matrix, expected, **toys.TIGHT, err_msg=str(settings)
        )
        for a, b in zip(online, plain, strict=True):
            np.testing.assert_array_equal(a, b)


# Metrics, outputs, state.


def test_metrics__feature_std_of_the_first_view():
    model = toys.model()
    views = toys.views(1)
    f1, _ = projections(model.online, [v[0] for v in views])
    unit = f1 / np.linalg.norm(f1, axis=1, keepdims=True)
    model.compile(SGD(0.1), run_eagerly=True)
    found = toys.fit(model, views).history["feature_std"]
    np.testing.assert_allclose(found, [unit.std(axis=0).mean() * 2], rtol=1e-5)


def test_metrics__means_over_the_epoch():
    model = toys.model()
    model.compile(SGD(0.1), run_eagerly=True)
    each = []
    recorder = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: each.append(logs["loss"])
    )
    history = toys.fit(model, toys.views(2), callbacks=[recorder], epochs=2).history
    assert len(each) == 4
    np.testing.assert_allclose(history["loss"], [each[1], each[3]], rtol=1e-6)
    model = toys.model()
    model.compile(SGD(0.1), run_eagerly=True)
    views = toys.views(2)
    alone = [
        toys.fit(model, tuple(v[i : i + 1] for v in views)).history["loss"][0]
        for i in (0, 1)
    ]
    assert history["loss"][0] == pytest.approx(np.mean(alone), rel=1e-6)


def test_call__online_representation():
    model = toys.trained()
    x = toys.views(1)[0][0]
    expected = model.online(x, training=False)[0].numpy()
    np.testing.assert_array_equal(model(x), expected)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("predictor", [Direct, MLP], ids=lambda c: c.__name__)
def test_training_state__every_variable_once(predictor, precision, policy):
    policy(precision)
    model = toys.model(predictor())
    model.compile(SGD(0.1), run_eagerly=True)
    state = training_state(model)
    metrics = [v for metric in model.metrics for v in metric.variables]
    everything = {id(v) for v in model.variables + model.optimizer.variables + metrics}
    assert {id(v) for v in state.values()} == everything
    assert len(state) == len(everything)


def test_training_state__is_built_before_the_first_step():
    model = toys.model(MLP())
    model.compile(SGD(0.1), run_eagerly=True)
    before = training_state(model)
    toys.fit(model, toys.views(1))
    after = training_state(model)
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


# Errors.


def test_fit__separate_target_without_an_update():
    model = toys.model()
    model.compile(SGD(0.1), run_eagerly=True)
    with pytest.raises(ValueError, match="received no TargetEMA, accepted: fit"):
        model.fit(toys.dataset(toys.views(1)), verbose=0, shuffle=False)


def test_init__unknown_loss():
    with pytest.raises(ValueError, match="received 'l1', accepted: cosine, mse, iso"):
        toys.model(loss="l1")


def test_init__gradient_through_a_separate_target():
    with pytest.raises(ValueError, match="received False with a separate target"):
        toys.model(stop_gradient=False)


def test_collapse__without_predictor_and_stop_gradient():
    """The loss alone is happiest with one point: features must lose their spread."""
    model = toys.model(Identity(), target=False, stop_gradient=False, loss="mse")
    model.compile(SGD(0.1))
    toys.fit(model, toys.views(100))
    f1, f2 = projections(model.online, [v[0] for v in toys.views(1, seed=1)])
    assert np.var(f1, axis=0).sum() < 0.01
    assert np.abs(f1 - f2).max() < 0.1
