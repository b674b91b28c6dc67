"""Random views: what is drawn, with which probability, and the named recipes."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from tf_dpred.config import Config, Numbers, refuse


@dataclass(frozen=True)
class ViewSpec:
    """Distribution of one view.

    Attributes:
      crop_scale: range of the crop's fraction of the image's area, uniform.
      crop_ratio: range of the crop's aspect (width / height), log-uniform.
      interpolation: "bicubic" or "bilinear".
      flip_probability: of a left-right flip.
      vertical_flip_probability: of an upside-down flip.
      rotate90_probability: of a turn by 0, 90, 180 or 270 degrees, each as likely.
      rotation: largest turn in degrees, either way; the border is mirrored.
      jitter_probability: that all four jitter operations are applied, else none.
      brightness, contrast, saturation, hue: half-widths of the jitter's ranges.
      jitter_style: "hsv" as in BYOL: brightness is added, contrast is about the mean
        of each channel, saturation is that of HSV. "blend" as in torchvision: the image
        is blended with black, with its mean gray and with its gray.
      grayscale_probability: of dropping the colour.
      blur_probability, blur_sigma: of the Gaussian blur, and its range in pixels.
      blur_kernel: number of taps (int, odd), or a fraction of the image size (float).
      blur_padding: "zeros" or "reflect", see `photometric.gaussian_blur`.
      solarize_probability: of inverting the values from one half on.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    flip_probability: float = 0.5
    vertical_flip_probability: float = 0.0
    rotate90_probability: float = 0.0
    rotation: float = 0.0
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter_style: str = "hsv"
    grayscale_probability: float = 0.2
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int | float = 0.1
    blur_padding: str = "zeros"
    solarize_probability: float = 0.0

    def without_colour(self) -> "ViewSpec":
        """Crops and flips alone, as for training with labels."""
        return replace(
            self,
            jitter_probability=0.0,
            grayscale_probability=0.0,
            blur_probability=0.0,
            solarize_probability=0.0,
        )


class ViewPair(NamedTuple):
    """The distributions of a recipe's two views."""

    first: ViewSpec
    second: ViewSpec

    def to_list(self) -> list[dict[str, Any]]:
        """The fields of both, for a config of Keras."""
        return [asdict(spec) for spec in self]

    @classmethod
    def from_list(cls, both: list[dict[str, Any]]) -> "ViewPair":
        """From what `to_list` gave, of which JSON makes tuples lists."""
        return cls(*map(_spec, both))


def _spec(config: dict[str, Any]) -> ViewSpec:
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in config.items()
    }
    return ViewSpec(**values)


def _byol() -> ViewPair:
    """BYOL, Table 6: the views differ in blur and solarisation."""
    return ViewPair(
        ViewSpec(blur_probability=1.0),
        ViewSpec(blur_probability=0.1, solarize_probability=0.2),
    )


def _simclr(strength: float) -> ViewPair:
    """SimCLR, arXiv 2002.05709, appendix A, with BYOL's operations."""
    view = ViewSpec(
        brightness=0.8 * strength,
        contrast=0.8 * strength,
        saturation=0.8 * strength,
        hue=0.2 * strength,
        blur_probability=0.5,
    )
    return ViewPair(view, view)


def _stl10() -> ViewPair:
    """DirectPred's recipe for STL-10 at 96 x 96, made with torchvision."""
    view = ViewSpec(
        interpolation="bilinear",
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        jitter_style="blend",
        blur_probability=1.0,
        blur_kernel=9,
        blur_padding="reflect",
    )
    return ViewPair(view, view)


def _cifar() -> ViewPair:
    """DirectPred's recipe for CIFAR-10 at 32 x 32, made with torchvision."""
    view = ViewSpec(
        interpolation="bilinear", saturation=0.4, hue=0.1, jitter_style="blend"
    )
    return ViewPair(view, view)


def _digits() -> ViewPair:
    """Our own, mild: a digit must stay the same digit, so it is never mirrored."""
    view = ViewSpec(
        crop_scale=(0.3, 1.0),
        interpolation="bilinear",
        flip_probability=0.0,
        brightness=0.2,
        saturation=0.0,
        hue=0.0,
        grayscale_probability=0.0,
        blur_probability=0.2,
        blur_sigma=(0.1, 1.0),
        blur_kernel=5,
    )
    return ViewPair(view, view)


def _simsiam() -> ViewPair:
    """SimSiam, arXiv 2011.10566, section 4.1, made with torchvision."""
    view = ViewSpec(
        crop_scale=(0.2, 1.0),
        interpolation="bilinear",
        saturation=0.4,
        jitter_style="blend",
        blur_probability=0.5,
        blur_padding="reflect",
    )
    return ViewPair(view, view)


def _satellite() -> ViewPair:
    """Our own, for images from above: there is no up, and colours mean something."""
    view = ViewSpec(
        crop_scale=(0.2, 1.0),
        vertical_flip_probability=0.5,
        rotate90_probability=1.0,
        hue=0.05,
        blur_probability=0.5,
        blur_padding="reflect",
    )
    return ViewPair(view, view)


def _histology() -> ViewPair:
    """Our own, for stained tissue: no up; the stain varies, in hue too."""
    view = ViewSpec(
        crop_scale=(0.2, 1.0),
        vertical_flip_probability=0.5,
        rotate90_probability=1.0,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.1,
        blur_probability=0.5,
        blur_padding="reflect",
    )
    return ViewPair(view, view)


def _microscopy() -> ViewPair:
    """Our own, for images whose colour is no light: intensity alone is jittered."""
    view = ViewSpec(
        crop_scale=(0.2, 1.0),
        vertical_flip_probability=0.5,
        rotate90_probability=1.0,
        saturation=0.0,
        hue=0.0,
        grayscale_probability=0.0,
        blur_probability=0.5,
        blur_padding="reflect",
    )
    return ViewPair(view, view)


def _documents() -> ViewPair:
    """Our own, for pages: text is never mirrored, and most of it stays."""
    view = ViewSpec(
        crop_scale=(0.5, 1.0),
        flip_probability=0.0,
        rotation=3.0,
        saturation=0.2,
        hue=0.05,
        blur_probability=0.3,
        blur_sigma=(0.1, 1.0),
        blur_padding="reflect",
    )
    return ViewPair(view, view)


VIEWS: dict[str, Callable[..., ViewPair]] = {
    "byol": _byol,
    "simclr": _simclr,
    "simsiam": _simsiam,
    "stl10": _stl10,
    "cifar": _cifar,
    "digits": _digits,
    "satellite": _satellite,
    "histology": _histology,
    "microscopy": _microscopy,
    "documents": _documents,
}

# Settings of one number or name -> the attributes of a `ViewSpec`.
_ATTRIBUTES = {
    "interpolation": "interpolation",
    "flip": "flip_probability",
    "vertical_flip": "vertical_flip_probability",
    "rotate90": "rotate90_probability",
    "rotate": "rotation",
    "jitter_probability": "jitter_probability",
    "jitter_style": "jitter_style",
    "gray": "grayscale_probability",
    "blur": "blur_probability",
    "solarize": "solarize_probability",
}
# Settings that may change colours.
_COLOURS = ("jitter", "gray")
_RANGES = ("crop_scale", "crop_ratio", "blur_sigma")


def of_config(config: Config) -> ViewPair:
    """The views of a run: the recipe `--views`, with what other settings change."""
    pair = view_pair(config.data.views, config.data.view_strength)
    both = _changes(config.view, "")
    alone = _changes(config.view2, "view2_")
    found = ViewPair(
        replace(pair.first, **both), replace(pair.second, **(both | alone))
    )
    check_channels(config, found)
    return found


def check_channels(config: Config, pair: ViewPair) -> None:
    """Refuses colours that change where there are no red, green and blue.

    Raises:
      Refused: names the setting, and what of the views is no colour's.
    """
    channels = config.pixels.count
    if channels == 3:
        return
    jittered = [spec for spec in pair if spec.jitter_probability]
    changed = {
        "saturation": any(spec.saturation for spec in jittered),
        "hue": any(spec.hue for spec in jittered),
        "gray": any(spec.grayscale_probability for spec in pair),
    }
    if names := [name for name, applies in changed.items() if applies]:
        flag = next(
            (
                name
                for section in (config.view, config.view2)
                for name, value in asdict(section).items()
                if value is not None and name.removeprefix("view2_") in _COLOURS
            ),
            "views",
        )
        given = config.to_dict()[flag]
        refuse(
            flag,
            given,
            f"views of {channels} channels without {', '.join(names)}: "
            "--views=microscopy or digits, or --jitter=0.4,0.4,0,0 --gray=0",
        )


def _changes(section: Any, prefix: str) -> dict[str, Any]:
    """Attributes of a `ViewSpec` that a section sets."""
    given = {
        field.name.removeprefix(prefix): getattr(section, field.name)
        for field in fields(section)
        if getattr(section, field.name) is not None
    }
    changed: dict[str, Any] = {}
    for name, value in given.items():
        if name == "jitter":
            names = ("brightness", "contrast", "saturation", "hue")
            changed |= dict(zip(names, Numbers.of(value), strict=True))
        elif name in _RANGES:
            changed[name] = Numbers.of(value)
        else:
            changed[_ATTRIBUTES[name]] = value
    return changed


def view_pair(name: str, strength: float = 1.0) -> ViewPair:
    """Returns the recipe `name`.

    Args:
      name: a key of `VIEWS`.
      strength: factor on the jitter of "simclr", at least 0; must be 1 for the others.

    Raises:
      Refused: unknown name, or a strength that the recipe does not have.
    """
    if name not in VIEWS:
        refuse("views", name, ", ".join(VIEWS))
    if strength < 0:
        refuse("view_strength", strength, "at least 0")
    if name == "simclr":
        return _simclr(strength)
    if strength != 1.0:
        refuse("view_strength", strength, "1 unless --views=simclr")
    return VIEWS[name]()
