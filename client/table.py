"""The stack's table of results, as the command reads it: failures are AwsError's sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

import msgspec

from adapters.deadline import Deadline
from adapters.errors import StorageError
from adapters.results import Results
from client.aws import AwsError, explained
from handlers.answers import BulkResult

# Seconds, all retries included, for the next results, or for a day to turn out to have no more.
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Saved:
    """A result, and the JSON document as which it was saved."""

    document: bytes
    result: BulkResult


class Table:
    """The table of this name, by boto3's usual credentials, region and endpoint. May be used by several threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._results = Results(name)

    def check(self) -> None:
        """Raises AwsError when the table is not there, or may not be read."""
        with self._explained():
            self._results.of_object("", "", Deadline.after(_ANSWER_SECONDS))

    def find(self, bucket: str, key: str, revision: str) -> BulkResult | None:
        """The newest result of this revision of an object, if there is one; raises AwsError."""
        with self._explained():
            documents = self._results.of_object(bucket, key, Deadline.after(_ANSWER_SECONDS))
        results = (self._saved(document).result for document in documents)
        return next((result for result in results if result.revision == revision), None)

    def between(self, first: date, last: date, prefix: str) -> Iterator[Saved]:
        """The results of these days (UTC) for keys that begin with `prefix`, newest day first, in a day by key.

        Raises AwsError.
        """
        with self._explained():
            for document in self._results.list(first, last, prefix, _ANSWER_SECONDS):
                yield self._saved(document)

    def _saved(self, document: bytes) -> Saved:
        try:
            return Saved(document, msgspec.json.decode(document, type=BulkResult))
        except (ValueError, RecursionError) as error:
            raise AwsError(f"{self._name} is no table of litelens' results.") from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        reasons = {
            "ResourceNotFoundException": f"There is no table {self._name}, or not in this region.",
            "ValidationException": f"{self._name} is no table of litelens' results.",
        }
        with explained(f"The table {self._name} cannot be read", "dynamodb:Query", reasons):
            try:
                yield
            except StorageError as error:
                # What AWS or boto3 said; the adapter's own sentence is for whoever sent a request.
                if error.__cause__ and not isinstance(error.__cause__, TimeoutError):
                    raise error.__cause__ from None
                raise AwsError(f"The table {self._name} did not answer in time.") from error
