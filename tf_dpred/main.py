"""`python -m tf_dpred.main --flagfile=configs/quickstart.cfg`: flags, then one mode."""

from __future__ import annotations

if __name__ == "__main__":  # the imports below take a moment
    from tf_dpred.system import terminal

    terminal.quit_when_interrupted("tf_dpred")

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from logging import INFO, WARNING, Formatter, LogRecord
from typing import Any, NamedTuple

from absl import app, flags, logging

from tf_dpred import errors, recipes
from tf_dpred import flags as tf_dpred_flags
from tf_dpred.config import Config, FilesConfig, refuse
from tf_dpred.encoders import settings
from tf_dpred.system import quiet, terminal

NAME = "tf_dpred"
Run = Callable[[Config, FilesConfig], int | None]


class Mode(NamedTuple):
    """What `--mode` can be.

    Attributes:
      help: what it does, for the list of modes.
      function: "module:name" within tf_dpred, a `Run`. It is imported after the
        settings were validated, prints its result, logs its progress, and returns an
        exit code (None: 0).
      settings: makes the validated Config from the settings that were given.
      files: the fields of `FilesConfig` that it reads; others are refused.
    """

    help: str
    function: str
    settings: Callable[[Mapping[str, Any]], Config]
    files: tuple[str, ...] = ()

    def load(self) -> Run:
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(f"tf_dpred.{module}"), name)


def _of_compile(given: Mapping[str, Any]) -> Config:
    """The given settings, of a step that makes whole views of images beside it."""
    needed = {"augment_on": "device", "cache": "device"}
    for name, value in needed.items():
        if given.get(name, value) != value:
            refuse(name, given[name], f"{value} with --mode=compile")
    if given.get("keep_last_batch"):
        accepted = "false with --mode=compile: batches of one size"
        refuse("keep_last_batch", True, accepted)
    return Config.from_dict({**given, **needed})


# GIVEN: the given settings alone. RECORDED: an encoder's run, changed by those. EITHER:
# a run, if --workdir names the directory of one.
GIVEN, RECORDED = Config.from_dict, settings.of_encoder
EITHER = settings.of_directory

MODES = {
    "pretrain": Mode("train an encoder, or continue (the default)", "train:run", GIVEN),
    "preview": Mode("draw views of the images", "reports.preview:run", EITHER),
    "diagnose": Mode("is the run healthy?", "reports.diagnosis:run", GIVEN),
    "report": Mode(
        "the run, and others --beside it, on one HTML page",
        "reports.page:run",
        GIVEN,
        ("output", "beside"),
    ),
    "linear_eval": Mode(
        "accuracy of a linear classifier", "evaluation.evaluate:linear_eval", RECORDED
    ),
    "knn": Mode("accuracy of nearest neighbours", "evaluation.evaluate:knn", RECORDED),
    "finetune": Mode(
        "accuracy after training on few labels",
        "evaluation.evaluate:finetune",
        RECORDED,
    ),
    "evaluate": Mode(
        "is the encoder better than what there was?",
        "evaluation.compare:run",
        RECORDED,
        ("baseline",),
    ),
    "export": Mode("SavedModel, .keras, ONNX, LiteRT", "encoders.export:run", RECORDED),
    "embed": Mode(
        "features of the images in --data_dir",
        "encoders.embed:run",
        RECORDED,
        ("output",),
    ),
    "search": Mode(
        "the images that are most like --query",
        "encoders.search:run",
        RECORDED,
        ("output", "features", "query", "neighbours", "index"),
    ),
    "duplicates": Mode(
        "near duplicates among the images of --features",
        "encoders.duplicates:run",
        EITHER,
        ("output", "features", "neighbours", "index", "likeness"),
    ),
    "outliers": Mode(
        "the images of --features that are like no others",
        "encoders.outliers:run",
        EITHER,
        ("output", "features"),
    ),
    "convert_to_torch": Mode(
        "weights as torchvision names them", "encoders.torch:run", RECORDED, ("output",)
    ),
    "compile": Mode(
        "the training step for machines without TensorFlow",
        "compilation:run",
        _of_compile,
        ("output",),
    ),
    "check_images": Mode("files of --data_dir to be left out", "data.check:run", GIVEN),
    "shrink_images": Mode(
        "smaller copies of the images in --data_dir",
        "data.shrink:run",
        GIVEN,
        ("output", "short_side", "quality"),
    ),
}

# What a mode was called before.
RENAMED = {"neighbours": "search"}

tf_dpred_flags.define_mode([*MODES, *RENAMED])
flags.adopt_module_key_flags(tf_dpred_flags)


def main(argv: Sequence[str]) -> int:
    """Runs `--mode`.

    Args:
      argv: the program's name; all flags were parsed by `parse`.

    Returns:
      The exit code, see `errors`. A refusal or a failure ends with one line; a bug
      shows its traceback.
    """
    return terminal.run(NAME, _run_mode)


def _run_mode() -> int | None:
    name = flags.FLAGS.mode
    mode = MODES[RENAMED.get(name, name)]
    config = mode.settings(tf_dpred_flags.given_settings())
    files = _files(mode)
    with terminal.quits_when_interrupted(NAME), quiet.start():
        function = mode.load()
    return function(config, files)


def _files(mode: Mode) -> FilesConfig:
    given = tf_dpred_flags.given_files()
    for name in sorted(given.keys() - set(mode.files)):
        takers = [other for other, m in MODES.items() if name in m.files]
        refuse(name, given[name], f"with --mode={', '.join(takers)} only")
    return FilesConfig(**given)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong flag ends the program with one line."""
    logging.set_verbosity(logging.INFO)
    # Set on the handler, which also gets the records of TensorFlow's own logger.
    handler = logging.get_absl_handler()
    handler.addFilter(_is_not_chatter)
    handler.setFormatter(_Line())
    try:
        given = flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)
        if recipes.asks_for_help(given):
            _show(recipes.table())
            sys.exit(0)
        left = flags.FLAGS(recipes.expand([argv[0], *given]))
    except (flags.Error, errors.Refused, OSError) as error:
        message = str(error).removeprefix("ERROR:: ") + recipes.hint(str(error))
        sys.exit(terminal.complain(NAME, message, errors.REFUSED))
    if left[1:]:
        message = f"received {left[1:]!r}, accepted: flags (--name=value)."
        sys.exit(terminal.complain(NAME, message, errors.REFUSED))
    return left


class _Line(Formatter):
    """Shows time and text, and the level unless it is INFO.

    absl's own format adds date, process and file, which take half of a line.
    """

    def __init__(self):
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def format(self, record: LogRecord) -> str:
        line = super().format(record)
        if record.levelno == INFO:
            return line
        time, _, text = line.partition(" ")
        return f"{time} {record.levelname.lower()}: {text}"


def _is_not_chatter(record: LogRecord) -> bool:
    """Whether to show a line: TensorFlow and TensorBoard may only warn."""
    own = (("tensorflow", "python"), ("tensorboard", "backend"))
    theirs = [os.sep + os.path.join(*parts) + os.sep for parts in own]
    return record.levelno >= WARNING or not any(p in record.pathname for p in theirs)


def _show(text: str) -> None:
    """Prints a text that a user may cut short, as by `| head`."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)


def run() -> None:
    """Entry point of the `tf-dpred` command."""
    terminal.quit_when_interrupted(NAME)
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        _show(tf_dpred_flags.usage({name: mode.help for name, mode in MODES.items()}))
        return
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    run()
