"""A setting: a field with help and range, checked when its section is made."""

from __future__ import annotations

import dataclasses
import math
import typing
from typing import Any, NamedTuple, NoReturn

from tf_dpred.config import paths
from tf_dpred.config.text import printable
from tf_dpred.errors import Refused


def refuse(name: str, received: Any, accepted: str, *, detail: str = "") -> NoReturn:
    """Raises the one-line error for bad input: flag, received, accepted.

    Args:
      name: of the flag, or of an environment variable (in capital letters), or a place
        with a dot in its name, such as a file.
      received: the value.
      accepted: in words, without a full stop.
      detail: what else is known of the value; follows it without a space.

    Raises:
      Refused: always.
    """
    option = name if name.isupper() or "." in name else f"--{name}"
    line = f"{option}: received {received!r}{detail}, accepted: {accepted}."
    raise Refused(printable(line))


class Numbers(NamedTuple):
    """What a text such as "0.2,1" may be.

    Attributes:
      how_many: of the numbers; None: any.
      least, most: that each may be.
      rising: the first must not be above the second.
    """

    how_many: int | None
    least: float
    most: float
    rising: bool = False

    @staticmethod
    def of(text: str) -> tuple[float, ...]:
        """The numbers of a text.

        Raises:
          ValueError: it is none.
        """
        return tuple(float(part) for part in text.split(","))

    def accept(self, text: str) -> bool:
        """Whether a text is such numbers."""
        try:
            found = self.of(text)
        except ValueError:
            return False
        inside = all(self.least <= number <= self.most for number in found)
        order = not self.rising or list(found) == sorted(found)
        return self.how_many in (None, len(found)) and inside and order

    def __str__(self) -> str:
        order = ", the first not above the second" if self.rising else ""
        least, most = f"{self.least:g}", f"{self.most:g}"
        many = "" if self.how_many is None else f"{self.how_many} "
        return f"{many}numbers from {least} to {most}, with commas{order}"


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    path: str | None = None,
    listed: bool = False,
    numbers: Numbers | None = None,
) -> Any:
    """A dataclass field with the help text and the range of its flag.

    A path says what it is the path of, "a directory". `listed`: several, with commas.
    `numbers`: the text is several numbers.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "path": path,
        "listed": listed,
        "numbers": numbers,
        "bounds": {
            "at least": at_least,
            "above": above,
            "at most": at_most,
            "below": below,
        },
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Section:
    """Checks type, choices and range of every field when it is made."""

    def __post_init__(self) -> None:
        kinds = field_types(type(self))
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name), *kinds[field.name])
        self.check()

    def check(self) -> None:
        """Rules between fields; sections override it."""

    def _check(
        self, field: dataclasses.Field, value: Any, kind: type, optional: bool
    ) -> None:
        if value is None:
            if not optional:
                refuse(field.name, value, f"a value of type {kind.__name__}")
            return
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
            object.__setattr__(self, field.name, value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            refuse(field.name, value, f"a value of type {kind.__name__}")
        choices = field.metadata["choices"]
        if choices and value not in choices:
            refuse(field.name, value, "one of " + ", ".join(choices))
        if isinstance(value, str):
            value = checked_text(field, value)
            object.__setattr__(self, field.name, value)
        if isinstance(value, float) and math.isinf(value):
            refuse(field.name, value, "a finite number")
        bounds = {k: v for k, v in field.metadata["bounds"].items() if v is not None}
        inside = {
            "at least": lambda bound: value >= bound,
            "above": lambda bound: value > bound,
            "at most": lambda bound: value <= bound,
            "below": lambda bound: value < bound,
        }
        # NaN compares false with every bound, so it is refused here too.
        if not all(inside[word](bound) for word, bound in bounds.items()):
            words = " and ".join(f"{word} {bound}" for word, bound in bounds.items())
            refuse(field.name, value, words + (" (or none)" if optional else ""))


def checked_text(field: dataclasses.Field, value: str) -> str:
    """A setting that is text, which must not be empty; paths are expanded.

    An empty one is what a shell makes of a variable that is not set.

    Raises:
      Refused: see `paths.expand`.
    """
    numbers = field.metadata["numbers"]
    accepted = field.metadata["path"] or str(numbers or "text")
    if field.default is None:
        accepted += " (or none)"
    if field.metadata["path"] is None:
        if not value.strip() or (numbers and not numbers.accept(value)):
            refuse(field.name, value, accepted)
        return value
    try:
        parts = paths.several(value) if field.metadata["listed"] else [value]
        return ",".join(map(paths.expand, parts))
    except paths.Unusable as error:
        refuse(field.name, value, accepted, detail=str(error))


def field_types(section: type[Section]) -> dict[str, tuple[type, bool]]:
    """Name of each field -> its python type, and whether it may be None."""
    kinds = {}
    for name, hint in typing.get_type_hints(section).items():
        kind, *none = typing.get_args(hint) or (hint,)
        kinds[name] = kind, bool(none)
    return kinds
