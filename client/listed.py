"""Results of the table as text, each a stream of pieces to print that come as the results do."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from client.output import csv_line, printable
from client.table import Saved
from handlers.answers import BulkResult, Failure

COLUMNS = (
    "key",
    "revision",
    "model",
    "time",
    "status",
    "label",
    "confidence",
    "uncertain",
    "group",
    "code",
    "detail",
)

# The key comes last in a row, where it needs no width that only the last result would tell.
_ROW = "{:19}  {:24}  {:>10}  {:9}  {}"

Format = Callable[[Iterable[Saved]], Iterator[str]]


def documents(saved: Iterable[Saved]) -> Iterator[str]:
    """The JSON documents as they were saved, one in a line."""
    for item in saved:
        yield item.document.decode() + "\n"


def csv_lines(saved: Iterable[Saved]) -> Iterator[str]:
    """COLUMNS and a row for each result, as RFC 4180 has it; no cell is a formula."""
    yield csv_line(COLUMNS)
    for item in saved:
        yield csv_line(_cells(item.result))


def rows(saved: Iterable[Saved]) -> Iterator[str]:
    """A row for each result: when, the label or the problem's code, the confidence, whether uncertain, and the key."""
    yield _row("time", "label", "confidence", "uncertain", "key")
    for item in saved:
        result = item.result
        at = f"{datetime.fromisoformat(result.time):%Y-%m-%d %H:%M:%S}"
        if isinstance(result.result, Failure):
            yield _row(at, f"failed: {result.result.problem.code}", "", "", result.key)
        else:
            best = result.result.predictions[0]
            uncertain = "uncertain" if result.result.uncertain else ""
            yield _row(at, best.label, f"{best.confidence:.1%}", uncertain, result.key)


def _row(*cells: str) -> str:
    return _ROW.format(*map(printable, cells)).rstrip() + "\n"


def _cells(result: BulkResult) -> tuple[str, ...]:
    head = (result.key, result.revision, f"{result.model.name}/{result.model.version}", result.time)
    found = result.result
    if isinstance(found, Failure):
        return (*head, "failed", "", "", "", "", found.problem.code, found.problem.detail)
    best, group = found.predictions[0], found.group
    return (
        *head,
        "done",
        best.label,
        str(best.confidence),
        "true" if found.uncertain else "false",
        group.label if group else "",
        "",
        "",
    )
