"""A run from Python: in a thread, a notebook, a scope, again and again."""

import threading

import numpy as np
import pytest
from devices import on_two_devices, strategy

from tf_dpred.config import Config
from tf_dpred.errors import Refused


def settings(workdir, **changed):
    return Config.from_dict(
        {
            "image_size": 12,
            "projector_hidden": 8,
            "projector_dim": 4,
            "batch_size": 8,
            "epochs": 1,
            "knn_every": 0,
            "log_every": 99,
            "workdir": str(workdir),
            **changed,
        }
    )


def backbone():
    import keras

    images = keras.Input((12, 12, 3))
    kernel = keras.initializers.HeNormal(seed=0)
    x = keras.layers.Conv2D(4, 3, 2, kernel_initializer=kernel)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def pretraining(workdir, **changed):
    from tf_dpred.data.source import from_arrays
    from tf_dpred.train import Pretraining

    images = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 3), np.uint8)
    config = settings(workdir, **changed)
    return Pretraining(config, source=from_arrays(images), backbone=backbone)


def weights(run):
    import keras

    return [keras.ops.convert_to_numpy(v) for v in run.model.online.variables]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_train__made_here_and_trained_in_a_thread(tmp_path, policy, precision):
    """Keras keeps its precision for each thread; the run has its own."""
    here = pretraining(tmp_path / "here", precision=precision)
    here.train()
    there = pretraining(tmp_path / "there", precision=precision)
    inside = []

    def all_of_it():
        inside.append(pretraining(tmp_path / "inside", precision=precision))
        inside[0].train()

    for target in (there.train, all_of_it):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    for run in (there, inside[0]):
        assert run.model.steps_done == 2
        for found, expected in zip(weights(run), weights(here), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_train__twice_in_one_process(tmp_path):
    """The second goes on where the first ended; one that was left alone is no harm."""
    pretraining(tmp_path)
    pretraining(tmp_path).train()
    again = pretraining(tmp_path, epochs=2)
    assert again.restored.name == "step-00000002.npz"
    assert again.train()["step"] == 4


def _on_two(workdir):
    """A user's scope around all of it, around the making alone, and none."""
    found = {}
    with strategy(2).scope():
        whole = pretraining(workdir + "/whole")
        assert whole.strategy is strategy(2)
        whole.train()
        made = pretraining(workdir + "/made")
        with pytest.raises(Refused, match="received 'one' in the scope of a Mirrored"):
            pretraining(workdir + "/other", strategy="one")
    made.train()
    for name, run in (("whole", whole), ("made", made)):
        found[name] = [v.value.values[0].numpy() for v in run.model.online.variables]
    return found


def test_train__in_the_scope_of_a_users_strategy(tmp_path):
    found = on_two_devices(_on_two, str(tmp_path))
    alone = pretraining(tmp_path / "alone")
    alone.train()
    for name in ("whole", "made"):
        for ours, expected in zip(found[name], weights(alone), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)


def _split_twice(workdir):
    """As many devices as there are already, and the same strategy for both runs."""
    runs = [pretraining(f"{workdir}/{i}", logical_cpus=2) for i in range(2)]
    for run in runs:
        run.train()
    return runs[0].strategy is runs[1].strategy


def test_train__twice_on_split_devices(tmp_path):
    assert on_two_devices(_split_twice, str(tmp_path))


def test_figures__leave_the_backend_of_a_notebook(tmp_path):
    """`%matplotlib inline` stays inline, and no figure of ours is among the user's."""
    import matplotlib
    from matplotlib import pyplot as plt

    before = matplotlib.get_backend()
    try:
        plt.switch_backend("svg")
        plt.figure()
        from tf_dpred.theory import figures

        list(figures.draw(["3"], tmp_path))
        assert matplotlib.get_backend() == "svg"
        assert len(plt.get_fignums()) == 1
    finally:
        plt.close("all")
        plt.switch_backend(before)
