"""Is one encoder better than another? What the numbers allow to be said. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

# Two-sided 95 % of the normal distribution.
Z = 1.959964
# An untrained network that recognises so many views leaves nothing to be learned.
EASY = 0.9

NOTHING = (
    "the loss is low, but the encoder does not recognise its own views: nothing was "
    "learned"
)
TOO_EASY = (
    "the untrained network recognises its own views already: they are too weak to tell"
)


@dataclasses.dataclass(frozen=True)
class Rate:
    """A fraction of n images, with its 95 % interval (Wilson, 1927).

    Attributes:
      value: in [0, 1].
      n: images, at least 1.
    """

    value: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high), in [0, 1]."""
        p, n = self.value, self.n
        centre = p + Z**2 / (2 * n)
        half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        scale = 1 + Z**2 / n
        return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f} to {high:.3f})"

    @property
    def percent(self) -> str:
        """For a cell of a table: 21.9 (18.5-25.7)."""
        low, high = self.interval
        return f"{self.value:.1%} ({low:.1%}-{high:.1%})".replace("%", "")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two rates, and what can be said of their difference.

    The interval is Newcombe's hybrid score interval of independent samples (1998,
    method 10). Where both rates are of the same images it is wider than it need be.
    """

    ours: Rate
    other: Rate

    @property
    def difference(self) -> tuple[float, float, float]:
        """(difference, low, high): ours minus the other, 95 %."""
        p, q = self.ours.value, self.other.value
        (p_low, p_high), (q_low, q_high) = self.ours.interval, self.other.interval
        low = p - q - math.hypot(p - p_low, q_high - q)
        high = p - q + math.hypot(p_high - p, q - q_low)
        return p - q, low, high

    @property
    def word(self) -> str:
        """`better`, `worse` or `not distinguishable`."""
        _, low, high = self.difference
        return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"

    @property
    def images_needed(self) -> int | None:
        """Images at which this difference would be told; None where there is none."""
        p, q = self.ours.value, self.other.value
        if p == q:
            return None
        variance = p * (1 - p) + q * (1 - q)
        return math.ceil(Z**2 * variance / (p - q) ** 2)

    def sentence(self, name: str, measure: str, images: str = "images") -> str:
        """What can be said.

        Args:
          name: of the other encoder.
          measure: what the rates are.
          images: what they are rates of.
        """
        joined = "from" if self.word == "not distinguishable" else "than"
        text = (
            f"{self.word} {joined} {name}: {measure} {self.ours} against {self.other}, "
            f"{self.ours.n} {images}"
        )
        if self.word != "not distinguishable":
            return text
        if (needed := self.images_needed) is None:
            return f"{text}, and no number of images would tell"
        return f"{text}; about {_rounded(max(needed, self.ours.n + 1)):,} would tell"


def _rounded(n: int) -> int:
    """Rounded up to two digits: it is an order of magnitude."""
    unit = 10 ** max(0, len(str(n)) - 2)
    return -(-n // unit) * unit


@dataclasses.dataclass(frozen=True)
class ViewVerdict:
    """What view retrieval says of a training.

    Attributes:
      word: `better`, `worse` or `not distinguishable`, beside the untrained network.
      sentence: the same with numbers, and what follows from it.
      too_easy: the untrained network recognises nearly all views.
    """

    word: str
    sentence: str
    too_easy: bool


def of_views(untrained: Mapping, trained: Mapping, part: str = "") -> ViewVerdict:
    """Judges an encoder beside the network that its training began with.

    Args:
      untrained, trained: what the monitor or `--mode=evaluate` measured on the same
        views: `view_top1`, `view_images`, `view_held_out`.
      part: of the names of these measures, as `target_`.
    """
    rates = (
        Rate(m[f"{part}view_top1"], m["view_images"]) for m in (trained, untrained)
    )
    found = Comparison(*rates)
    images = "held-out images" if trained.get("view_held_out") else "training images"
    sentence = found.sentence("untrained", "view retrieval", images)
    too_easy = found.word == "not distinguishable" and found.other.value >= EASY
    if found.word != "better":
        sentence += f"; {TOO_EASY if too_easy else NOTHING}"
    return ViewVerdict(found.word, sentence, too_easy)


def of_epochs(epochs: Sequence[Mapping]) -> ViewVerdict | None:
    """The verdict of a run's own monitor: its last measurement beside its first.

    Args:
      epochs: the lines of epochs.jsonl.

    Returns:
      None where the untrained and the trained network were not both measured.
    """
    measured = [
        entry
        for entry in epochs
        if 0 <= entry.get("view_top1", -1) <= 1 and entry.get("view_images", 0) >= 1
    ]
    if len(measured) < 2 or measured[0]["epoch"] != 0:
        return None
    return of_views(measured[0], measured[-1])
