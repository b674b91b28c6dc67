"""An encoder for use elsewhere: SavedModel, .keras, ONNX, LiteRT and a model card.

export/<step>/
  saved_model.pb, variables/   preprocessing and both outputs; TensorFlow alone
  encoder.keras                square images -> representation, for Keras
  encoder.onnx, encoder.tflite the same network where the converters are installed
  model_card.md, .json         what it is, how it was made, what it scores
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.data import image_files, image_ops
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.preprocessing import Preprocessing
from tf_dpred.encoders import card, formats, restore
from tf_dpred.encoders.restore import Encoder
from tf_dpred.records.workdir import Workdir
from tf_dpred.system import devices, files, quiet

# Of any shape: this package refuses a wrong one in clearer words.
IMAGES = tf.TensorSpec(None, tf.float32, name="images")
ACCEPTED_IMAGES = "accepted: [batch, height, width, {}], uint8 or float in [0, 255]"
ACCEPTED_ENCODED = "accepted: a batch of encoded images, [batch]"


def run(config: Config, files: FilesConfig) -> None:
    """Runs `--mode=export`; `config` is that of `settings.of_encoder`."""
    devices.prepare(config.training, "float32")
    print(f"exported to {write(config)}")


def write(config: Config) -> Path:
    """Exports the encoder of a work directory to `<workdir>/export/<step>`.

    An export that is there already is replaced.

    Args:
      config: of `settings.of_encoder`; Keras' precision must be float32.

    Returns:
      The numbered directory.

    Raises:
      Refused: see `restore.open_encoder`; or the directory cannot be written to.
      RunFailed, OSError: see `write_encoder`.
    """
    if config.evaluation.export_dir is not None:
        refuse("export_dir", config.evaluation.export_dir, "none with --mode=export")
    workdir = Path(config.training.workdir)
    files.output_folder("workdir", Workdir(workdir).export)
    encoder = restore.open_encoder(config)
    return write_encoder(encoder, Workdir(workdir).export, workdir)


def write_encoder(encoder: Encoder, directory: Path, workdir: Path) -> Path:
    """Exports an opened encoder to `directory/<step>`.

    Args:
      encoder: with a projector.
      directory: of the numbered exports.
      workdir: whose evaluation results go into the model card.

    Raises:
      RunFailed: no format works.
      OSError: it could not be written; an export that was there before is intact.
    """
    final = directory / str(encoder.step)
    unfinished = directory / f".{encoder.step}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    servable = Servable.of(encoder)
    bare = encoder.bare()
    with quiet.only_warnings():
        signatures = servable.signatures()
    ways = [formats.saved_model(servable, signatures), *formats.of_keras(bare)]
    try:
        formats.write(unfinished, ways, bare.input_shape[1:])
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    card.write(encoder, unfinished, workdir)
    files.replace_directory(unfinished, final)
    return final


class Servable(tf.Module):
    """Images of any size -> representation and projection, as a SavedModel.

    After `tf.saved_model.load` it is callable, `encoder(images, training=False)`, and
    can be fine-tuned: it has `variables` and `trainable_variables`.

    Args:
      network: images [n, s, s, C] in [0, 255] -> (representation, projection).
      image_size: s.
      preprocessing: of evaluation; the network itself normalises.
      pixels: how the values of encoded images become pixels.
    """

    # tf.Module has properties of these names, which a SavedModel does not keep.
    variables: Sequence[tf.Variable] = ()
    trainable_variables: Sequence[tf.Variable] = ()

    def __init__(
        self,
        network: keras.Model,
        image_size: int,
        preprocessing: Preprocessing,
        pixels: Pixels = image_files.USUAL,
    ):
        super().__init__(name="encoder")
        self.variables = [v.value for v in network.variables]
        self.trainable_variables = [v.value for v in network.trainable_variables]
        self._network = network
        self._image_size = image_size
        self._preprocessing = preprocessing
        self._pixels = pixels
        # Traced here once, so that they are stored once for all ways to call them.
        channels = network.input_shape[-1]
        square = tf.TensorSpec([None, image_size, image_size, channels], tf.float32)
        prepared = tf.function(
            lambda images: prepare(images, image_size, preprocessing, channels)
        )
        self._prepared = prepared.get_concrete_function(IMAGES)
        self._inferred, self._trained = (
            tf.function(self._outputs).get_concrete_function(square, training)
            for training in (False, True)
        )
        for dtype in (tf.uint8, tf.float32):
            for training in (False, True):
                spec = tf.TensorSpec(None, dtype, name="images")
                self.__call__.get_concrete_function(spec, training=training)

    @classmethod
    def of(cls, encoder: Encoder) -> Servable:
        """That of an opened encoder, with a projector."""
        return cls(
            encoder.network,
            encoder.image_size,
            encoder.preprocessing,
            Pixels.of(encoder.config),
        )

    def _outputs(self, images: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        representation, projection = self._network(images, training=training)
        return {"representation": representation, "projection": projection}

    @tf.function
    def __call__(self, images: tf.Tensor, training: bool = False):
        """Encodes a batch.

        Args:
          images: [n, h, w, C], uint8 or float32 in [0, 255], of any size.
          training: BatchNorm by the batch, and its running statistics updated.

        Returns:
          `representation` [n, r] and `projection` [n, d], float32.
        """
        images = self._prepared(tf.cast(images, tf.float32))
        return self._trained(images) if training else self._inferred(images)

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """`serving_default` (images), `encode_jpeg` (encoded images)."""
        encoded = tf.TensorSpec(None, tf.string, name="encoded")
        serve = tf.function(lambda images: self(images), input_signature=[IMAGES])
        return {
            "serving_default": serve.get_concrete_function(),
            "encode_jpeg": self.encode_jpeg.get_concrete_function(encoded),
        }

    @tf.function
    def encode_jpeg(self, encoded: tf.Tensor):
        """Encodes a batch [n] of JPEG, PNG, BMP, GIF or WebP files; as `__call__`."""
        batch = tf.rank(encoded) == 1
        encoded = _require(encoded, batch, [None], "encoded", ACCEPTED_ENCODED)

        def view(content: tf.Tensor) -> tf.Tensor:
            image = image_files.decode(content, self._pixels)
            return self._preprocessing.evaluation_view(image, self._image_size)

        size = self._image_size
        spec = tf.TensorSpec([size, size, self._pixels.channels], tf.uint8)
        images = tf.map_fn(view, encoded, fn_output_signature=spec)
        return self._inferred(tf.cast(images, tf.float32))


def prepare(
    images: tf.Tensor, size: int, preprocessing: Preprocessing, channels: int = 3
) -> tf.Tensor:
    """`Preprocessing.evaluation_view` for a batch of images of one size.

    Like it, this rounds to whole values after resizing; where nothing is resized,
    values stay as they are.

    Args:
      images: float32 [n, h, w, C] in [0, 255].
      size: side of the result.
      preprocessing: central crop and interpolation.
      channels: C.

    Returns:
      float32 [n, size, size, C] in [0, 255].

    Raises:
      tf.errors.InvalidArgumentError: another shape, or values outside of the range.
    """
    shape = tf.shape(images)
    accepted = ACCEPTED_IMAGES.format(channels)
    fits = tf.reduce_all(shape[-1:] == channels)
    well_shaped = tf.logical_and(tf.rank(images) == 4, fits)
    batch = [None, None, None, channels]
    images = _require(images, well_shaped, batch, "images", accepted)
    low, high = tf.reduce_min(images), tf.reduce_max(images)
    # Empty batches have no range: min is +inf and max -inf.
    inside = tf.logical_and(low >= 0.0, high <= 255.0) | (tf.size(images) == 0)
    message = ["images: received values from", low, "to", high, accepted]
    with tf.control_dependencies([tf.debugging.Assert(inside, message)]):
        images = tf.identity(images)
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    top, left, side, _ = tf.unstack(
        image_ops.center_box(height, width, preprocessing.crop_fraction)
    )
    crops = images[:, top : top + side, left : left + side]

    def resized() -> tf.Tensor:
        found = tf.image.resize(crops, [size, size], preprocessing.interpolation)
        return tf.cast(image_ops.to_uint8(found), tf.float32)

    found = tf.cond(side == size, lambda: crops, resized)
    found.set_shape([None, size, size, channels])
    return found


def _require(
    x: tf.Tensor,
    condition: tf.Tensor,
    shape: list[int | None],
    name: str,
    accepted: str,
) -> tf.Tensor:
    """`x` with a known shape, or an error with what was received and accepted.

    A wrong `x` is replaced by an empty one behind the assertion: TensorFlow infers
    shapes before it runs anything, and would fail first, with words about a kernel.
    """
    message = [f"{name}: received shape", tf.shape(x), accepted]
    assertion = tf.debugging.Assert(condition, message, summarize=10)
    with tf.control_dependencies([assertion]):
        empty = tf.constant([], x.dtype, shape=[0] * len(shape))
        x = tf.cond(condition, lambda: x, lambda: empty)
    x.set_shape(shape)
    return x
