"""From the values that an image file holds to uint8 pixels, for all formats alike."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import tensorflow as tf

from tf_dpred.config import Config
from tf_dpred.config.pixels import DEPTHS, PixelConfig, background_of
from tf_dpred.data import image_ops

# Of ITU-R BT.601, as in JPEG and in Pillow's conversion to gray.
LUMA = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How decoded values become pixels.

    Attributes:
      config: the settings.
    """

    config: PixelConfig = dataclasses.field(default_factory=PixelConfig)

    MOST: ClassVar = {tf.uint8: 255.0, tf.uint16: 65535.0, tf.float32: 1.0}
    """The largest value of a type that can be stored, for transparency of a float."""

    @classmethod
    def of(cls, config: Config) -> Pixels:
        """Those of a run."""
        return cls(config.pixels)

    @property
    def channels(self) -> int:
        """C of the pixels."""
        return 3

    def finished(self, values: tf.Tensor, has_alpha: tf.Tensor | bool) -> tf.Tensor:
        """Maps decoded values to 0..255, onto the background, with C channels.

        Args:
          values: uint8, uint16 or float32 [H, W, c]; not a number counts as the lowest.
          has_alpha: whether the last of the c channels is opacity.

        Returns:
          uint8 [H, W, C].

        Raises:
          tf.errors.InvalidArgumentError: images of c channels cannot be used as C, or
            floats come without a range.
        """
        if isinstance(has_alpha, bool):
            pixels = self._finished(values, has_alpha)
        else:
            pixels = tf.cond(
                has_alpha,
                lambda: self._finished(values, True),
                lambda: self._finished(values, False),
            )
        return tf.ensure_shape(pixels, [None, None, self.channels])

    def _finished(self, values: tf.Tensor, has_alpha: bool) -> tf.Tensor:
        colours = self._colours(values[..., :-1] if has_alpha else values)
        ends = self._ends(values.dtype)
        if ends is None and not has_alpha:
            return colours
        found = tf.cast(colours, tf.float32)
        if ends is not None:
            low, high = (tf.constant(end, tf.float32) for end in ends)
            found = (found - low) * (255.0 / (high - low))
            found = tf.where(tf.math.is_nan(found), 0.0, found)
            found = tf.clip_by_value(found, 0.0, 255.0)
        background = background_of(self.config.background)
        if has_alpha and background is not None:
            opacity = tf.cast(values[..., -1:], tf.float32) / self.MOST[values.dtype]
            behind = tf.constant(background, tf.float32)
            found = behind + (found - behind) * opacity
        return image_ops.to_uint8(found)

    def _colours(self, values: tf.Tensor) -> tf.Tensor:
        """The channels but opacity as red, green and blue."""
        shape = tf.shape(values)
        words = tf.strings.format("{} channels, accepted: 1 or 3", shape[2])
        fits = tf.reduce_any(shape[2] == [1, 3])
        with tf.control_dependencies([tf.debugging.Assert(fits, [words])]):
            return tf.broadcast_to(values, [shape[0], shape[1], 3])

    def _ends(
        self, dtype: tf.DType
    ) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """The values that become 0 and 255, of all channels or of each.

        None where they are 0 and 255 already.
        """
        name = self.config.value_range
        if pairs := self.config.ends:
            low, high = zip(*pairs, strict=True)
            return low, high
        if dtype == tf.uint8:
            return None
        return (0.0,), (float(DEPTHS.get(name, self.MOST[dtype])),)
