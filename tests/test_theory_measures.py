"""The measures of F and W_p against hand-made spectra, and in a real training step."""

import json

import numpy as np
import pytest
import toys

from tf_dpred.callbacks.theory_monitor import TheoryMonitor
from tf_dpred.optimizers import SGD
from tf_dpred.predictors import MLP, Direct
from tf_dpred.system.json_files import read_lines
from tf_dpred.theory import measures


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


@pytest.mark.parametrize(
    ("s", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 4.0),
        ([7.0, 0.0, 0.0, 0.0], 1.0),
        ([0.0, 2.0, 2.0, 0.0], 2.0),
        ([1.0, 1.0, 0.0, -1e-7], 2.0),
        ([0.0, 0.0, 0.0, 0.0], 0.0),
        # exp of the entropy of (1/4, 3/4) in nats
        ([1.0, 3.0, 0.0, 0.0], 4 / 3**0.75),
        ([1e-8, 3e-8, 0.0, 0.0], 4 / 3**0.75),
    ],
)
def test_effective_rank__analytic(s, expected):
    found = measures.effective_rank(np.array(s))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("s", "expected"), [([1, 1, 1, 1], 4), ([9, 1e-3, 1e-4, 0], 2), ([0, 0], 0)]
)
def test_leading_modes(s, expected):
    assert measures.leading_modes(np.array(s, float)) == expected


def commuting(d=8, power=0.5, shift=0.0):
    """F and a W of the same eigenvectors, p = 3 s^power + shift."""
    u, s = rotation(d), np.arange(d, 0.0, -1)
    return u @ np.diag(s) @ u.T, u @ np.diag(3 * s**power + shift) @ u.T, s


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_of_predictor__commuting(power):
    f, w, expected = commuting(power=power)
    s, u = measures.spectrum(f)
    np.testing.assert_allclose(s, expected, rtol=1e-12)
    found = measures.of_predictor(w, s, u)
    np.testing.assert_allclose(found["p"], 3 * expected**power, rtol=1e-12)
    np.testing.assert_allclose(found["cosine"], 1, rtol=1e-12)
    np.testing.assert_allclose(found["eigenvalues_w"], 3 * expected**power, rtol=1e-12)
    assert found["alignment"] == pytest.approx(1, rel=1e-12)
    assert found["commutator"] == pytest.approx(0, abs=1e-14)
    assert found["asymmetry"] == pytest.approx(0, abs=1e-14)
    assert found["exponent"] == pytest.approx(power, rel=1e-9)


@pytest.mark.parametrize("degrees", [1, 20, 45])
def test_of_predictor__rotated_plane(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[c, -s], [s, c]])
    w = turn @ np.diag([1.0, 3.0]) @ turn.T
    # u = e1: u^T W u = c^2 + 3 s^2, |W u|^2 = c^2 + 9 s^2; u = e2 with c, s swapped.
    expected = [
        (s**2 + 3 * c**2) / np.sqrt(s**2 + 9 * c**2),
        (c**2 + 3 * s**2) / np.sqrt(c**2 + 9 * s**2),
    ]
    found = measures.of_predictor(w, *measures.spectrum(np.diag([1.0, 2.0])))
    np.testing.assert_allclose(found["cosine"], expected, rtol=1e-12)
    assert found["alignment"] == pytest.approx(np.mean(expected), rel=1e-12)
    # FW - WF of 2 x 2 symmetric matrices has the entries +-(2 - 1) W_12.
    commutator = np.sqrt(2) * abs(w[0, 1]) / np.sqrt(2 * 5 * 10)
    assert found["commutator"] == pytest.approx(commutator, rel=1e-12)


def test_of_predictor__antisymmetric_and_zero():
    modes = measures.spectrum(np.diag([1.0, 2.0]))
    quarter = measures.of_predictor(np.array([[0.0, -1.0], [1.0, 0.0]]), *modes)
    assert (quarter["asymmetry"], quarter["alignment"]) == (1, 0)
    assert quarter["exponent"] is None
    zero = measures.of_predictor(np.zeros((2, 2)), *modes)
    assert (zero["asymmetry"], zero["alignment"], zero["commutator"]) == (0, 0, 0)


def test_of_views__the_isotropic_linear_model():
    """f = W x, z = tau W x with x = xbar + noise: tau and sigma^2 come back."""
    rng = np.random.default_rng(0)
    w, n, tau, variance = rng.normal(size=(4, 6)), 200_000, 0.6, 0.3
    xbar = rng.normal(size=(n, 6))
    f1, f2 = (
        (xbar + np.sqrt(variance) * rng.normal(size=(n, 6))) @ w.T for _ in range(2)
    )
    own, across = np.mean(np.sum(f1 * f1, 1)), np.mean(np.sum(f1 * f2, 1))
    found = measures.of_views(own, across, np.mean(np.sum(tau * f1 * f1, 1)))
    assert found["tau"] == pytest.approx(tau, rel=1e-12)
    assert found["variance"] == pytest.approx(variance, rel=0.02)
    assert measures.of_views(0.0, 0.0, 0.0) == {"tau": None, "variance": None}


# In training.


class Board:
    def __init__(self):
        self.found = []

    def scalars(self, values):
        self.found.append(values)

    def histograms(self, values):
        assert set(values) <= {"spectrum/log10_F", "spectrum/W"}


def monitored(tmp_path, predictor=None, every=0, epochs=2):
    model = toys.model(predictor)
    model.compile(SGD(0.1))
    board = Board()
    callback = TheoryMonitor(tmp_path / "theory.jsonl", every, board)
    toys.fit(model, toys.views(5), callbacks=[callback], epochs=epochs)
    return model, callback, board


@pytest.mark.parametrize(("every", "steps"), [(0, [5, 10]), (2, [2, 4, 5, 6, 8, 10])])
def test_monitor__when(every, steps, tmp_path):
    _, callback, _ = monitored(tmp_path, every=every)
    assert [entry["step"] for entry in callback.entries] == steps
    lines = (tmp_path / "theory.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == callback.entries


def test_monitor__what(tmp_path):
    model, callback, board = monitored(tmp_path, Direct(eps=0.0))
    last = callback.entries[-1]
    f = np.array(model.predictor.correlation, np.float64)
    w = np.array(model.predictor.matrix.numpy(), np.float64)
    s, u = measures.spectrum(f)
    np.testing.assert_allclose(last["eigenvalues"], s, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(last["p"], np.diag(u.T @ w @ u), rtol=1e-3, atol=1e-6)
    # DirectPred is aligned by construction, and p = sqrt(s) with eps = 0.
    assert last["alignment"] == pytest.approx(1, abs=1e-5)
    assert last["exponent"] == pytest.approx(0.5, abs=1e-3)
    assert 0 < last["feature_std"] < 2
    mean = model.predictor.mean.numpy()
    centered = np.linalg.eigvalsh(f - np.outer(mean, mean))
    assert last["centered_rank"] == pytest.approx(
        measures.effective_rank(centered), rel=1e-3
    )
    assert board.found[-1]["spectrum/alignment"] == last["alignment"]
    largest = board.found[-1]["spectrum/largest_eigenvalue"]
    assert largest == pytest.approx(s[0], rel=1e-6)


def test_monitor__tau_and_variance_of_the_last_batch(tmp_path):
    """Against the networks themselves, before the step that moves them."""
    model = toys.model(batch_norm=False)
    model.compile(SGD(0.0))
    pair = toys.views(1)
    toys.fit(model, pair, tau=1.0)
    f1, f2 = (model.online(view[0], training=True)[1].numpy() for view in pair)
    z1, z2 = (model.target(view[0], training=True)[1].numpy() for view in pair)
    own = (np.sum(f1 * f1) + np.sum(f2 * f2)) / 2
    found = measures.of_views(*model.view_moments.read())
    target = (np.sum(z1 * f1) + np.sum(z2 * f2)) / 2
    assert found["tau"] == pytest.approx(target / own, rel=1e-4)
    assert found["variance"] == pytest.approx(own / np.sum(f1 * f2) - 1, rel=1e-3)


def test_monitor__a_predictor_without_a_matrix(tmp_path):
    _, callback, _ = monitored(tmp_path, MLP())
    assert "alignment" not in callback.entries[-1]
    assert callback.entries[-1]["effective_rank"] > 1


def test_monitor__resume_drops_what_comes_again(tmp_path):
    _, callback, _ = monitored(tmp_path, every=2)
    again = TheoryMonitor(callback.path, 2)
    again.resume(6)
    assert [entry["step"] for entry in again.entries] == [2, 4, 5, 6]


def test_monitor__no_line_for_what_is_not_finite(tmp_path):
    model = toys.model()
    model.compile(SGD(0.1))
    callback = TheoryMonitor(tmp_path / "theory.jsonl")
    first, second = toys.views(1)
    first[0, 0, 0] = np.nan
    toys.fit(model, (first, second), callbacks=[callback])
    assert read_lines(callback.path) == []


def test_monitor__after_a_line_that_was_cut_short(tmp_path, monkeypatch):
    """A disk that is full in the middle of a line, and later is not."""
    callback = TheoryMonitor(tmp_path / "theory.jsonl")
    callback.add({"step": 1})

    def write(path, mode):
        with open(path, mode) as file:
            file.write('{"st')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(type(callback.path), "open", write)
        callback.add({"step": 2})
    callback.add({"step": 3})
    lines = callback.path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
