"""The files of an export: each is written, loaded again, run, and compared."""

from __future__ import annotations

import errno
import importlib.util
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.errors import RunFailed
from tf_dpred.system import quiet

KERAS_FILE = "encoder.keras"
# Of the largest value of the representation; converters reorder sums of float32.
TOLERANCE = 1e-3
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


class Format(NamedTuple):
    """A way to write an encoder.

    Attributes:
      name: of the file, or of the format where there are several files.
      needs: packages.
      write: into a directory.
      run: what lies in a directory, on images [1, s, s, 3] -> representation [1, r].
      expected: of what was written, before it was: images -> representation.
    """

    name: str
    needs: tuple[str, ...]
    write: Callable[[Path], object]
    run: Callable[[Path, np.ndarray], np.ndarray]
    expected: Callable[[np.ndarray], np.ndarray]


def write(directory: Path, formats: Sequence[Format], shape: Sequence[int]) -> None:
    """Writes every format that works; one that does not is left out with a warning.

    Converters may fail, or write a file that cannot be used, for a backbone with an
    operation that they do not know.

    Args:
      directory: to write into; it is made.
      formats: of one encoder.
      shape: of an image, [s, s, C].

    Raises:
      RunFailed: none works.
      OSError: the disk is full or fails.
    """
    directory.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (1, *shape)).astype(np.float32)
    written = 0
    for one in formats:
        if not all(map(importlib.util.find_spec, one.needs)):
            logging.info("no %s: pip install 'tf-dpred[export]' for it", one.name)
            continue
        before = set(directory.iterdir())
        try:
            # Converters log tracebacks of what they then do in another way, and a line
            # for each operation that they do not know; what comes of them is looked at.
            with quiet.nothing_logged(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one.write(directory)
                found = np.asarray(one.run(directory, images))
                _check(found, np.asarray(one.expected(images)))
            written += 1
        except Exception as error:  # converters raise anything
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            for path in set(directory.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            logging.warning("left out %s, which does not work: %s", one.name, reason)
    if not written:
        raise RunFailed("no format of the export works; the warnings say why")


def _check(found: np.ndarray, expected: np.ndarray) -> None:
    if found.shape != expected.shape:
        raise ValueError(f"its output has shape {found.shape}, not {expected.shape}")
    largest = np.abs(expected).max()
    if not np.allclose(found, expected, 0, TOLERANCE * largest, equal_nan=True):
        difference = np.abs(found - expected).max()
        raise ValueError(f"it differs by {difference:.2g} of {largest:.2g}")


def saved_model(servable: Callable, signatures: dict) -> Format:
    """A module: images -> a dict with `representation`."""
    return Format(
        "SavedModel",
        (),
        lambda path: tf.saved_model.save(servable, str(path), signatures=signatures),
        lambda path, images: tf.saved_model.load(str(path))(images)["representation"],
        lambda images: servable(images)["representation"],
    )


def of_keras(bare: keras.Model) -> list[Format]:
    """A model images -> representation as .keras, ONNX and LiteRT."""
    images = tf.TensorSpec(bare.input_shape, tf.float32, name="images")

    def exported(name: str, kind: str) -> Callable[[Path], object]:
        return lambda path: bare.export(
            str(path / name), format=kind, verbose=False, input_signature=[images]
        )

    def convert_to_onnx(path: Path) -> None:
        _teach_erfc()
        exported(onnx, "onnx")(path)

    onnx, tflite = "encoder.onnx", "encoder.tflite"
    return [
        Format(
            KERAS_FILE,
            (),
            lambda path: bare.save(path / KERAS_FILE),
            _run_keras,
            bare,
        ),
        Format(
            onnx,
            ("tf2onnx", "onnxruntime"),
            convert_to_onnx,
            lambda path, given: _run_onnx(path / onnx, given),
            bare,
        ),
        Format(
            tflite,
            ("ai_edge_litert",),
            exported(tflite, "litert"),
            lambda path, given: _run_litert(path / tflite, given),
            bare,
        ),
    ]


def _teach_erfc() -> None:
    """Tells tf2onnx that erfc(x) = 1 - erf(x): TensorFlow's GELU has it."""
    from tf2onnx import utils
    from tf2onnx.handler import tf_op

    class Erfc:
        @classmethod
        def version_9(cls, graph, node, **_) -> None:
            [x], outputs = node.input, list(node.output)
            shapes, dtypes = node.output_shapes, node.output_dtypes
            one = np.ones([1], utils.map_onnx_to_numpy_type(dtypes[0]))
            graph.remove_node(node.name)
            erf = graph.make_node("Erf", [x], shapes=shapes, dtypes=dtypes)
            ones = graph.make_const(utils.make_name("one"), one)
            inputs = [ones.output[0], erf.output[0]]
            graph.make_node(
                "Sub", inputs, outputs=outputs, shapes=shapes, dtypes=dtypes
            )

    tf_op("Erfc")(Erfc)


def _run_keras(path: Path, images: np.ndarray) -> np.ndarray:
    return keras.saving.load_model(path / KERAS_FILE, safe_mode=True)(images)


def _run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    [given] = session.get_inputs()
    [found] = session.run(None, {given.name: images})
    return found


def _run_litert(path: Path, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(str(path))
    model.allocate_tensors()
    [given], [taken] = model.get_input_details(), model.get_output_details()
    model.set_tensor(given["index"], images)
    model.invoke()
    return model.get_tensor(taken["index"])
