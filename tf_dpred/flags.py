"""The command line: every flag, and the way from flags to a Config.

The flags are the fields of `config`; this is the only reader of FLAGS. A flag that
is not given keeps its default, which for `predictor` and `ema` is that of `--method`.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from absl import flags

from tf_dpred.config import METHODS, SECTIONS, Config, FilesConfig, field_types

FLAGS = flags.FLAGS

MOST_NEEDED = {
    "what to train on": ("dataset", "data_dir", "image_size"),
    "how": ("recipe", "backbone", "epochs", "batch_size"),
    "where the results go": ("workdir",),
    "on which hardware": ("precision", "strategy"),
}

flags.DEFINE_string(
    "method",
    Config.method,
    "preset of predictor and ema: " + ", ".join(METHODS),
)


class _Parser(flags.ArgumentParser):
    """Reads a value of a field's type, where `none` may stand for None."""

    def __init__(self, name: str, kind: type, optional: bool):
        self.name, self.kind, self.optional = name, kind, optional
        self.syntactic_help = "none for no value" if optional else ""

    def parse(self, argument):
        if not isinstance(argument, str):
            return argument
        if self.optional and argument.lower() == "none":
            return None
        try:
            return self.kind(argument)
        except ValueError as error:
            words = {int: "a whole number", float: "a number", str: "text"}
            accepted = words[self.kind] + (" or none" if self.optional else "")
            raise ValueError(f"received {argument!r}, accepted: {accepted}.") from error

    def flag_type(self) -> str:
        return self.kind.__name__


def _define(field: dataclasses.Field, kind: type, optional: bool) -> None:
    default: Any = field.default
    text = field.metadata["help"]
    if field.metadata["choices"]:
        text += " <" + "|".join(field.metadata["choices"]) + ">"
    if kind is bool:
        flags.DEFINE_bool(field.name, default, text)
        return
    flags.DEFINE(
        _Parser(field.name, kind, optional),
        field.name,
        default,
        text,
        serializer=flags.ArgumentSerializer(),
    )


for _section in (*SECTIONS.values(), FilesConfig):
    for _field in dataclasses.fields(_section):
        _define(_field, *field_types(_section)[_field.name])


def define_mode(names: Iterable[str]) -> None:
    """Defines the flags that are not settings: `--mode` and `--recipe`.

    The modes are a table of `main`, which also replaces `--recipe` by its flags.
    """
    flags.DEFINE_enum("mode", "pretrain", list(names), "what to do")
    flags.DEFINE_string(
        "recipe", None, "settings to start from, which other flags change; help: a list"
    )


def usage(modes: Mapping[str, str]) -> str:
    """What `--help` shows: the modes, the flags that most people need, all flags.

    Args:
      modes: name -> what it does.
    """
    lines = ["usage: tf-dpred [--mode=MODE] [--recipe=NAME] [--flag=value ...]", ""]
    lines += ["The same as: python -m tf_dpred.main ...", "", "Modes:", ""]
    lines += [_entry(f"--mode={name}", text) for name, text in modes.items()]
    lines += ["", "The flags that most people need:"]
    for title, names in MOST_NEEDED.items():
        lines += ["", f"  {title}"]
        lines += [_entry(f"--{name}", _described(name)) for name in names]
    return "\n".join([*lines, "", "All flags:", FLAGS.module_help(__name__)])


def _entry(name: str, text: str) -> str:
    indent = 29 * " "
    first = f"  {name}".ljust(len(indent))
    return textwrap.fill(text, 88, initial_indent=first, subsequent_indent=indent)


def _described(name: str) -> str:
    flag = FLAGS[name]
    return f"{flag.help} (default: {'none' if flag.default is None else flag.default})"


def given_settings(values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Name -> value of the settings that were given, on the line or in a flagfile."""
    names = ["method"] + [
        field.name for kind in SECTIONS.values() for field in dataclasses.fields(kind)
    ]
    return _given(names, values)


def given_files(values: flags.FlagValues = FLAGS) -> dict[str, Any]:
    """Name -> value of the given fields of `FilesConfig`."""
    return _given([field.name for field in dataclasses.fields(FilesConfig)], values)


def _given(names: list[str], values: flags.FlagValues) -> dict[str, Any]:
    return {name: values[name].value for name in names if values[name].present}


def config_from_flags(values: flags.FlagValues = FLAGS) -> Config:
    """The Config that the parsed flags ask for.

    Raises:
      Refused: a value that is not accepted.
    """
    return Config.from_dict(given_settings(values))
