"""How the program ends when it has not done its work: exit codes and exceptions.

`main` chooses the exit code by these classes before TensorFlow is imported, so nothing
here needs it.
"""

from __future__ import annotations

# The exit code of the program.
REFUSED = 2  # bad input: nothing was done
FAILED = 1  # a number not finite, a file not written, no memory left, a worker lost
INTERRUPTED = 130  # Ctrl-C before training began, or in another mode (128 + SIGINT)
PREEMPTED = 75  # SIGTERM, SIGUSR1 or SIGINT; a checkpoint was written (EX_TEMPFAIL)


class Refused(ValueError):
    """Bad input: the message is one line, and nothing was done.

    Raised by `config.refuse` alone. Any other exception is a failure or a bug.
    """


class RunFailed(Exception):
    """A run cannot go on; the message is the line that the user sees."""


class TooManyBadImages(RunFailed):
    """More than `--max_bad_images` files cannot be used."""


class UnreadableImage(RunFailed):
    """A file has vanished, or this user may not read it."""


class OutOfMemory(RunFailed):
    """The memory of the machine or of its GPU does not suffice."""


class WorkerLost(RunFailed):
    """Another worker of the run ended; all must be started again."""


class Preempted(Exception):
    """A signal ended the run after a checkpoint; the same command continues it."""
