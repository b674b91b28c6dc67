"""Logs how fast long work over many files goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from absl import logging

SECONDS = 10
"""Between two lines."""

Item = TypeVar("Item")


def logged(
    items: Iterable[Item], total: int, each: int = 1, what: str = "images"
) -> Iterator[Item]:
    """Passes items on, and logs now and then how many images were worked on.

    Args:
      items: what is worked on.
      total: images in all.
      each: images of an item; the last one may hold fewer.
      what: is worked on, in words.

    Yields:
      The items. The work on one is taken to be done when the next is asked for.
    """
    start = shown = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - shown > SECONDS:
            done = min(count * each, total)
            rate = done / (now - start)
            logging.info("%d/%d %s, %.0f/s", done, total, what, rate)
            shown = now
