"""Checkpoints and exports of released format versions keep loading (tests/stored)."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_dpred import build
from tf_dpred.callbacks.checkpointing import Checkpointing
from tf_dpred.config import Config
from tf_dpred.data.views import view_pair
from tf_dpred.encoders import formats, restore, settings
from tf_dpred.errors import Refused
from tf_dpred.records import checkpoints

STORED = Path(__file__).parent / "stored"
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "workdir", sorted(STORED.glob("checkpoint_v*")), ids=lambda path: path.name
)
def test_stored__checkpoint(workdir):
    path, _ = checkpoints.load_latest(workdir / "checkpoints")
    with np.load(path) as file:
        assert f"checkpoint_v{file['format_version']}" == workdir.name
    encoder = restore.open_encoder(settings.of_encoder({"workdir": str(workdir)}))
    found = encoder.network(IMAGES, training=False)[0]
    expected = np.load(workdir / "representation.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)

    # All of it: a training that continues needs the rest as well.
    recorded = json.loads((workdir / "flags.json").read_text())["flags"]
    config = Config.from_dict(recorded)
    model = build.model(config, 1, view_pair(config.data.views))
    Checkpointing(model, workdir / "checkpoints", steps_per_epoch=1).restore()
    assert int(model.optimizer.iterations) == 1
    found = model(IMAGES, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "directory", sorted(STORED.glob("export_v*")), ids=lambda path: path.name
)
def test_stored__export(directory):
    path = settings.newest_export(directory)
    card = json.loads((path / "model_card.json").read_text())
    assert f"export_v{card['format_version']}" == directory.name
    expected = np.load(directory / "representation.npy")
    outputs = tf.saved_model.load(str(path))(IMAGES)
    np.testing.assert_allclose(outputs["representation"], expected, rtol=1e-4)
    config = settings.of_encoder({"export_dir": str(directory)})
    encoder = restore.open_encoder(config)
    np.testing.assert_allclose(encoder.network(IMAGES), expected, rtol=1e-4)


def test_stored__a_version_that_is_not_known(tmp_path):
    card = {"format_version": 99, "flags": {}}
    (tmp_path / "model_card.json").write_text(json.dumps(card))
    with pytest.raises(Refused, match="of format version 99, accepted: 1"):
        settings.of_encoder({"export_dir": str(tmp_path)})


def test_export__code_in_a_keras_file_is_not_run(tmp_path):
    shutil.copytree(sorted(STORED.glob("export_v*"))[0], tmp_path / "export")
    path = settings.newest_export(tmp_path / "export")
    image = keras.Input((8, 8, 3))
    output = keras.layers.Lambda(lambda x: x[:, 0, 0])(image)
    keras.Model(image, output).save(path / formats.KERAS_FILE)
    config = settings.of_encoder({"export_dir": str(tmp_path / "export")})
    with pytest.raises(Refused, match=r"^--export_dir: .*safe_mode=False"):
        restore.open_encoder(config)


def test_export__a_keras_file_that_was_cut_short(tmp_path):
    shutil.copytree(sorted(STORED.glob("export_v*"))[0], tmp_path / "export")
    path = settings.newest_export(tmp_path / "export") / formats.KERAS_FILE
    path.write_bytes(path.read_bytes()[:-100])
    config = settings.of_encoder({"export_dir": str(tmp_path / "export")})
    with pytest.raises(Refused, match=r"encoder\.keras that cannot be loaded"):
        restore.open_encoder(config)
