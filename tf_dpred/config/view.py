"""Settings that change a named recipe of views; none: as the recipe has it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_dpred.config.setting import Numbers, Section, setting


def _numbers(help: str, *accepted: Any) -> Any:
    return setting(None, help, numbers=Numbers(*accepted))


def _probability(help: str) -> Any:
    return setting(None, f"probability {help}", at_least=0.0, at_most=1.0)


@dataclasses.dataclass(frozen=True)
class ViewConfig(Section):
    """What changes in both views."""

    crop_scale: str | None = _numbers(
        "least and largest area of a crop, as a part of the image: 0.2,1",
        2,
        1e-4,
        1.0,
        True,
    )
    crop_ratio: str | None = _numbers(
        "least and largest width of a crop over its height: 0.75,1.33",
        2,
        0.01,
        100.0,
        True,
    )
    interpolation: str | None = setting(
        None, "how a crop is resized", choices=("bicubic", "bilinear")
    )
    flip: float | None = _probability("that left and right are swapped")
    vertical_flip: float | None = _probability("that top and bottom are swapped")
    rotate90: float | None = _probability("of a turn by 0, 90, 180 or 270 degrees")
    rotate: float | None = setting(
        None, "turn by up to so many degrees", at_least=0.0, at_most=180.0
    )
    jitter: str | None = _numbers(
        "jitter of brightness, contrast, saturation and hue: 0.4,0.4,0.2,0.1",
        4,
        0.0,
        2.0,
    )
    jitter_probability: float | None = _probability("of the jitter")
    jitter_style: str | None = setting(
        None, "jitter as in BYOL or as in torchvision", choices=("hsv", "blend")
    )
    gray: float | None = _probability("that the colour is dropped")
    blur: float | None = _probability("of the blur")
    blur_sigma: str | None = _numbers(
        "least and largest sigma of the blur in pixels: 0.1,2",
        2,
        0.01,
        100.0,
        True,
    )
    solarize: float | None = _probability("that values from one half on are inverted")


def _second(field: dataclasses.Field) -> Any:
    help = f"--{field.name} of the second view alone"
    return dataclasses.field(default=None, metadata={**field.metadata, "help": help})


SecondViewConfig = dataclasses.make_dataclass(
    "SecondViewConfig",
    [
        (f"view2_{field.name}", field.type, _second(field))
        for field in dataclasses.fields(ViewConfig)
    ],
    bases=(Section,),
    namespace={"__module__": __name__, "__doc__": "What changes in the second view."},
    frozen=True,
)
