"""How a run ends that neither was refused nor came to its end.

`main` chooses the exit code by these classes before TensorFlow is imported, so nothing
here needs it.
"""

from __future__ import annotations


class RunFailed(Exception):
    """A run cannot go on; the message is the line that the user sees."""


class TooManyBadImages(RunFailed):
    """More files than `--max_bad_images` cannot be used."""


class UnreadableImage(RunFailed):
    """A file vanished, or may not be read."""


class WorkerLost(RunFailed):
    """Another worker of the run ended; all must be started again."""


class Preempted(Exception):
    """A signal ended the run after a checkpoint; the same command continues it."""
