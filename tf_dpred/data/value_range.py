"""Which stored values become 0 and 255 where only the images can say it.

At most `LOOKED_AT` training images are looked at, once, before a run; it records what
is found, so that it goes on, is evaluated and exported with it. Images of 8 bits need
no look: they stay as they are, but for `--value_range=percentile`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np
import tensorflow as tf
from absl import logging

from tf_dpred.config import Config, refuse
from tf_dpred.config.pixels import DEPTHS, PixelConfig
from tf_dpred.data import contents, decoders, image_files
from tf_dpred.data.pixels import Pixels
from tf_dpred.data.remote import Base
from tf_dpred.data.source import Source
from tf_dpred.system.files import printable

LOOKED_AT = 64
# Of which `auto` takes the least that suffices. No finer ones: a few dark images of 12
# bits may look like 10.
OF_CAMERAS = ("8bit", "12bit", "16bit")
DEEP_KINDS = (".png", *decoders.EXTENSIONS)
"""Files that may hold more than 8 bits, or other channels than gray and colour."""
# Values of one image that are kept for the percentiles.
KEPT = 65_536
# Of an image and of all: percent of the values below and above.
LOWEST, HIGHEST = 0.1, 99.9
# An image that spans less than this part of the range is worth a warning.
NARROW = 1 / 16


class Look(NamedTuple):
    """What one image holds.

    Attributes:
      name: of its file.
      values: some of them [n, c], spread over the image, without opacity.
      most: the largest of all.
      least: the smallest of all.
    """

    name: str
    values: np.ndarray
    least: float
    most: float

    @property
    def span(self) -> float:
        low, high = np.percentile(self.values, [LOWEST, HIGHEST])
        return float(high - low)


@dataclasses.dataclass(frozen=True)
class _Keeper(Pixels):
    """Keeps the values that it gets; not in a graph."""

    kept: list[np.ndarray] = dataclasses.field(default_factory=list)

    def finished(self, values: tf.Tensor, has_alpha: tf.Tensor | bool) -> tf.Tensor:
        colours = values[..., :-1] if bool(has_alpha) else values
        self.kept.append(colours.numpy())
        return tf.zeros([1, 1, 3], tf.uint8)


def samples(
    root: Base, files: Sequence[str], pixels: PixelConfig
) -> Iterator[tuple[str, tf.Tensor]]:
    """Files to be looked at, spread over all: name, and what `image_files.read` gives.

    Args:
      root: that the files are relative to.
      files: sorted.
      pixels: with `percentile` of all kinds, else those of more than 8 bits.
    """
    every_kind = pixels.value_range == "percentile"
    wanted = [
        file
        for file in files
        if every_kind or decoders.file_of(file)[0].lower().endswith(DEEP_KINDS)
    ]
    for file in wanted[:: max(1, -(-len(wanted) // LOOKED_AT))]:
        if every_kind or not _is_of_eight_bits(str(root / file)):
            with contextlib.suppress(tf.errors.OpError):  # whoever uses it says why
                path = os.fsencode(root / file)
                yield file, image_files.read(path, Pixels(pixels))


def _is_of_eight_bits(path: str) -> bool:
    """Whether it is a PNG of up to 8 bits."""
    try:
        start = contents.start_of(path, 25)
    except OSError:
        return False
    return start.startswith(b"\x89PNG") and start[24:] != b"\x10"


def look(samples: Iterable[tuple[str, tf.Tensor]]) -> list[Look]:
    """Looks at encoded images; those that cannot be used are left out.

    Args:
      samples: a name and what `image_files.read` gave, for each.
    """
    looks = []
    for name, content in samples:
        keeper = _Keeper()
        try:
            with tf.device("CPU:0"):
                image_files.decode(content, keeper)
        except tf.errors.OpError:
            continue  # whoever uses it says why
        values = keeper.kept[0].reshape(-1, keeper.kept[0].shape[-1])
        finite = values[np.isfinite(values).all(axis=-1)]
        if len(finite):
            few = finite[:: max(1, len(finite) // KEPT)]
            looks.append(Look(name, few, float(finite.min()), float(finite.max())))
    return looks


def settled(config: Config, samples: Iterable[tuple[str, tf.Tensor]]) -> Config:
    """`config` with the range and the channels that its images ask for.

    One line says the range, another one the channels if they are not 3.

    Args:
      config: of a run that begins, or of a mode without one.
      samples: see `samples`.

    Raises:
      Refused: `auto` where images of floats and others are mixed, or of several numbers
        of channels.
    """
    looks = look(samples)
    config = _with_channels(config, looks)
    pixels = config.pixels
    deep = [x for x in looks if x.values.dtype != np.uint8]
    name = pixels.value_range
    if name == "percentile":
        if not looks:
            _refuse(name, "images that can be looked at")
        name = _percentiles([x.values for x in looks])
    elif name == "auto" and deep:
        name = _by_type(looks, deep)
    if name != pixels.value_range:
        config = Config.from_dict({**config.to_dict(), "value_range": name})
    if deep or name != pixels.value_range:
        logging.info(
            "--value_range=%s: %s; %d images were looked at, of values from %g to %g",
            pixels.value_range,
            described(config.pixels),
            len(looks),
            min(x.least for x in looks),
            max(x.most for x in looks),
        )
    warn_of_narrow(config.pixels, deep)
    return config


def of_source(config: Config, source: Source) -> Config:
    """`config` with the channels of images that a program gave to a run.

    Raises:
      Refused: other ones are asked for.
    """
    channels = source.channels
    if config.pixels.channels not in (None, channels):
        accepted = f"{channels}, as the images of {source.name} have them"
        refuse("channels", config.pixels.channels, accepted)
    if channels == config.pixels.count:
        return config
    return Config.from_dict({**config.to_dict(), "channels": channels})


def _with_channels(config: Config, looks: Sequence[Look]) -> Config:
    """`config` with the number of channels, if it is neither given nor 3."""
    found = {look.values.shape[-1]: look.name for look in looks}
    if config.pixels.channels is not None or found.keys() <= {1, 3}:
        return config
    if len(found) > 1:
        shown = ", ".join(f"{n} in {printable(found[n])}" for n in sorted(found))
        refuse("channels", None, "their number", detail=f" for images of {shown}")
    (channels,) = found
    logging.info("--channels=%d: so many have the images looked at", channels)
    return Config.from_dict({**config.to_dict(), "channels": channels})


def described(pixels: PixelConfig) -> str:
    """What a range that is settled does, in words."""
    if pairs := pixels.ends:
        words = ", ".join(f"{low:g} to {high:g}" for low, high in pairs)
        return f"{words} become 0 to 255"
    most = DEPTHS.get(pixels.value_range, DEPTHS["16bit"])
    return f"0 to {most} become 0 to 255 where an image has more than 8 bits"


def warn_of_narrow(pixels: PixelConfig, looks: Sequence[Look]) -> None:
    """Warns of images of more than 8 bits that are nearly uniform in the range."""
    pairs = pixels.ends or ((0.0, float(DEPTHS.get(pixels.value_range, 2**16 - 1))),)
    range_ = max(high - low for low, high in pairs)
    narrow = [x for x in looks if x.span < NARROW * range_]
    if narrow:
        logging.warning(
            "%d of %d images of more than 8 bits that were looked at span less than a "
            "sixteenth of --value_range=%s (%s: %g to %g): they are nearly uniform; "
            "--value_range=percentile or min,max maps fewer values",
            len(narrow),
            len(looks),
            pixels.value_range,
            printable(narrow[0].name),
            narrow[0].least,
            narrow[0].most,
        )


def _by_type(looks: Sequence[Look], deep: Sequence[Look]) -> str:
    """The range of `auto`: the least depth that holds integers; for floats, theirs."""
    floats = [x for x in deep if x.values.dtype == np.float32]
    least, most = min(x.least for x in deep), max(x.most for x in deep)
    if not floats:
        return next(name for name in OF_CAMERAS if most <= DEPTHS[name])
    if len(floats) < len(looks):
        _refuse(
            "auto",
            "min,max where some images are of signed or floating-point values "
            f"({printable(floats[0].name)}) and others are not",
        )
    if least >= 0 and most <= 1:
        return "0,1"
    if least >= 0 and most <= 255:
        return "0,255"
    return _text([(least, most)])


def _percentiles(values: Sequence[np.ndarray]) -> str:
    """One range for gray and colour, or one for each of another number of channels."""
    if {array.shape[-1] for array in values} <= {1, 3}:
        values = [array.reshape(-1, 1) for array in values]
    together = np.concatenate(values)
    low, high = np.percentile(together, [LOWEST, HIGHEST], axis=0)
    return _text(zip(low, high, strict=True))


def _text(pairs: Iterable[tuple[float, float]]) -> str:
    # A channel of one value has no range.
    ends = [(low, high if high > low else low + 1) for low, high in pairs]
    return ",".join(f"{end:.6g}" for pair in ends for end in pair)


def _refuse(received: str, accepted: str) -> NoReturn:
    refuse("value_range", received, accepted)
