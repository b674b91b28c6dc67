"""What the tests share: reference numbers, real data, precision policies."""

import gc
import os
from pathlib import Path

import hypothesis
import numpy as np
import pytest

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Processes that tests start import the same modules.
own = [str(CHECKOUT), str(TESTS), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, own))
GOLDEN = TESTS / "golden"
# The same examples every time: a test that fails, fails for a change.
hypothesis.settings.register_profile(
    "tests",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items):
    """What waits for processes of its own comes first, beside what computes.

    First of all the longest; and all of it together, so that few pytest workers start
    the process that those are forked from.
    """

    def order(item):
        needs = {"processes", "on_devices", "on_two_devices"} & vars(item.module).keys()
        return item.path.name != "test_workers.py", not needs

    items.sort(key=order)


def pytest_collection_finish():
    """TensorFlow's modules are left out of the search for garbage.

    A graph in the making is a lot of new objects, after which Python would look through
    all that there are again and again: a tenth of the time of all tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture
def golden():
    """Reads `tests/golden/<name>.npz`."""
    return lambda name: np.load(GOLDEN / f"{name}.npz", allow_pickle=False)


@pytest.fixture
def policy():
    """Sets the precision for one test, as the program does."""
    # Here: the process that only hands out tests needs no TensorFlow.
    from tf_dpred.system.devices import set_precision

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
