"""Settings of what is stored in an image file and how it becomes 8-bit pixels."""

from __future__ import annotations

import dataclasses
import re

from tf_dpred.config.setting import Numbers, Section, refuse, setting

DEPTHS = {f"{bits}bit": 2**bits - 1 for bits in (8, 10, 12, 14, 16)}
"""Named ranges -> their largest value; the smallest is 0."""

COLOURS = {"white": (255, 255, 255), "gray": (128, 128, 128), "black": (0, 0, 0)}


def background_of(text: str) -> tuple[int, int, int] | None:
    """Red, green and blue of `--background`; None for "stored".

    Raises:
      ValueError: it is none.
    """
    if text == "stored":
        return None
    if text in COLOURS:
        return COLOURS[text]
    if not re.fullmatch(r"\d{1,3},\d{1,3},\d{1,3}", text):
        raise ValueError(text)
    red, green, blue = map(int, text.split(","))
    if max(red, green, blue) > 255:
        raise ValueError(text)
    return red, green, blue


@dataclasses.dataclass(frozen=True)
class PixelConfig(Section):
    channels: int | None = setting(
        None,
        "channels that the network sees; none: 3, or those of the training images "
        "where they are neither gray nor colour",
        at_least=1,
        at_most=1024,
    )
    pages: str = setting(
        "first",
        "of a file with several pages or frames: the first one, all of them as images "
        "of their own (NAME#2), or all of them as the channels of one image",
        choices=("first", "all", "channels"),
    )
    value_range: str = setting(
        "auto",
        "stored values that become 0 and 255. auto: 0 and the most that 8, 12 or 16 "
        "bits hold, as the training images ask; 8bit, 10bit, 12bit, 14bit, 16bit: of "
        "images of more than 8 bits; percentile: 0.1 and 99.9 percent of the training "
        "images' values; min,max: two numbers, or two for each channel",
    )
    background: str = setting(
        "white",
        "colour behind transparent pixels: white, gray, black or red,green,blue (0 to "
        "255 each); stored: transparency is ignored",
    )

    @property
    def count(self) -> int:
        """C, the number of channels."""
        return self.channels or 3

    @property
    def ends(self) -> tuple[tuple[float, float], ...]:
        """The numbers of `value_range`, in pairs; none where it is a name."""
        if self.value_range in ("auto", "percentile", *DEPTHS):
            return ()
        numbers = Numbers.of(self.value_range)
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))

    def check(self) -> None:
        try:
            rising = all(low < high for low, high in self.ends)
        except ValueError:
            rising = False
        if not rising or len(self.ends) not in (0, 1, self.count):
            names = ", ".join(("auto", *DEPTHS, "percentile"))
            refuse(
                "value_range",
                self.value_range,
                f"{names}, or min,max such as 0,4095 (two numbers, or two for each of "
                f"{self.count} channels), min below max",
            )
        try:
            background_of(self.background)
        except ValueError:
            refuse(
                "background",
                self.background,
                f"{', '.join(COLOURS)}, three whole numbers from 0 to 255 such as "
                "255,255,255, or stored",
            )
