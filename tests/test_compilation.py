"""A compiled run, under JAX: the numbers of the program, and files that it continues.

The runner is started as on a machine of its own: neither TensorFlow nor this package is
imported there.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pjrt_run
import pytest
import tensorflow as tf
import test_smooth_network
from pjrt import streams
from test_recovery import TINY, last, pretraining

from tf_dpred import compilation
from tf_dpred.config import Config, FilesConfig
from tf_dpred.data import cache, pipeline
from tf_dpred.data.source import from_arrays
from tf_dpred.data.views import view_pair
from tf_dpred.encoders.settings import of_encoder
from tf_dpred.errors import Refused
from tf_dpred.main import MODES

CHECKOUT = Path(__file__).parent.parent
# With d below the rank of F: the root of an eigenvalue that is nothing but rounding has
# half of its digits.
ON_DEVICE = {
    "augment_on": "device",
    "cache": "device",
    "batch_size": 8,
    "projector_dim": 6,
}
# The largest difference, over the largest value of a variable.
EXACT = 1e-9


def runner(*arguments, check=True):
    """`python tools/pjrt_run.py ARGUMENTS`, without TensorFlow and this package."""
    hidden = "import sys; sys.modules.update(dict.fromkeys(['tensorflow', 'keras', "
    hidden += "'tf_dpred'])); import runpy; sys.argv = sys.argv[1:]; "
    hidden += "sys.path.insert(0, 'tools'); "
    hidden += "runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", hidden, "tools/pjrt_run.py", *map(str, arguments)]
    environment = {
        "PATH": "/usr/bin:/bin",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def written(run, path):
    path.mkdir()
    compilation.write(run, path)
    run.lock.release()
    return path


def compiled(path, workdir, **settings):
    return written(pretraining(str(workdir), **{**ON_DEVICE, **settings}), path)


def difference(found, expected):
    """(of a variable's largest value, its name): the largest; integers are equal."""
    assert found.keys() == expected.keys()
    worst = (0.0, "")
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        if not np.issubdtype(value.dtype, np.floating):
            np.testing.assert_array_equal(found[name], value, err_msg=name)
            continue
        scale = max(np.max(np.abs(value), initial=0), 1e-2)
        largest = np.max(np.abs(found[name] - value), initial=0) / scale
        worst = max(worst, (float(largest), name))
    print(f"{worst[0]:.1e} {worst[1]}")
    return worst


def test_streams__numbers_of_tensorflow():
    images = np.zeros((300, 8, 8, 3), np.uint8)
    source = cache.indices_of(from_arrays(images))
    stream = pipeline.training_views(
        source,
        view_pair("digits"),
        8,
        37,
        seed=5,
        start_step=6,
        distorted=False,
        cropped=False,
    )
    ours = streams.batches(5, 300, 37, 6)  # the end of an epoch of 8 steps, and on
    for expected, found in zip(stream.take(5), ours, strict=False):
        indices, draws1, draws2 = (tensor.numpy() for tensor in expected)
        np.testing.assert_array_equal(found[0], indices)
        np.testing.assert_array_equal(found[1], draws1)
        np.testing.assert_array_equal(found[2], draws2)
    assert streams.NUM_DRAWS == draws1.shape[1]
    assert streams.DRAWN_AT_ONCE == pipeline.DRAWN_AT_ONCE
    big = tf.random.stateless_uniform([1001], [2**40 + 3, -7]).numpy()
    words = streams.random_words((2**40 + 3, -7), 1001) & np.uint32(0x7FFFFF)
    np.testing.assert_array_equal(big, words.astype(np.float32) / 2**23)


TWENTY = {**ON_DEVICE, "precision": "float64", "train_size": 40, "epochs": 4}


def test_run__trains_as_the_program(tmp_path):
    """In float64, on two devices; kNN and the lines of the epochs as well."""
    evaluated = {"knn_every": 2, "knn_train_size": 40, "knn_test_size": 40}
    settings = {**TWENTY, **evaluated}
    pretraining(str(tmp_path / "tf"), **settings).train()
    path = compiled(tmp_path / "compiled", tmp_path / "none", **settings)
    runner(path, "--workdir", tmp_path / "jax", "--devices=2")
    assert difference(last(tmp_path / "jax"), last(tmp_path / "tf")) < (EXACT,)
    ours, expected = (
        [json.loads(line) for line in (tmp_path / name / "epochs.jsonl").open()]
        for name in ("jax", "tf")
    )
    for line, other in zip(ours, expected, strict=True):
        assert line.keys() == other.keys()
        assert line == pytest.approx(other, rel=1e-6)
    result = json.loads((tmp_path / "jax" / "result.json").read_text())
    assert result.keys() == json.loads((tmp_path / "tf/result.json").read_text()).keys()
    config = of_encoder({"workdir": str(tmp_path / "jax")})
    assert config.training.precision == "float64"


@pytest.mark.slow
def test_run__each_continues_the_other(tmp_path):
    pretraining(str(tmp_path / "whole"), **TWENTY).train()
    expected = last(tmp_path / "whole")
    path = compiled(tmp_path / "compiled", tmp_path / "none", **TWENTY)

    # JAX up to the middle of an epoch, then the program.
    runner(path, "--workdir", tmp_path / "first", "--steps=7")
    resumed = pretraining(str(tmp_path / "first"), **TWENTY)
    assert resumed.model.steps_done == 7
    resumed.train()
    assert difference(last(tmp_path / "first"), expected) < (EXACT,)

    # The program up to the end of an epoch, then JAX, with the host's images.
    pretraining(str(tmp_path / "second"), **{**TWENTY, "epochs": 2}).train()
    runner(path, "--workdir", tmp_path / "second", "--stream")
    assert difference(last(tmp_path / "second"), expected) < (EXACT,)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A compiled directory that no test changes."""
    path = tmp_path_factory.mktemp("compiled")
    return compiled(path / "small", path / "none", train_size=16)


def test_run__refuses_in_one_line(small, tmp_path, monkeypatch, capsys):
    changed = json.loads((small / "program.json").read_text())["record"]
    changed["flags"]["base_lr"] = 9.0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "flags.json").write_text(json.dumps(changed))
    shutil.copytree(small, tmp_path / "damaged")
    content = (small / "state.npz").read_bytes()
    (tmp_path / "damaged" / "state.npz").write_bytes(content[:-1])
    workdir = f"--workdir={tmp_path / 'new'}"
    for arguments, words in (
        ([tmp_path, workdir], "directory: received"),
        ([small], "--workdir: received None"),
        ([small, "--time=0"], "--time: received 0"),
        ([small, workdir, "--devices=9"], "--devices: received 9"),
        ([small, f"--workdir={tmp_path / 'other'}"], "base_lr: 9.0 -> 0.06"),
        ([tmp_path / "damaged", workdir], "damaged state.npz"),
    ):
        monkeypatch.setattr(sys, "argv", ["pjrt_run.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            pjrt_run.main()
        assert ended.value.code == 2
        assert words in capsys.readouterr().err


def test_write__manifest(small):
    path = small
    manifest = json.loads((path / "program.json").read_text())
    assert set(manifest["sha256"]) == {
        "forward.stablehlo",
        "images.npz",
        "state.npz",
        "step.stablehlo",
    }
    step = manifest["programs"]["step"]
    assert step["arguments"]["images"] == [[8, 32, 32, 3], "uint8"]
    assert {"logs/loss", "logs/feature_std", "logs/lr", "logs/tau"} <= set(
        step["results"]
    )
    state = np.load(path / "state.npz")
    assert set(step["arguments"]) == set(state.files) | {"images", "draws1", "draws2"}
    for name, (shape, dtype) in step["arguments"].items():
        if name in state.files:
            assert [list(state[name].shape), state[name].dtype.name] == [shape, dtype]
    # No names of this machine's files.
    for name in ("step", "forward"):
        assert str(CHECKOUT).encode() not in (path / f"{name}.stablehlo").read_bytes()


@pytest.mark.parametrize(
    "given, words",
    [
        ({"augment_on": "host"}, "--augment_on: received 'host'"),
        ({"cache": "none"}, "--cache: received 'none'"),
        ({"keep_last_batch": True}, "--keep_last_batch: received True"),
    ],
)
def test_compile__settings(given, words):
    with pytest.raises(Refused, match=words):
        MODES["compile"].settings(given)
    assert MODES["compile"].settings({}).data.cache == "device"


@pytest.mark.parametrize("existing", [None, "a file", "a directory of others"])
def test_compile__output(existing, tmp_path):
    path = tmp_path / "out"
    if existing == "a file":
        path.touch()
    if existing == "a directory of others":
        path.mkdir()
        (path / "thesis.tex").touch()
    files = FilesConfig(output=None if existing is None else str(path))
    with pytest.raises(Refused, match="--output: received"):
        compilation.run(Config.from_dict(TINY | ON_DEVICE), files)


# Each pixel stays what it is but for the flip: no rounding makes it another one.
FLIPPED = {
    "crop_scale": "1,1",
    "crop_ratio": "1,1",
    "flip": 0.5,
    "jitter_probability": 0.0,
    "blur": 0.0,
}
# Of twenty steps of a smooth backbone, as docs/devices.md has them of several devices.
PROOF = {
    **ON_DEVICE,
    **FLIPPED,
    "image_size": 32,
    "train_size": 320,
    "batch_size": 32,
    "epochs": 2,
    "projector_dim": 16,
}
SMALL = {"predictor_hidden": 16}
METHODS = {
    "directpred": {},
    "newton_schulz": {"solver": "newton_schulz"},
    "freq": {"freq": 5},
    "byol": {"method": "byol", **SMALL},
    "simsiam": {"method": "simsiam", "lr_schedule": "cosine", **SMALL},
    "lars": {"optimizer": "lars", "base_lr": 0.3, "warmup_epochs": 0.0},
    "accumulation": {"accumulation_steps": 4},
    "warm_up": {"optimizer": "lars", "base_lr": 0.3, "warmup_epochs": 1.0},
}
# Keras' schedules compute the rate in float32, and XLA may round it to the other side.
RATE = 1e-7


def trained(path, **settings):
    run = pretraining(str(path), make=test_smooth_network.backbone, **settings)
    run.train()
    return last(path)


def trained_by_runner(tmp_path, **settings):
    run = pretraining(
        str(tmp_path / "none"), make=test_smooth_network.backbone, **settings
    )
    written(run, tmp_path / "compiled")
    runner(tmp_path / "compiled", "--workdir", tmp_path / "jax")
    return last(tmp_path / "jax")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_run__twenty_steps(name, tmp_path):
    settings = {**PROOF, **METHODS[name], "precision": "float64"}
    expected = trained(tmp_path / "tf", **settings)
    worst = difference(trained_by_runner(tmp_path, **settings), expected)
    print(f"{name}: {worst[0]:.1e} {worst[1]}")
    assert worst < (RATE if name == "warm_up" else EXACT,)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_run__twenty_rounded_steps(precision, tmp_path):
    """As far from the program as that is from itself, where XLA compiles its step."""
    settings = {**PROOF, "precision": precision}
    expected = trained(tmp_path / "tf", **settings)
    compiled_too = trained(tmp_path / "xla", jit_compile=True, **settings)
    own, _ = difference(compiled_too, expected)
    worst, name = difference(trained_by_runner(tmp_path, **settings), expected)
    print(f"{precision}: {worst:.1e} {name}; TensorFlow's own: {own:.1e}")
    assert worst < 3 * own
