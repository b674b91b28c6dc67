"""Writes what tests/test_stored.py reads, in the format version of this checkout.

    python tests/stored/make.py

Only for a new format version, beside the old one: what a released version wrote must
keep loading, so nothing here is ever overwritten.
"""

import shutil
from pathlib import Path

import keras
import numpy as np

import tf_dpred  # noqa: F401, chooses TensorFlow's kernels before that loads
from tf_dpred import train
from tf_dpred.config import Config
from tf_dpred.encoders import export, restore, settings
from tf_dpred.records import checkpoints

SETTINGS = {
    "width": 1 / 64,
    "image_size": 8,
    "projector_hidden": 4,
    "projector_dim": 2,
    "batch_size": 16,
    "train_size": 16,
    "epochs": 1,
    "knn_every": 0,
}


def small_network() -> keras.Model:
    """A network whose SavedModel is small; only its outputs matter."""
    images = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(3, 3, 2)(images)
    representation = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, [representation, keras.layers.Dense(2)(representation)])


def images() -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def main() -> None:
    here = Path(__file__).parent
    workdir = here / f"checkpoint_v{checkpoints.CHECKPOINT_VERSION}"
    exports = here / f"export_v{settings.EXPORT_VERSION}"
    if workdir.exists() or exports.exists():
        raise SystemExit(f"{workdir} or {exports} exists already")
    config = Config.from_dict(SETTINGS | {"workdir": str(workdir)})
    run = train.Pretraining(config)
    run.train()
    np.save(workdir / "representation.npy", run.model(images(), training=False))
    recorded = (workdir / "flags.json").read_text()
    (workdir / "flags.json").write_text(recorded.replace(str(workdir), "runs/stored"))
    shutil.rmtree(workdir / "tensorboard")
    for name in (".lock", "epochs.jsonl", "result.json"):
        (workdir / name).unlink()

    network = small_network()
    encoder = restore.Encoder(network, config, "online", 1)
    export.write_encoder(encoder, exports, workdir)
    np.save(exports / "representation.npy", network(images())[0])


if __name__ == "__main__":
    main()
