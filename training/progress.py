"""Progress of what takes more than a moment, on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

_FIRST, _TERMINAL_EVERY, _LOG_EVERY = 2.0, 0.2, 30.0


def progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items; once they have taken two seconds, how many of them are done: a line that renews itself on a
    terminal, a line now and then elsewhere.
    """
    terminal = sys.stderr.isatty()
    every = _TERMINAL_EVERY if terminal else _LOG_EVERY
    due = time.monotonic() + (_FIRST if terminal else _LOG_EVERY)
    shown = False
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() >= due:
            print(f"{what}: {done:,} of {total:,}", end="\r" if terminal else "\n", file=sys.stderr, flush=True)
            due, shown = time.monotonic() + every, True
    if shown and terminal:
        print(f"{what}: {total:,} of {total:,}", file=sys.stderr, flush=True)


def in_words(seconds: float) -> str:
    """A duration for people: "40 seconds", "7 minutes", "3 hours"."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size)} {unit}s"
    return f"{max(1, round(seconds))} seconds" if round(seconds) > 1 else "a second"
