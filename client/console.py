"""What the commands share of the terminal: output piece by piece, sentences and a bar beside it."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def print_all(pieces: Iterable[str]) -> bool:
    """Print all that comes, as it comes; whether that was possible."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        # Python writes what is left when it ends, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def say(sentence: str) -> None:
    """Tell people something, on standard error."""
    from client.output import printable

    print(printable(sentence), file=sys.stderr)


def with_progress(results: Iterable[T], total: int, description: str, *, as_lines: bool) -> Iterator[T]:
    """The same results, with a bar on standard error while they come, where it tells more than the output does.

    It does not for one result, and neither where results are printed on a terminal `as_lines` while they come.
    """
    if total > 1 and sys.stderr.isatty() and not (as_lines and sys.stdout.isatty()):
        return _with_bar(results, total, description)
    return iter(results)


def _with_bar(results: Iterable[T], total: int, description: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import Progress

    # rich would otherwise take what is printed meanwhile to standard error as well.
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        yield from bar.track(results, total=total, description=description)
