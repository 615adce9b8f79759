"""Results as text: the labels of one image, or a table, JSON lines or CSV of many. Each is a stream of pieces to print.

JSON and CSV come line by line as results do; the table comes when all are there.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator

import msgspec

from client.results import Failed, Labelled, Result

COLUMNS = ("image", "label", "confidence", "uncertain", "group", "error_code", "error")

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

# Wide enough that no line is folded where nobody reads it on a terminal.
UNLIMITED_WIDTH = 100_000

Format = Callable[[Iterable[Result]], Iterator[str]]


def labels(results: Iterable[Result]) -> Iterator[str]:
    """The labels of each image and their confidences, best first, and a line when the best is uncertain."""
    for result in results:
        if isinstance(result, Labelled):
            yield _labels(result)


def table(results: Iterable[Result]) -> Iterator[str]:
    """A row for each image, and below a line for each problem; in colour on a terminal only."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = Table("image", "label", box=None, pad_edge=False)
    rows.columns[0].overflow = rows.columns[1].overflow = "fold"
    rows.add_column("confidence", justify="right")
    rows.add_column("uncertain")
    problems = []
    for result in results:
        name = Text(printable(result.name))
        if isinstance(result, Failed):
            rows.add_row(name, Text("failed", "red"))
            problems.append(Text(printable(named(result)), "red"))
        else:
            best = result.answer.predictions[0]
            uncertain = Text("uncertain" if result.answer.uncertain else "", "yellow")
            rows.add_row(name, Text(printable(best.label)), Text(f"{best.confidence:.1%}"), uncertain)
    if not rows.row_count:
        return
    console = Console(width=None if sys.stdout.isatty() else UNLIMITED_WIDTH)
    with console.capture() as captured:
        console.print(rows)
        for problem in problems:
            # Lines are the terminal's to fold, so that a selected one is copied as one.
            console.print(problem, soft_wrap=True)
    yield captured.get()


def json_lines(results: Iterable[Result]) -> Iterator[str]:
    """An object in each line: `source`, `status` and the API's answer when that is `done`, `problem` when `failed`."""
    for result in results:
        yield json.dumps(_document(result)) + "\n"


def csv_lines(results: Iterable[Result]) -> Iterator[str]:
    """COLUMNS and a row for each image, as RFC 4180 has it.

    A cell that a spreadsheet would take for a formula has an apostrophe before it; JSON has names as they are.
    """
    yield csv_line(COLUMNS)
    for result in results:
        yield csv_line(_cells(result))


def csv_line(cells: Iterable[str]) -> str:
    """A row of CSV, in which no cell is a formula."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow(_no_formula(cell) for cell in cells)
    return line.getvalue()


def named(failed: Failed) -> str:
    """Why this image failed, with its name."""
    # Those that were made here begin with it.
    detail = failed.detail if failed.detail.startswith(failed.name) else f"{failed.name}: {failed.detail}"
    return with_request(detail, failed.request_id)


def with_request(detail: str, request_id: str | None) -> str:
    """The detail, and what finds it in the API's logs."""
    return f"{detail} (request {request_id})" if request_id else detail


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor: what is not printable is escaped, as are bytes that are no UTF-8."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _labels(result: Labelled) -> str:
    predictions = [(printable(p.label), p.confidence) for p in result.answer.predictions]
    width = max(len(label) for label, _ in predictions)
    lines = [f"{label:{width}}  {confidence:6.1%}\n" for label, confidence in predictions]
    if result.answer.uncertain:
        lines.append("The best is below the threshold: uncertain.\n")
    return "".join(lines)


def _document(result: Result) -> dict[str, object]:
    if isinstance(result, Labelled):
        return {"source": result.name, "status": "done", **msgspec.to_builtins(result.answer)}
    problem = {"code": result.code, "detail": result.detail}
    if result.request_id is not None:
        problem["request_id"] = result.request_id
    return {"source": result.name, "status": "failed", "problem": problem}


def _cells(result: Result) -> tuple[str, ...]:
    if isinstance(result, Failed):
        return (result.name, "", "", "", "", result.code, result.detail)
    best, group = result.answer.predictions[0], result.answer.group
    return (
        result.name,
        best.label,
        str(best.confidence),
        "true" if result.answer.uncertain else "false",
        group.label if group else "",
        "",
        "",
    )


def _no_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
