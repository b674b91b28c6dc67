"""Real images, 20 steps, 1, 2 and 4 devices: float32 where no ReLU can flip.

Rounding next to 0 turns a ReLU's gradient on or off; a large network does that in every
step (docs/devices.md). The backbone here is smooth, and the projector small.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tf_dpred.networks.normalization import BatchNormalization

CHECKOUT = Path(__file__).parent.parent
BOUND = {"float64": 1e-9, "float32": 1e-4}


def backbone():
    """Three convolutions with BatchNorm and softplus, pooled: [n, 32, 32, 3] -> 32."""
    images = x = keras.Input((32, 32, 3))
    for layer in range(3):
        initializer = keras.initializers.HeNormal(seed=layer)
        x = keras.layers.Conv2D(
            8 * 2**layer, 3, 2, use_bias=False, kernel_initializer=initializer
        )(x)
        x = keras.layers.Activation("softplus")(BatchNormalization()(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def train(settings):
    """One run in this process; writes its last variables and losses."""
    from tf_dpred.config import Config
    from tf_dpred.records.state import training_state
    from tf_dpred.train import Pretraining

    out = settings.pop("out")
    run = Pretraining(Config.from_dict(settings), backbone=backbone)
    result = run.train()
    state = {k: v.numpy() for k, v in training_state(run.model).items()}
    np.savez(out, loss=result["loss"], **state)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("freq", [1, 5])
def test_devices__real_images(freq, precision, tfds_dir, tmp_path):
    found = {}
    for devices in (1, 2, 4):
        out = tmp_path / f"{devices}.npz"
        settings = {
            "dataset": "cifar10",
            "data_dir": tfds_dir,
            "views": "cifar",
            "image_size": 32,
            "train_size": 640,
            "batch_size": 32,
            "epochs": 1,
            "warmup_epochs": 0.0,
            "optimizer": "lars",
            "base_lr": 0.3,
            "projector_hidden": 32,
            "projector_dim": 16,
            "freq": freq,
            "precision": precision,
            "knn_every": 0,
            "quality_every": 0,
            "deterministic": True,
            "logical_cpus": devices,
            "workdir": str(tmp_path / f"run{devices}"),
            "out": str(out),
        }
        env = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT}/tests"}
        code = "import json, sys, test_smooth_network as t\n"
        code += "t.train(json.loads(sys.argv[1]))"
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(settings)], env=env, check=True
        )
        found[devices] = dict(np.load(out))
    for devices in (2, 4):
        worst = max(
            (np.max(np.abs(found[devices][k] - v)) / max(np.max(np.abs(v)), 1e-2), k)
            for k, v in found[1].items()
            if np.issubdtype(v.dtype, np.floating)
        )
        print(f"{precision}, freq {freq}, {devices} devices: {worst[0]:.1e} {worst[1]}")
        assert worst[0] < BOUND[precision], worst
