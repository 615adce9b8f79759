"""Progress bars and readable durations."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from litelens_client.output import progress_bar

Item = TypeVar("Item")

_LOG_SECONDS = 30.0

# Receives the number of items that are done, and of all.
Observer = Callable[[int, int], None]

_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def progress(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield the items and report on standard error how many are done.

    On a terminal the report is a progress bar, which disappears at the end; elsewhere it is a line every 30 seconds.
    Within observed(), the report goes to the observer instead.
    """
    if observe := _observer.get():
        yield from _observed(items, total, observe)
        return
    if sys.stderr.isatty():
        with progress_bar() as bar:
            yield from bar.track(items, total=total, description=description)
        return
    due = time.monotonic() + _LOG_SECONDS
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() >= due:
            print(f"{description}: {done:,} of {total:,}", file=sys.stderr, flush=True)
            due = time.monotonic() + _LOG_SECONDS


@contextlib.contextmanager
def observed(observe: Observer) -> Iterator[None]:
    """Report the progress of this thread to an observer until the block ends."""
    token = _observer.set(observe)
    try:
        yield
    finally:
        _observer.reset(token)


def _observed(items: Iterable[Item], total: int, observe: Observer) -> Iterator[Item]:
    observe(0, total)
    for done, item in enumerate(items, start=1):
        yield item
        observe(done, total)


def format_duration(seconds: float) -> str:
    """Format a duration roughly: "40 seconds", "7 minutes", "3 hours"."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size)} {unit}s"
    return f"{round(seconds)} seconds" if round(seconds) > 1 else "a second"
