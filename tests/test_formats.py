"""Only what works is published: each file is loaded, run and compared."""

import errno
import sys
import types

import keras
import numpy as np
import pytest
from absl import logging

from tf_dpred.config import Config
from tf_dpred.encoders import embed, export, formats, restore, settings
from tf_dpred.errors import RunFailed


def write_file(name, content="text"):
    return lambda directory: (directory / name).write_text(content)


def fails(error):
    def raise_it(*arguments):
        raise error

    return raise_it


def mean(images):
    return images.mean((1, 2))


def good(name="good"):
    return formats.Format(
        name, (), write_file(name), lambda path, images: mean(images), mean
    )


def wrong(**changed):
    return good("wrong")._replace(**changed)


WRONG = {
    "the converter raises": (
        {"write": fails(ValueError("no such op\nX"))},
        "ValueError: no such op X",
    ),
    "after it has written": (
        {
            "write": lambda path: (
                (path / "wrong").mkdir(),
                write_file("wrong/part")(path),
                fails(KeyError("op"))(),
            )
        },
        "KeyError",
    ),
    "it cannot be loaded": ({"run": fails(RuntimeError("bad"))}, "RuntimeError: bad"),
    "it gives other numbers": (
        {"run": lambda path, images: 1.01 * mean(images)},
        "it differs by",
    ),
    "it gives no numbers": (
        {"run": lambda path, images: np.nan * mean(images)},
        "it differs by nan",
    ),
    "it gives another shape": (
        {"run": lambda path, images: mean(images)[0]},
        "its output has shape (3,), not (1, 3)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_write__leaves_out_what_does_not_work(case, tmp_path, caplog):
    changed, reason = WRONG[case]
    ways = [good("first"), wrong(**changed), good("last")]
    formats.write(tmp_path / "export", ways, (4, 4, 3))
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["first", "last"]
    assert "left out wrong, which does not work: " in caplog.text
    assert reason in caplog.text


def test_write__rounding_is_no_difference(tmp_path, caplog):
    near = wrong(run=lambda path, images: (1 + 1e-5) * mean(images))
    formats.write(tmp_path / "export", [near], (4, 4, 3))
    assert (tmp_path / "export" / "wrong").exists() and caplog.text == ""


def test_write__nothing_works(tmp_path):
    with pytest.raises(RunFailed, match="no format of the export works"):
        formats.write(
            tmp_path / "export", [wrong(write=fails(ValueError("x")))], (4, 4, 3)
        )


def test_write__a_full_disk_is_an_error(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left"):
        formats.write(
            tmp_path / "export", [good(), wrong(write=fails(full))], (4, 4, 3)
        )


def test_write__what_is_not_installed(tmp_path, caplog):
    logging.set_verbosity(logging.INFO)
    formats.write(
        tmp_path / "export", [good(), wrong(needs=("no_such_package",))], (4, 4, 3)
    )
    assert "no wrong: pip install 'tf-dpred[export]' for it" in caplog.text


@pytest.fixture
def encoder():
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, 2)(images / 255.0)
    representation = keras.layers.GlobalMaxPooling2D()(x)
    outputs = [representation, keras.layers.Dense(3)(representation)]
    config = Config.from_dict({"image_size": 16, "views": "byol"})
    return restore.Encoder(keras.Model(images, outputs), config, "online", 7)


def test_write_encoder__a_converter_that_fails_costs_its_file_alone(
    encoder, tmp_path, monkeypatch, caplog
):
    def convert(model, path, **options):
        with open(path, "w") as file:
            file.write("half")
        raise NotImplementedError("Einsum")

    for name in ("tf2onnx", "onnxruntime", "ai_edge_litert"):
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace()
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(formats, "_teach_erfc", lambda: None)
    monkeypatch.setattr(keras.Model, "export", convert)
    path = export.write_encoder(encoder, tmp_path, tmp_path)
    names = {p.name for p in path.iterdir()}
    assert {"encoder.keras", "saved_model.pb", "model_card.json"} <= names
    assert not names & {"encoder.onnx", "encoder.tflite"}
    for name in ("encoder.onnx", "encoder.tflite"):
        message = f"left out {name}, which does not work: NotImplementedError: Einsum"
        assert message in caplog.text


def test_write_encoder__an_earlier_export_stays_where_nothing_works(
    encoder, tmp_path, monkeypatch
):
    path = export.write_encoder(encoder, tmp_path, tmp_path)
    monkeypatch.setattr(formats, "_check", fails(ValueError("differs")))
    with pytest.raises(RunFailed):
        export.write_encoder(encoder, tmp_path, tmp_path)
    assert (path / "encoder.keras").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["7"]


def test_embed__takes_the_checkpoint_where_the_saved_model_was_left_out(
    encoder, tmp_path
):
    path = export.write_encoder(encoder, tmp_path, tmp_path)
    config = settings.of_encoder({"export_dir": str(tmp_path)})
    assert embed._export_to_use(config) == path
    (path / "saved_model.pb").unlink()
    assert embed._export_to_use(config) is None
