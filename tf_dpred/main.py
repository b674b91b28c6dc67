"""`python -m tf_dpred.main --flagfile=configs/quickstart.cfg`: flags, then one mode."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from logging import INFO, WARNING, Formatter, LogRecord

from absl import app, flags, logging

from tf_dpred import errors
from tf_dpred import flags as tf_dpred_flags
from tf_dpred.errors import Preempted, RunFailed
from tf_dpred.system import quiet

flags.adopt_module_key_flags(tf_dpred_flags)


def main(argv: Sequence[str]) -> None:
    """Runs `--mode`; bad input ends it with one line and exit code 2."""
    try:
        if len(argv) > 1:
            raise ValueError(f"received {argv[1:]!r}, accepted: flags (--name=value).")
        config = tf_dpred_flags.config_from_flags()
        with quiet.start():
            import tensorflow  # noqa: F401
        if flags.FLAGS.mode == "preview":
            from tf_dpred import build
            from tf_dpred.data.bad_images import BadImages
            from tf_dpred.reports import preview

            source = build.training_source(
                config, BadImages(config.data.max_bad_images)
            )
            logging.info("wrote %s", preview.write(config, source))
            return
        if flags.FLAGS.mode == "diagnose":
            from tf_dpred.reports import diagnosis

            print(diagnosis.report(config.training.workdir))
            return
        if flags.FLAGS.mode != "pretrain":
            from tf_dpred import downstream

            print(downstream.run(flags.FLAGS.mode, tf_dpred_flags.given_settings()))
            return
        from tf_dpred import train

        run = train.Pretraining(config)
    except (ValueError, OSError, RunFailed) as error:
        logging.debug("refused", exc_info=True)
        failed = isinstance(error, RunFailed)
        sys.exit(_complain(error, errors.FAILED if failed else errors.REFUSED))
    try:
        run.train()
    except Preempted as stop:
        logging.info("%s", stop)
        sys.exit(errors.PREEMPTED)
    except (FloatingPointError, OSError, RunFailed) as error:
        sys.exit(_complain(error, errors.FAILED))


def parse(argv: Sequence[str]) -> list[str]:
    """Parses the command line; a wrong flag ends the program with one line."""
    logging.set_verbosity(logging.INFO)
    # The handler: TensorFlow has a logger of its own, which passes its records on.
    handler = logging.get_absl_handler()
    handler.addFilter(_is_not_chatter)
    handler.setFormatter(_Line())
    try:
        return flags.FLAGS(argv)
    except (flags.Error, OSError) as error:
        sys.exit(_complain(error, errors.REFUSED))


class _Line(Formatter):
    """Time and text; the level only where it is not that of usual news.

    A date, process and file, as absl's own, would take half of a line.
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
    """Whether a line is a warning, or not one of TensorFlow's own."""
    own = os.sep + os.path.join("tensorflow", "python") + os.sep
    return record.levelno >= WARNING or own not in record.pathname


def _complain(error: Exception, code: int) -> int:
    print("tf_dpred: " + " ".join(str(error).split()), file=sys.stderr)
    return code


def run() -> None:
    """Entry point of the `tf-dpred` command."""
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    run()
