"""Output: results as labels, a table, JSON lines or CSV; messages and progress on standard error.

Each format is an iterator of pieces of text. JSON and CSV yield a line for each result as it arrives; the table is
complete only after the last result.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from litelens.api.response_schemas import ImageResult
from litelens_client.answers import Classified, Failed, Result

COLUMNS = ("image", "label", "confidence", "uncertain", "unfamiliar", "group", "model", "error_code", "error")

# Spreadsheets interpret cells that begin with these characters as formulas.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

# Stands between the labels of a photo in CSV.
LABEL_SEPARATOR = ";"

# Wide enough that no line is wrapped if the output is not a terminal.
UNLIMITED_WIDTH = 100_000

T = TypeVar("T")
Format = Callable[[Iterable[Result]], Iterator[str]]


def write_output(pieces: Iterable[str]) -> bool:
    """Print the pieces as they arrive; return False if standard output cannot be written."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"The output cannot be written: {error.strerror}.", file=sys.stderr)
        # Python flushes standard output when it exits, and would report the error a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def print_message(sentence: str) -> None:
    """Print a sentence on standard error."""
    print(printable(sentence), file=sys.stderr)


def track(results: Iterable[T], total: int, description: str, *, as_lines: bool) -> Iterator[T]:
    """Yield the results, with a progress bar on standard error if that is a terminal.

    There is no bar for a single result, or if results are printed `as_lines` on a terminal, because the lines show the
    progress.
    """
    if total > 1 and sys.stderr.isatty() and not (as_lines and sys.stdout.isatty()):
        return _track(results, total, description)
    return iter(results)


def _track(results: Iterable[T], total: int, description: str) -> Iterator[T]:
    with progress_bar() as bar:
        yield from bar.track(results, total=total, description=description)


def progress_bar() -> Progress:
    """Return a context manager that shows a progress bar on standard error, if that is a terminal."""
    return Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        # Otherwise rich redirects what is printed on standard output to standard error.
        redirect_stdout=False,
        disable=not sys.stderr.isatty(),
    )


def spinner(description: str) -> AbstractContextManager[object]:
    """Show a spinner on standard error while the block runs, if that is a terminal."""
    return Console(stderr=True).status(description) if sys.stderr.isatty() else nullcontext()


def label_lines(results: Iterable[Result]) -> Iterator[str]:
    """Yield the labels of each image with their confidences, best first, and a line if the best is uncertain."""
    for result in results:
        if isinstance(result, Classified):
            yield _labels(result)


def table(results: Iterable[Result]) -> Iterator[str]:
    """Yield a table with a row for each image, then a line for each problem; in colour only on a terminal."""
    rows = Table("image", "label", box=None, pad_edge=False)
    rows.columns[0].overflow = rows.columns[1].overflow = "fold"
    rows.add_column("confidence", justify="right")
    rows.add_column("doubt")
    problems = []
    for result in results:
        name = Text(printable(result.name))
        if isinstance(result, Failed):
            rows.add_row(name, Text("failed", "red"))
            problems.append(Text(printable(failure_sentence(result)), "red"))
        else:
            uncertain = Text(doubt(result.answer), "yellow")
            rows.add_row(name, Text(printable(names(result.answer))), Text(percentages(result.answer)), uncertain)
    if not rows.row_count:
        return
    console = Console(width=None if sys.stdout.isatty() else UNLIMITED_WIDTH)
    with console.capture() as captured:
        console.print(rows)
        for problem in problems:
            # Not wrapped here: the terminal does that, so that each line can be copied as a whole.
            console.print(problem, soft_wrap=True)
    yield captured.get()


def json_lines(results: Iterable[Result]) -> Iterator[str]:
    """Yield a JSON object per image: `source`, `status`, and the answer if `done` or the `problem` if `failed`."""
    for result in results:
        yield json.dumps(_document(result)) + "\n"


def csv_lines(results: Iterable[Result]) -> Iterator[str]:
    """Yield COLUMNS and a row for each image, as in RFC 4180.

    A cell that a spreadsheet would interpret as a formula gets an apostrophe in front; in JSON, names are unchanged.
    Several labels, and their confidences, have a semicolon between them.
    """
    yield csv_line(COLUMNS)
    for result in results:
        yield csv_line(_cells(result))


def csv_line(cells: Iterable[str]) -> str:
    """Return a row of CSV in which no cell is a formula."""
    line = io.StringIO(newline="")
    csv.writer(line).writerow(f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell for cell in cells)
    return line.getvalue()


def failure_sentence(failed: Failed) -> str:
    """Return a sentence that names the image and says why it failed."""
    # Details that the client itself writes begin with the name.
    detail = failed.detail if failed.detail.startswith(failed.name) else f"{failed.name}: {failed.detail}"
    return with_request_id(detail, failed.request_id)


def with_request_id(detail: str, request_id: str | None) -> str:
    """Append the id that identifies the request in the API's logs, if there is one."""
    return f"{detail} (request {request_id})" if request_id else detail


def printable(text: str) -> str:
    """Escape unprintable characters, such as control characters and invalid UTF-8, so that no text moves the cursor."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def doubt(result: ImageResult) -> str:
    """Return the reason to doubt an answer: unfamiliar, uncertain, or an empty text."""
    if result.unfamiliar is True:
        return "unfamiliar"
    return "uncertain" if result.uncertain else ""


def names(result: ImageResult) -> str:
    """Return the labels of an answer, for people; those of a multi-label model can be none."""
    return ", ".join(each.label for each in result.labels)


def percentages(result: ImageResult) -> str:
    """Return the confidences of names(), for people."""
    return ", ".join(f"{each.confidence:.1%}" for each in result.labels)


def label_cells(result: ImageResult) -> tuple[str, str]:
    """Return the labels of an answer and their confidences as two cells of CSV."""
    return LABEL_SEPARATOR.join(each.label for each in result.labels), LABEL_SEPARATOR.join(
        str(each.confidence) for each in result.labels
    )


def flag(value: bool | UnsetType) -> str:
    """Return a cell of CSV: true, false, or empty if the model cannot tell."""
    return "" if value is UNSET else str(value).lower()


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 image, 2 images."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _labels(result: Classified) -> str:
    predictions = [(printable(p.label), p.confidence) for p in result.answer.predictions]
    width = max(len(label) for label, _ in predictions)
    present = [each.present is True for each in result.answer.predictions]
    lines = [
        f"{label:{width}}  {confidence:6.1%}{'  present' if is_present else ''}\n"
        for (label, confidence), is_present in zip(predictions, present, strict=True)
    ]
    if result.answer.unfamiliar is True:
        lines.append("Unfamiliar: the photo is unlike all photos that the model was trained on.\n")
    elif result.answer.uncertain:
        which = "no label reaches its" if result.answer.is_multi_label else "the best label is below the"
        lines.append(f"Uncertain: {which} threshold.\n")
    return "".join(lines)


def _document(result: Result) -> dict[str, object]:
    if isinstance(result, Classified):
        return {"source": result.name, "status": "done", **msgspec.to_builtins(result.answer)}
    problem = {"code": result.code, "detail": result.detail}
    if result.request_id is not None:
        problem["request_id"] = result.request_id
    return {"source": result.name, "status": "failed", "problem": problem}


def _cells(result: Result) -> tuple[str, ...]:
    if isinstance(result, Failed):
        return (result.name, "", "", "", "", "", "", result.code, result.detail)
    group = result.answer.group
    return (
        result.name,
        *label_cells(result.answer),
        flag(result.answer.uncertain),
        flag(result.answer.unfamiliar),
        group.label if group else "",
        result.answer.model.full_name,
        "",
        "",
    )
