"""The results of photos that were uploaded, as they come into the table."""

import time
from collections.abc import Iterator, Sequence

import msgspec

from client.aws import AwsError
from client.results import Answer, Failed, Labelled, Result
from client.sending import Sent
from client.table import Table
from handlers.answers import BulkResult, Failure

# Questions at a time, as many as the adapters' client has connections for.
_PARALLEL = 16

# Seconds between looks.
_PAUSE = 2.0

# Seconds. A message that the function fails at comes again twice, each time after six times BulkTimeout, by default a
# minute.
_LONGEST_WAIT = 1800.0


def follow(sent: Sequence[Sent], bucket: str, table: Table) -> Iterator[Result]:
    """The result of each photo, as soon as it is in the table, in any order.

    Raises AwsError, also when none has come for half an hour.
    """
    from multiprocessing.pool import ThreadPool

    # Its threads do not keep the process from ending.
    with ThreadPool(_PARALLEL) as pool:
        missing, last_came = list(sent), time.monotonic()
        while missing:
            found = pool.imap(lambda photo: table.find(bucket, photo.key, photo.revision), missing)
            still_missing = []
            for photo, result in zip(missing, found, strict=True):
                if result is None:
                    still_missing.append(photo)
                else:
                    last_came = time.monotonic()
                    yield _result(photo.name, result)
            missing = still_missing
            if missing:
                _wait(len(missing), last_came)


def _wait(missing: int, last_came: float) -> None:
    if time.monotonic() - last_came > _LONGEST_WAIT:
        raise AwsError(
            f"No result has come for {_LONGEST_WAIT / 60:.0f} minutes, and {missing:,} are missing. What could not be "
            "classified is in the queue that the stack's output ImagesDeadLettersUrl names."
        )
    time.sleep(_PAUSE)


def _result(name: str, saved: BulkResult) -> Result:
    if isinstance(saved.result, Failure):
        problem = saved.result.problem
        return Failed(name, problem.code, problem.detail, problem.request_id)
    return Labelled(name, Answer(model=saved.model, **msgspec.structs.asdict(saved.result)))
