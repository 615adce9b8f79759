"""Trying again what failed in passing, for as long as the deadline allows."""

import time
from collections.abc import Callable
from secrets import SystemRandom
from typing import TypeVar

from adapters.deadline import Deadline

T = TypeVar("T")

# Seconds. The longest pause doubles with each attempt, and a pause is anything up to that ("full jitter", see
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
_FIRST_PAUSE = 0.1

# Processes restored from one snapshot share the state of `random`, and would all come back at the same moment.
_random = SystemRandom()

# What AWS says to those who ask too often, with whatever status.
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}


def retry(
    attempt: Callable[[], T],
    is_transient: Callable[[Exception], bool],
    deadline: Deadline,
    attempt_seconds: float = 0,
) -> T:
    """What `attempt` returns, called again after each transient error with ever longer pauses between.

    No attempt is begun with less than `attempt_seconds` to the deadline, which is 0 for attempts that end by the
    deadline themselves. Raises TimeoutError when there is not even time for the first, else the error of the last.
    """
    if deadline.remaining() < attempt_seconds:
        raise TimeoutError("There is no time left to ask AWS.")
    longest_pause = _FIRST_PAUSE
    while True:
        pause = _random.uniform(0, longest_pause)
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error) or deadline.remaining() < pause + attempt_seconds:
                raise
        time.sleep(pause)
        longest_pause *= 2


def is_transient(error: Exception) -> bool:
    """Whether a call of boto3 failed in a way that may be over the next time."""
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
    from botocore.exceptions import ConnectionError as NoConnection
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status >= 500 or status == 429 or error.response["Error"]["Code"] in _THROTTLED
    # Reading a body, botocore lets errors of urllib3 through.
    return isinstance(error, NoConnection | HTTPClientError | HTTPError | IncompleteReadError)


def is_timeout(error: Exception) -> bool:
    """Whether a call of boto3, or retry itself, failed for want of time."""
    from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
    from urllib3.exceptions import TimeoutError as HTTPTimeoutError

    return isinstance(error, TimeoutError | ConnectTimeoutError | ReadTimeoutError | HTTPTimeoutError)
