"""Evaluations: the state of the process, and what is left of a result."""

import errno
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, FilesConfig
from tf_dpred.data.source import from_arrays
from tf_dpred.encoders import restore
from tf_dpred.errors import OutOfMemory, Refused
from tf_dpred.evaluation import evaluate, labelled
from tf_dpred.records import results
from tf_dpred.system import devices


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Of an encoder that flattens, and of bright and dark images."""
    config = Config.from_dict(
        {"views": "digits", "image_size": 8, "workdir": str(tmp_path)}
    )
    image = keras.Input((8, 8, 3))
    outputs = [keras.layers.Flatten()(image), keras.layers.GlobalMaxPooling2D()(image)]
    encoder = restore.Encoder(keras.Model(image, outputs), config, "online", 7)
    labels = np.arange(20) % 2
    noise = np.random.default_rng(0).integers(0, 50, (20, 8, 8, 3))
    noise[..., 0] += 200 * labels[:, None, None]
    source = from_arrays(noise.astype(np.uint8), labels)
    monkeypatch.setattr(restore, "open_encoder", lambda config: encoder)
    monkeypatch.setattr(labelled, "require_splits", lambda config: (source, source))
    return config


def test_knn__prints_a_table_and_writes(config, tmp_path, capsys):
    evaluate.knn(config, FilesConfig())
    assert "| encoder        | top-1  | top-5 | chosen" in capsys.readouterr().out
    path = tmp_path / "evaluation" / "knn-digits-online" / "result.json"
    assert json.loads(path.read_text())["top1"] == 1.0


def test_knn__a_full_disk_does_not_lose_the_number(config, monkeypatch, caplog, capsys):
    def full(workdir, result):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results, "write", full)
    logging.set_verbosity(logging.INFO)
    with pytest.raises(OSError, match="No space left"):
        evaluate.knn(config, FilesConfig())
    assert "online, step 7: top-1 1.0000, top-5 - (k=1, T=0.02)" in caplog.text
    assert "the result of knn is not kept: [Errno 28] No space left" in caplog.text
    assert "| online, step 7 | 1.0000 |" in capsys.readouterr().out


@pytest.mark.parametrize("in_the_way", ["evaluation", "evaluation/knn-digits-online"])
def test_knn__a_directory_that_cannot_be_written_is_known_before(
    in_the_way, config, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate.Evaluation, "_compute", None)
    path = tmp_path / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file")
    line = "--workdir: received .*/evaluation/knn-digits-online, which cannot be wr"
    with pytest.raises(Refused, match=f"^{line}"):
        evaluate.knn(config, FilesConfig())
    assert capsys.readouterr().out == ""


def test_knn__a_shortage_of_memory_is_a_line(config, monkeypatch):
    def hungry(mode):
        raise MemoryError("Unable to allocate 7 TiB")

    evaluation = evaluate.Evaluation(config)
    monkeypatch.setattr(evaluation, "_compute", hungry)
    with pytest.raises(OutOfMemory) as failure:
        evaluation.run("knn")
    assert str(failure.value) == (
        "out of memory (Unable to allocate 7 TiB): lower --eval_batch_size, or "
        "evaluate on fewer images (--eval_train_split)"
    )


def test_setup__float32_to_the_last_bit_whatever_the_training_was(policy):
    policy("mixed_bfloat16")
    tf.config.experimental.enable_tensor_float_32_execution(True)
    config = Config.from_dict({"precision": "mixed_bfloat16", "batch_size": 3})
    devices.prepare(config.training, "float32")
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    assert keras.config.dtype_policy().name == "float32"
