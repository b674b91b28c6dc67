"""`--recipe=NAME`: the flags of configs/NAME.cfg, wherever the package is installed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from tf_dpred.config import refuse

FLAG = re.compile(r"--?recipe(=.*)?")


def directory() -> Path:
    """Where the recipes are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(path.stem for path in directory().glob("*.cfg"))


def expand(argv: Sequence[str]) -> list[str]:
    """Replaces each `--recipe=NAME` by the recipe's flags, before all other flags.

    So the other flags win, wherever they stand. A `--flagfile=configs/OTHER.cfg` in a
    recipe is the recipe OTHER.

    Args:
      argv: the program's name and its arguments, without flagfiles.

    Raises:
      Refused: there is no such recipe.
    """
    expanded: list[str] = []
    others: list[str] = []
    rest = iter(argv[1:])
    for argument in rest:
        if argument == "--":
            others += [argument, *rest]
        elif found := FLAG.fullmatch(argument):
            name = found[1][1:] if found[1] else next(rest, "")
            expanded += flags(name)
        else:
            others.append(argument)
    return [argv[0], *expanded, *others]


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether `--recipe=help`, or `--recipe help`, is among the arguments."""
    return re.search(r"(^| )--?recipe[= ]help( |$)", " ".join(arguments)) is not None


def flags(name: str) -> list[str]:
    """The flags of a recipe, one a line.

    Raises:
      Refused: there is no such recipe.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=3)
        refuse("recipe", name, f"{', '.join(close or names())} (--recipe=help: all)")
    found: list[str] = []
    for line in map(str.strip, _lines(name)):
        nested = re.fullmatch(r"--flagfile=configs/(\w+)\.cfg", line)
        if nested:
            found += flags(nested[1])
        elif line and not line.startswith("#"):
            found.append(line)
    return found


def table() -> str:
    """All recipes, each with the first sentence of its header."""
    width = max(map(len, names()))
    return "\n".join(f"{name:{width}}  {_summary(name)}" for name in names())


def hint(message: str) -> str:
    """Suggests a recipe after an error about a missing configs/NAME.cfg; else ""."""
    found = re.search(r"configs/(\w+)\.cfg", message)
    if found and found[1] in names():
        return f"; outside of a checkout: --recipe={found[1]}"
    return ""


def _lines(name: str) -> list[str]:
    return (directory() / f"{name}.cfg").read_text().splitlines()


def _summary(name: str) -> str:
    paragraph, _, _ = "\n".join(_lines(name)).partition("\n#\n")
    text = " ".join(line.lstrip("# ") for line in paragraph.splitlines())
    return re.split(r"(?<=\.)\s", text)[0]
