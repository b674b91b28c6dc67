"""Every predictor's F and W against numpy."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf
from scipy import optimize

from tf_dpred import predictors, spectrum
from tf_dpred.config import PREDICTOR_FACTS, PredictorConfig

N, D = 10, 4
CLOSED_FORMS = ("direct", "direct_copy", "direct_set", "optimal")


def batches(count, seed=0):
    """Per step f1, f2, z1, z2, [n, d]; not centred, so that centring matters."""
    rng = np.random.default_rng(seed)
    scale = np.array([2.0, 1.0, 0.5, 0.1])
    return [rng.normal(0.3, 1, size=(4, N, D)) * scale for _ in range(count)]


def built(name, **settings):
    predictor = predictors.PREDICTORS[name](**settings)
    predictor.build((None, D))
    return predictor


def observe(predictor, steps):
    for step in steps:
        dtype = predictor.variable_dtype
        f1, f2, z1, z2 = (tf.constant(x, dtype) for x in step)
        predictor.observe(tf.concat([f1, f2], 0), tf.concat([z2, z1], 0))


def average(values, rho):
    """The running average of Eq. 19, or the plain mean."""
    if rho is None:
        return np.mean(values, axis=0)
    running = values[0]
    for value in values[1:]:
        running = rho * running + (1 - rho) * value
    return running


def statistics(steps, rho, centered=False):
    """F and C = E[z f^T] over steps."""
    f = [np.concatenate([f1, f2]) for f1, f2, _, _ in steps]
    z = [np.concatenate([z2, z1]) for _, _, z1, z2 in steps]
    second = average([x.T @ x / len(x) for x in f], rho)
    mean = average([x.mean(axis=0) for x in f], rho)
    target_mean = average([x.mean(axis=0) for x in z], rho)
    cross = average([a.T @ b / len(b) for a, b in zip(z, f, strict=True)], rho)
    return (
        second - centered * np.outer(mean, mean),
        cross - centered * np.outer(target_mean, mean),
    )


# F.


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9, None])
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_observe__numpy(rho, centered, count, policy):
    policy("float64")
    predictor = built("direct", rho=rho, centered=centered)
    steps = batches(count)
    observe(predictor, steps)
    expected, _ = statistics(steps, rho, centered)
    np.testing.assert_allclose(predictor.correlation, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", PREDICTOR_FACTS)
def test_observe__every_predictor_keeps_f(name):
    predictor = built(name)
    steps = batches(3)
    observe(predictor, steps)
    expected, _ = statistics(steps, 0.3)
    np.testing.assert_allclose(predictor.correlation, expected, rtol=1e-5, atol=1e-6)


def test_observe__the_first_batch_sets_f(policy):
    policy("float64")
    predictor = built("direct", rho=0.99)
    (step,) = batches(1)
    observe(predictor, [step])
    f = np.concatenate(step[:2])
    np.testing.assert_allclose(predictor.correlation, f.T @ f / (2 * N), rtol=1e-12)


# W.


def spectral(f, p_of_s):
    s, u = np.linalg.eigh(f)
    return u @ np.diag(p_of_s(np.maximum(s, 0))) @ u.T


def w_of(name, settings, f, cross):
    eps, exponent = settings.get("eps", 0.1), settings.get("exponent", 0.5)
    if name == "direct":
        form = settings.get("eigenvalue_map", "reference")
        return {
            "reference": lambda: spectral(
                f, lambda s: np.maximum((s / s.max()) ** exponent + eps, 1e-4)
            ),
            "inside_root": lambda: spectral(
                f, lambda s: np.maximum(s / s.max() + eps, 1e-4) ** exponent
            ),
            "eq18": lambda: spectral(f, lambda s: s**exponent + eps * s.max()),
        }[form]()
    if name == "direct_copy":
        return f / np.linalg.norm(f, 2) + eps * np.eye(D)
    if name == "direct_set":
        power = spectral(f, lambda s: s**exponent)
        return power / np.linalg.norm(power, 2) + eps * np.eye(D)
    ridge = f + eps * np.eye(D)
    return {
        "right": lambda: cross @ np.linalg.inv(ridge),
        "left": lambda: np.linalg.inv(ridge) @ cross,
        # SciPy solves a x + x a^T = q.
        "symmetric": lambda: scipy.linalg.solve_continuous_lyapunov(
            ridge, cross + cross.T
        ),
    }[settings.get("optimal_form", "symmetric")]()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("direct", {}),
        ("direct", {"eps": 0.0}),
        ("direct", {"eps": 0.5, "exponent": 1.0}),
        ("direct", {"centered": True}),
        ("direct", {"rho": None}),
        ("direct", {"eigenvalue_map": "eq18"}),
        ("direct", {"eigenvalue_map": "inside_root", "eps": -0.05}),
        ("direct_copy", {}),
        ("direct_copy", {"rho": 0.5, "eps": 0.3, "centered": True}),
        ("direct_set", {}),
        ("direct_set", {"exponent": 2.0, "eps": 0.2}),
        ("optimal", {}),
        ("optimal", {"eps": 1e-3, "rho": None}),
        ("optimal", {"centered": True}),
        ("optimal", {"optimal_form": "right"}),
        ("optimal", {"optimal_form": "left", "rho": 0.8}),
        ("optimal", {"optimal_form": "right", "centered": True, "eps": 1e-3}),
    ],
)
def test_update_weights__numpy(name, settings, policy):
    policy("float64")
    predictor = built(name, **settings)
    steps = batches(4)
    observe(predictor, steps)
    predictor.update_weights(tf.constant(0, tf.int64))
    f, cross = statistics(
        steps, settings.get("rho", 0.3), settings.get("centered", False)
    )
    expected = w_of(name, settings, f, cross)
    np.testing.assert_allclose(
        predictor.matrix.numpy(), expected, rtol=1e-10, atol=1e-12
    )
    row = np.arange(1.0, D + 1)
    found = predictor(tf.constant(row[None]))
    np.testing.assert_allclose(found, (expected @ row)[None], rtol=1e-10)


def test_optimal__reaches_the_optimum(policy):
    """Each form beside what a general minimizer finds of E|W f - z|^2 + eps |W|^2."""
    policy("float64")
    (step,) = batches(1, seed=3)
    f, z = np.concatenate(step[:2]), np.concatenate([step[3], step[2]])
    eps = 0.05

    def risk(w):
        w = np.reshape(w, (D, D))
        return np.mean(np.sum((f @ w.T - z) ** 2, axis=1)) + eps * np.sum(w**2)

    def of_triangle(entries):
        w = np.zeros((D, D))
        w[np.triu_indices(D)] = entries
        return w + np.triu(w, 1).T

    found = {}
    for form in ("right", "left", "symmetric"):
        predictor = built("optimal", eps=eps, optimal_form=form)
        observe(predictor, [step])
        predictor.update_weights(tf.constant(0, tf.int64))
        found[form] = predictor.matrix.numpy()
    best = optimize.minimize(risk, np.zeros(D * D), tol=1e-12).fun
    triangle = np.zeros(D * (D + 1) // 2)
    best_symmetric = optimize.minimize(
        lambda x: risk(of_triangle(x)), triangle, tol=1e-12
    ).fun
    right = found["right"]
    assert risk(right) == pytest.approx(best, rel=1e-9)
    assert risk(found["symmetric"]) == pytest.approx(best_symmetric, rel=1e-9)
    np.testing.assert_array_equal(found["symmetric"], found["symmetric"].T)
    # What was taken for it before is worse, and so is `left` than `right`.
    assert risk((right + right.T) / 2) > 1.01 * best_symmetric
    assert risk(found["left"]) > 1.01 * best


@pytest.mark.parametrize(
    ("settings", "cleared"),
    [
        ({"rho": None}, True),
        ({"rho": 0.3}, False),
        ({"rho": None, "optimal_form": "right"}, False),
    ],
)
def test_optimal__statistics_are_cleared_after_use(settings, cleared, policy):
    policy("float64")
    predictor = built("optimal", freq=3, **settings)
    steps = batches(7)
    for number, step in enumerate(steps):
        observe(predictor, [step])
        predictor.update_weights(tf.constant(number, tf.int64))
    # W was set after steps 0, 3 and 6.
    f, cross = statistics(steps[4:] if cleared else steps, settings["rho"])
    expected = w_of("optimal", settings, f, cross)
    np.testing.assert_allclose(predictor.matrix.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("form", "stays_symmetric"), [("symmetric", True), ("right", False)]
)
def test_optimal__between_the_steps_that_set_it(form, stays_symmetric, policy):
    policy("float64")
    predictor = built("optimal", freq=3, optimal_form=form)
    moved = np.arange(16.0).reshape(4, 4)
    predictor.matrix.assign(moved)
    predictor.update_weights(tf.constant(1, tf.int64))
    expected = (moved + moved.T) / 2 if stays_symmetric else moved
    np.testing.assert_array_equal(predictor.matrix.numpy(), expected)


@pytest.mark.parametrize("exponent", [0.25, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("size", [1e-14, 1.0, 1e14])
def test_direct_set__any_size_of_f(size, exponent):
    predictor = built("direct_set", exponent=exponent)
    (step,) = batches(1)
    observe(predictor, [size * step])
    predictor.update_weights(tf.constant(0, tf.int64))
    f, _ = statistics([step], 0.3)
    expected = w_of("direct_set", {"exponent": exponent}, f, None)
    np.testing.assert_allclose(predictor.matrix.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"freq": 2},
        {"freq": 1},
        {"name": "symmetric", "predictor_bias": True},
        {"name": "mlp", "predictor_hidden": 6, "predictor_bias": True},
        {"name": "symmetric_mlp", "predictor_hidden": 6},
    ],
    ids=str,
)
def test_predictor__shrinkage(settings, policy):
    """After the weights were set, each step multiplies matrices alone by 1 - lambda."""
    policy("float64")
    settings = dict(settings)
    name = settings.pop("name", "direct")
    plain = built(name, **settings)
    shrunk = built(name, predictor_shrinkage=0.2, **settings)
    rng = np.random.default_rng(0)
    for a, b in zip(plain.variables, shrunk.variables, strict=True):
        if a.dtype == "float64":
            b.assign(value := rng.normal(size=a.shape))
            a.assign(value)
    for step in (0, 1):
        for predictor in (plain, shrunk):
            predictor._batches.assign(0)
            observe(predictor, batches(1))
        for variable in plain.trainable_variables or [plain.matrix]:
            variable.assign(value := rng.normal(size=variable.shape))
            by_path = {v.path: v for v in shrunk.variables}
            by_path[variable.path].assign(value)
        for predictor in (plain, shrunk):
            predictor.update_weights(tf.constant(step, tf.int64))
        for a, b in zip(plain.variables, shrunk.variables, strict=True):
            is_matrix = any(a is matrix for matrix in plain.matrices)
            factor = 0.8 if is_matrix else 1.0
            np.testing.assert_allclose(b.numpy(), factor * a.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("freq", [1, 3])
def test_update_weights__frequency(name, freq):
    predictor = built(name, freq=freq)
    observe(predictor, batches(1))
    was_set = []
    for step in range(7):
        predictor.matrix.assign(np.zeros([D, D]))
        predictor.update_weights(tf.constant(step, tf.int64))
        was_set.append(bool(predictor.matrix.numpy().any()))
    assert was_set == [step % freq == 0 for step in range(7)]


# `direct` is compiled in test_model.py, and `direct_set` is of the same operations.
@pytest.mark.parametrize(
    ("name", "compiled"),
    [
        *((name, False) for name in CLOSED_FORMS),
        ("direct_copy", True),
        ("optimal", True),
    ],
)
def test_update_weights__in_a_function_as_eagerly(name, compiled):
    eager, graph = built(name), built(name)
    for predictor in (eager, graph):
        observe(predictor, batches(2))
    eager.update_weights(tf.constant(0, tf.int64))
    tf.function(graph.update_weights, jit_compile=compiled)(tf.constant(0, tf.int64))
    np.testing.assert_allclose(graph.matrix.numpy(), eager.matrix.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_update_weights__zero_statistics_are_finite(name):
    predictor = built(name)
    observe(predictor, [np.zeros([4, N, D])])
    predictor.update_weights(tf.constant(0, tf.int64))
    assert np.isfinite(predictor.matrix.numpy()).all()


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_update_weights__statistics_that_are_not_finite(name, value):
    """W becomes NaN, which the loss shows, instead of an error of LAPACK's."""
    predictor = built(name)
    observe(predictor, [np.full([4, N, D], value)])
    predictor.update_weights(tf.constant(0, tf.int64))
    assert np.isnan(predictor.matrix.numpy()).all()


def test_symmetric__update_weights(policy):
    policy("float64")
    predictor = built("symmetric")
    w = np.arange(16.0).reshape(4, 4)
    predictor.matrix.assign(w)
    predictor.update_weights(tf.constant(5, tf.int64))
    np.testing.assert_array_equal(predictor.matrix.numpy(), (w + w.T) / 2)


@pytest.mark.parametrize("name", ["linear", "mlp", "none"])
def test_update_weights__leaves_what_is_trained(name):
    predictor = built(name)
    observe(predictor, batches(1))
    before = [v.numpy() for v in predictor.variables]
    predictor.update_weights(tf.constant(0, tf.int64))
    for v, value in zip(predictor.variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), value)


# Predictions of the trained ones.


def test_linear__numpy(policy):
    policy("float64")
    f = batches(1)[0][0]
    predictor = built("linear", predictor_bias=True)
    predictor.bias.assign(np.arange(4.0))
    expected = f @ predictor.matrix.numpy().T + np.arange(4.0)
    np.testing.assert_allclose(predictor(tf.constant(f)), expected, rtol=1e-12)


@pytest.mark.parametrize("bn", ["affine", "plain", "none"])
@pytest.mark.parametrize("bias", [False, True])
def test_mlp__numpy(bias, bn, policy):
    policy("float64")
    predictor = built("mlp", predictor_hidden=6, predictor_bias=bias, predictor_bn=bn)
    rng = np.random.default_rng(0)
    for v in predictor.trainable_variables:
        v.assign(rng.normal(size=v.shape))
    values = {v.path.split("/", 2)[2]: v.numpy() for v in predictor.trainable_variables}
    w1, b1 = values["hidden/kernel"], values["hidden/bias"]
    f = batches(1)[0][0]
    x = f @ w1 + b1
    if bn != "none":
        x = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)
    if bn == "affine":
        x = values["bn/gamma"] * x + values["bn/beta"]
    expected = np.maximum(x, 0) @ values["output/kernel"]
    expected = expected + (values["output/bias"] if bias else 0)
    found = predictor(tf.constant(f), training=True)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("bn", ["affine", "none"])
def test_symmetric_mlp__ties_its_matrices(bn, policy):
    """W1 and W2^T become their mean; without BatchNorm the Jacobian is symmetric."""
    policy("float64")
    predictor = built(
        "symmetric_mlp", predictor_hidden=6, predictor_bn=bn, predictor_bias=True
    )
    w1, w2 = (matrix.numpy().T for matrix in predictor.matrices)
    assert w1.shape == (6, D) and w2.shape == (D, 6)
    predictor.update_weights(tf.constant(1, tf.int64))
    hidden, output = (matrix.numpy().T for matrix in predictor.matrices)
    np.testing.assert_allclose(hidden, (w1 + w2.T) / 2, rtol=1e-14)
    np.testing.assert_array_equal(output, hidden.T)
    if bn == "none":
        f = tf.constant(batches(1)[0][0][:1])
        with tf.GradientTape() as tape:
            tape.watch(f)
            prediction = predictor(f)
        jacobian = np.squeeze(tape.jacobian(prediction, f).numpy())
        assert np.abs(jacobian).max() > 0
        np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-12)


def test_none__identity():
    f = tf.constant(batches(1)[0][0])
    np.testing.assert_array_equal(built("none", dtype="float64")(f), f)


@pytest.mark.parametrize("name", ["direct", "linear"])
def test_matrix__initial_values(name):
    predictor = predictors.PREDICTORS[name]()
    predictor.build((None, 64))
    w = predictor.matrix.numpy()
    # U(+-1/sqrt(64)): standard deviation 1/8/sqrt(3)
    assert np.abs(w).max() <= 1 / 8
    assert w.std() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("name", ["mlp", "symmetric_mlp"])
def test_mlp__initial_values(name):
    predictor = predictors.PREDICTORS[name](predictor_hidden=144, predictor_bias=True)
    predictor.build((None, 64))
    for matrix, bound in zip(predictor.matrices, (1 / 8, 1 / 12), strict=True):
        w = matrix.numpy()
        assert 0.99 * bound < np.abs(w).max() <= bound
        assert w.std() == pytest.approx(bound / 3**0.5, rel=0.03)
    biases = [v for v in predictor.trainable_variables if v.name in ("bias", "beta")]
    assert len(biases) == 3 and not any(v.numpy().any() for v in biases)


# What is trained, and in what precision.


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        *((name, {"freq": 1}, []) for name in CLOSED_FORMS),
        *((name, {"freq": 2}, ["matrix"]) for name in CLOSED_FORMS),
        ("linear", {}, ["matrix"]),
        ("linear", {"predictor_bias": True}, ["matrix", "bias"]),
        ("symmetric", {}, ["matrix"]),
        ("mlp", {}, ["kernel", "bias", "gamma", "beta", "kernel"]),
        (
            "mlp",
            {"predictor_bias": True},
            ["kernel", "bias", "gamma", "beta", "kernel", "bias"],
        ),
        ("mlp", {"predictor_bn": "plain"}, ["kernel", "bias", "kernel"]),
        ("mlp", {"predictor_bn": "none"}, ["kernel", "bias", "kernel"]),
        ("symmetric_mlp", {}, ["kernel", "bias", "gamma", "beta", "kernel"]),
        ("none", {}, []),
    ],
)
def test_trainable_variables(name, settings, expected):
    predictor = built(name, **settings)
    assert [v.name for v in predictor.trainable_variables] == expected


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", PREDICTOR_FACTS)
def test_precision__float32_under_mixed(name, precision, policy):
    policy(precision)
    predictor = built(name)
    (step,) = batches(1)
    observe(predictor, [step])
    predictor.update_weights(tf.constant(0, tf.int64))
    prediction = predictor(tf.constant(step[0], tf.float32), training=True)
    assert prediction.dtype == tf.float32
    assert predictor.correlation.dtype == tf.float32
    assert {v.dtype for v in predictor.variables} == {"float32", "int64"}
    expected, _ = statistics([step], 0.3)
    np.testing.assert_allclose(predictor.correlation, expected, rtol=1e-5, atol=1e-6)


def test_precision__mlp_computes_in_bfloat16(policy):
    policy("mixed_bfloat16")
    predictor = built("mlp", predictor_hidden=6)
    prediction = predictor(tf.constant(batches(1)[0][0], tf.float32), training=True)
    rounded = tf.cast(tf.cast(prediction, tf.bfloat16), tf.float32)
    np.testing.assert_array_equal(prediction, rounded)


# From a config.

SETTINGS = PredictorConfig(
    predictor="direct",
    rho=0.7,
    eps=0.25,
    freq=3,
    exponent=0.75,
    eigenvalue_map="eq18",
    centered=True,
    predictor_hidden=16,
    predictor_bias=True,
    predictor_bn="plain",
    predictor_shrinkage=0.125,
    optimal_form="left",
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "direct",
            {"eps": 0.25, "freq": 3, "exponent": 0.75, "eigenvalue_map": "eq18"},
        ),
        ("direct_copy", {"eps": 0.25, "freq": 3}),
        ("direct_set", {"eps": 0.25, "freq": 3, "exponent": 0.75}),
        ("optimal", {"eps": 0.25, "freq": 3, "optimal_form": "left"}),
        ("linear", {"predictor_bias": True}),
        ("symmetric", {"predictor_bias": True}),
        (
            "mlp",
            {"predictor_hidden": 16, "predictor_bias": True, "predictor_bn": "plain"},
        ),
        (
            "symmetric_mlp",
            {"predictor_hidden": 16, "predictor_bias": True, "predictor_bn": "plain"},
        ),
        ("none", {}),
    ],
)
def test_make_predictor__settings(name, expected):
    config = dataclasses.replace(SETTINGS, predictor=name)
    predictor = predictors.make_predictor(config)
    assert type(predictor) is predictors.PREDICTORS[name]
    expected = {"rho": 0.7, "centered": True, "predictor_shrinkage": 0.125, **expected}
    assert {key: getattr(predictor, key) for key in expected} == expected


def test_registry__is_the_flag_choices():
    assert list(predictors.PREDICTORS) == list(PREDICTOR_FACTS)


@pytest.mark.parametrize("name", PREDICTOR_FACTS)
def test_facts__are_what_the_class_does(name):
    facts, predictor = PREDICTOR_FACTS[name], built(name)
    assert bool(predictor.trainable_variables) == facts.trained
    steps = batches(3)
    observe(predictor, steps)
    predictor.update_weights(tf.constant(0, tf.int64))
    f = np.concatenate(steps[0][:2]).astype(np.float32)
    w = predictor(np.eye(D, dtype=np.float32)).numpy().T
    assert np.allclose(predictor(f), f @ w.T, atol=1e-5) == facts.matrix
    nonnegative = np.allclose(w, w.T) and np.linalg.eigvalsh(w).min() > -1e-6
    assert nonnegative or not facts.symmetric
    correlation = predictor.correlation.numpy()
    commute = np.allclose(w @ correlation, correlation @ w, atol=1e-5)
    assert commute == (facts.set_from_f or name == "none")


def test_registry__classes_share_the_interface():
    for cls in predictors.PREDICTORS.values():
        assert issubclass(cls, predictors.Predictor)


@pytest.mark.parametrize("rho", [1.0, -0.1, float("nan")])
def test_predictor__bad_rho(rho):
    with pytest.raises(ValueError, match=f"Invalid rho: received {rho}, accepted: "):
        predictors.Linear(rho=rho)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: predictors.MLP(predictor_bn="batch"),
            "predictor_bn: received 'batch', accepted: affine, plain, none",
        ),
        (
            lambda: predictors.Optimal(optimal_form="both"),
            "optimal_form: received 'both', accepted: symmetric, right, left",
        ),
        (
            lambda: predictors.Linear(predictor_shrinkage=1.0),
            "predictor_shrinkage: received 1.0, accepted: at least 0, below 1",
        ),
        (
            lambda: spectrum.regression(tf.eye(2), tf.eye(2), 0.1, "up"),
            "form: received 'up', accepted: symmetric, right, left",
        ),
    ],
)
def test_predictor__bad_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("freq", [0, -1])
def test_closed_form__bad_freq(freq):
    with pytest.raises(ValueError, match=f"Invalid freq: received {freq}, accepted: "):
        predictors.Direct(freq=freq)
