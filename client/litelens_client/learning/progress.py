"""Progress bars and readable durations."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")

_LOG_SECONDS = 30.0


def progress(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield the items and report on standard error how many are done.

    On a terminal the report is a progress bar, which disappears at the end; elsewhere it is a line every 30 seconds.
    """
    if sys.stderr.isatty():
        yield from track(items, description, total=total, console=Console(stderr=True), transient=True)
        return
    due = time.monotonic() + _LOG_SECONDS
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() >= due:
            print(f"{description}: {done:,} of {total:,}", file=sys.stderr, flush=True)
            due = time.monotonic() + _LOG_SECONDS


def format_duration(seconds: float) -> str:
    """Format a duration roughly: "40 seconds", "7 minutes", "3 hours"."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * size:
            return f"{round(seconds / size)} {unit}s"
    return f"{round(seconds)} seconds" if round(seconds) > 1 else "a second"
