"""What the tests share: reference numbers, real data, precision policies."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest

from tf_dpred.system.devices import set_precision

GOLDEN = Path(__file__).parent / "golden"
CHECKOUT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items):
    """What waits for processes of its own comes first, beside what computes."""
    items.sort(key=lambda item: item.path.name != "test_workers.py")


@pytest.fixture
def golden():
    """Reads `tests/golden/<name>.npz`."""
    return lambda name: np.load(GOLDEN / f"{name}.npz", allow_pickle=False)


@pytest.fixture
def policy():
    """Sets the precision for one test, as the program does."""
    yield set_precision
    set_precision("float32")


@pytest.fixture(scope="session")
def tfds_dir():
    """Real data in TFDS layout: $TF_DPRED_DATA, or ../shared/data/tfds."""
    default = CHECKOUT.parent / "shared" / "data" / "tfds"
    path = Path(os.environ.get("TF_DPRED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no TFDS data at {path}; set TF_DPRED_DATA")
    return str(path)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """An export of a network of two layers: images of 16 -> 4 and 3 numbers."""
    import keras

    from tf_dpred.config import Config
    from tf_dpred.encoders import export, restore

    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, 2, activation="tanh")(images / 255.0)
    representation = keras.layers.GlobalMaxPooling2D()(x)
    projection = keras.layers.Dense(3)(representation)
    network = keras.Model(images, [representation, projection])
    path = tmp_path_factory.mktemp("export")
    config = Config.from_dict({"image_size": 16})
    encoder = restore.Encoder(network, config, "online", 7)
    return export.write_encoder(encoder, path, path)
