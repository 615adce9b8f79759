"""`litelens results`: list the results in the stack's results table, newest day first."""

import itertools
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime

import msgspec

from litelens.api.response_schemas import BulkResult, Failure
from litelens.aws.clients import Deadline
from litelens.aws.errors import StorageError
from litelens.aws.results_table import ResultsTable
from litelens_client.aws import AwsError, aws_errors, uploads_prefix
from litelens_client.output import (
    counted,
    csv_line,
    doubt,
    flag,
    label_cells,
    names,
    percentages,
    print_message,
    printable,
    spinner,
    write_output,
)

COLUMNS = (
    "key",
    "revision",
    "model",
    "time",
    "status",
    "label",
    "confidence",
    "uncertain",
    "unfamiliar",
    "group",
    "code",
    "detail",
)

# The key is last, because its width is unknown until all results have arrived.
_ROW = "{:19}  {:24}  {:>10}  {:10}  {}"

# The maximum number of seconds to wait for the next page of results, including all retries.
_QUERY_TIMEOUT = 30.0


@dataclass(frozen=True)
class StoredResult:
    """A result, and the JSON document in which it is stored."""

    document: bytes
    result: BulkResult


Format = Callable[[Iterable[StoredResult]], Iterator[str]]


class ResultsReader:
    """Reads a results table with boto3's usual credentials, region and endpoint. Threads can share it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._table = ResultsTable(name)

    def check(self) -> None:
        """Raise AwsError if the table does not exist or cannot be read."""
        with self._errors():
            self._table.find_all("", "", Deadline.after(_QUERY_TIMEOUT))

    def find(self, bucket: str, key: str, revision: str) -> BulkResult | None:
        """Return the newest result of this revision of an object, if there is one; raises AwsError."""
        with self._errors():
            documents = self._table.find_all(bucket, key, Deadline.after(_QUERY_TIMEOUT))
        results = (self._decode(document).result for document in documents)
        return next((result for result in results if result.revision == revision), None)

    def between(self, first: date, last: date, prefix: str) -> Iterator[StoredResult]:
        """Yield the results of these days (UTC) for keys under a prefix, newest day first and by key within a day.

        Raises AwsError.
        """
        with self._errors():
            for document in self._table.list(first, last, prefix, _QUERY_TIMEOUT):
                yield self._decode(document)

    def _decode(self, document: bytes) -> StoredResult:
        try:
            return StoredResult(document, msgspec.json.decode(document, type=BulkResult))
        except (ValueError, RecursionError) as error:
            raise AwsError(f"{self._name} is not a results table of litelens.") from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        reasons = {
            "ResourceNotFoundException": f"The table {self._name} does not exist, or not in this region.",
            "ValidationException": f"{self._name} is not a results table of litelens.",
        }
        with aws_errors(f"The table {self._name} cannot be read", "dynamodb:Query", reasons):
            try:
                yield
            except StorageError as error:
                # The cause is the error of AWS or boto3. The message of the StorageError itself is for clients of the
                # API.
                if error.__cause__ and not isinstance(error.__cause__, TimeoutError):
                    raise error.__cause__ from None
                raise AwsError(f"The table {self._name} did not answer in time.") from error


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code."""
    printed = _Printed()
    try:
        results = _selected(arguments)
        # Queried before anything is printed, so that a wrong table leads to an error without a header.
        with spinner("Searching"):
            first = list(itertools.islice(results, 1))
        if not first:
            print_message("No results match.")
        if not (first or arguments.csv):
            return 0
        return 0 if write_output(_format(arguments)(printed.count(itertools.chain(first, results)))) else 1
    except AwsError as error:
        print_message(str(error))
        return 1
    except KeyboardInterrupt:
        print_message(f"Interrupted: {counted(printed.results, 'result')} printed; there may be more.")
        return 130


@dataclass
class _Printed:
    """The number of results that were printed."""

    results: int = 0

    def count(self, stored: Iterable[StoredResult]) -> Iterator[StoredResult]:
        """Yield the results; each counts when the next one is asked for."""
        for item in stored:
            yield item
            self.results += 1


def json_documents(stored: Iterable[StoredResult]) -> Iterator[str]:
    """Yield the JSON documents as they are stored, one per line."""
    for item in stored:
        yield item.document.decode() + "\n"


def csv_rows(stored: Iterable[StoredResult]) -> Iterator[str]:
    """Yield COLUMNS and a row for each result, as in RFC 4180; no cell is a formula."""
    yield csv_line(COLUMNS)
    for item in stored:
        yield csv_line(_cells(item.result))


def text_rows(stored: Iterable[StoredResult]) -> Iterator[str]:
    """Yield a header and a row for each result: time, label or error code, confidence, doubt, key."""
    yield _row("time", "label", "confidence", "doubt", "key")
    for item in stored:
        result = item.result
        time = f"{datetime.fromisoformat(result.time):%Y-%m-%d %H:%M:%S}"
        if isinstance(result.result, Failure):
            yield _row(time, f"failed: {result.result.problem.code}", "", "", result.key)
        else:
            outcome = result.result
            yield _row(time, names(outcome), percentages(outcome), doubt(outcome), result.key)


def _format(arguments: Namespace) -> Format:
    if arguments.json:
        return json_documents
    return csv_rows if arguments.csv else text_rows


def _selected(arguments: Namespace) -> Iterator[StoredResult]:
    today = datetime.now(UTC).date()
    last = min(today, arguments.until.date()) if arguments.until else today
    stored = ResultsReader(arguments.table).between(arguments.since.date(), last, uploads_prefix(arguments.prefix))
    return (item for item in stored if _is_selected(item.result, arguments))


def _is_selected(result: BulkResult, arguments: Namespace) -> bool:
    classified_at = datetime.fromisoformat(result.time)
    if classified_at < arguments.since or (arguments.until and classified_at > arguments.until):
        return False
    return (not arguments.bucket or result.bucket == arguments.bucket) and _matches(result, arguments)


def _matches(result: BulkResult, arguments: Namespace) -> bool:
    """Return whether a result passes the options --failed, --uncertain and --label."""
    outcome = result.result
    if isinstance(outcome, Failure):
        return not (arguments.label or arguments.uncertain)
    return not (
        arguments.failed
        or (arguments.uncertain and not outcome.uncertain)
        or (arguments.label and arguments.label not in [each.label for each in outcome.labels])
    )


def _row(*cells: str) -> str:
    return _ROW.format(*map(printable, cells)).rstrip() + "\n"


def _cells(result: BulkResult) -> tuple[str, ...]:
    head = (result.key, result.revision, result.model.full_name, result.time)
    outcome = result.result
    if isinstance(outcome, Failure):
        return (*head, "failed", "", "", "", "", "", outcome.problem.code, outcome.problem.detail)
    group = outcome.group
    return (
        *head,
        "done",
        *label_cells(outcome),
        flag(outcome.uncertain),
        flag(outcome.unfamiliar),
        group.label if group else "",
        "",
        "",
    )
