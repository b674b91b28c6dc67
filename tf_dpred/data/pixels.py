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
        return self.config.count

    def finished(self, values: tf.Tensor, has_alpha: tf.Tensor | bool) -> tf.Tensor:
        """Maps decoded values to 0..255, onto the background, with C channels.

        C = 3 takes gray and colour, and so does C = 1, of which it is the luma. C = 4
        takes four channels, or colours with opacity, which is the fourth then. Any
        other C takes images of C channels alone.

        Args:
          values: uint8, uint16 or float32 [H, W, c]; not a number counts as the lowest.
            A static c of 3 says that the format may also hold opacity.
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
        # A format without opacity in this file is opaque.
        adds_alpha = self.channels == 4 and (has_alpha or values.shape[-1] == 3)
        colours = values[..., :-1] if has_alpha else values
        colours = self._spread(colours, 3 if adds_alpha else self.channels, has_alpha)
        ends = self._ends(values.dtype)
        if ends is None and not has_alpha and not adds_alpha and self.channels != 1:
            return colours
        found = tf.cast(colours, tf.float32)
        if ends is not None:
            low, high = (tf.constant(end, tf.float32) for end in ends)
            found = (found - low) * (255.0 / (high - low))
            found = tf.where(tf.math.is_nan(found), 0.0, found)
            found = tf.clip_by_value(found, 0.0, 255.0)
        opacity = tf.ones_like(found[..., :1])
        if has_alpha:
            opacity = tf.cast(values[..., -1:], tf.float32) / self.MOST[values.dtype]
        background = background_of(self.config.background)
        if adds_alpha:
            found = tf.concat([found, 255.0 * opacity], axis=-1)
        elif has_alpha and background is not None and self.channels in (1, 3):
            behind = tf.constant(background, tf.float32)
            found = behind + (found - behind) * opacity
        if self.channels == 1:
            found = tf.cond(
                tf.shape(found)[-1] == 1,
                lambda: found,
                lambda: tf.reduce_sum(found * LUMA, axis=-1, keepdims=True),
            )
        return image_ops.to_uint8(found)

    def _spread(self, values: tf.Tensor, channels: int, has_alpha: bool) -> tf.Tensor:
        """Gray as three equal channels, where three are asked for."""
        shape = tf.shape(values)
        accepted = [1, 3] if channels in (1, 3) else [channels]
        words = tf.strings.format(
            f"{{}} channels{' and opacity' if has_alpha else ''}, accepted: "
            f"{' or '.join(map(str, accepted))} (--channels)",
            shape[2],
        )
        fits = tf.reduce_any(shape[2] == accepted)
        if values.dtype == tf.float32 and self.config.value_range == "auto":
            words = "signed or floating-point values, accepted: with --value_range"
            fits = False
        with tf.control_dependencies([tf.debugging.Assert(fits, [words])]):
            if channels != 3 and values.shape[-1] in (None, *accepted):
                return tf.identity(values)
            # Of a format without so many channels this is never computed.
            one = values if channels == 3 else values[..., :1]
            return tf.broadcast_to(one, [shape[0], shape[1], channels])

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
