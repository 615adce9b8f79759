"""boto3 clients with short timeouts, retries until a deadline, and errors of litelens instead of boto3's."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from secrets import SystemRandom
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from litelens.aws.errors import StorageError, StorageTimeout, StorageUnavailable

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.exceptions import ClientError

T = TypeVar("T")

# Seconds. S3 starts to answer within 0.2 seconds, and AWS advises to time out early and retry:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html
CONNECT_SECONDS = 1.0
READ_SECONDS = 2.0

# More connections than the threads of one invocation use at the same time.
_CONNECTIONS = 20

# Seconds. The maximum pause doubles with each attempt, and each pause is random between 0 and the maximum ("full
# jitter", see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
_FIRST_PAUSE = 0.1

# Processes restored from one snapshot share the state of `random`, so they would all retry at the same moment.
_random = SystemRandom()

# AWS's codes for throttling, which come with various HTTP statuses.
_THROTTLED = {
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}

Service = Literal["codedeploy", "dynamodb", "events", "lambda", "s3"]

# The services of the bulk path.
BULK_SERVICES: tuple[Service, ...] = ("dynamodb", "events", "s3")

_clients: list[Any] = []

ErrorMapper = Callable[["ClientError"], StorageError | None]


@dataclass(frozen=True)
class Deadline:
    """A moment on the monotonic clock, in seconds."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline this many seconds from now."""
        return cls(time.monotonic() + seconds)

    def remaining(self) -> float:
        """Return the seconds until the deadline; negative once it has passed."""
        return self.at - time.monotonic()


@cache
def aws_client(service: Service, attempts: int = 1) -> Any:
    """Return the process's client for a service, which the first call creates.

    With one attempt the client does not retry, because call_with_retry does.
    """
    client = new_client(new_session(), service, READ_SECONDS, attempts)
    _clients.append(client)
    return client


def new_session() -> "Session":
    """Return a new boto3 session. Unlike boto3's default session, it is safe to use while other threads use theirs."""
    from boto3.session import Session
    from botocore.exceptions import NoCredentialsError

    session = Session()
    if session.get_credentials() is None:
        # Requests would raise this error themselves, but signing an upload form without credentials does not.
        raise NoCredentialsError
    return session


def new_client(session: "Session", service: Service, read_seconds: float, attempts: int = 1) -> Any:
    """Return a new client, for calls that take longer than others; the caller closes it."""
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        # Without these settings, forms are signed with version 2 in us-east-1, and have a URL that redirects in other
        # regions.
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "virtual"},
        # Checksums are compared by botocore's stream, which litelens.aws.s3 does not use to read bodies.
        response_checksum_validation="when_required",
    )
    return session.client(service, config=config)


def close_connections() -> None:
    """Close the connections of all clients; each client opens new ones when it is used again."""
    for client in _clients:
        client.close()


def call_with_retry(
    attempt: Callable[[], T], deadline: Deadline, service: str, to_error: ErrorMapper = lambda _: None
) -> T:
    """Call `attempt`, which makes one request to AWS, and return its result; retry transient errors until the deadline.

    `to_error` maps AWS's error codes to errors of litelens. Raises StorageError.
    """
    with storage_errors(service, to_error):
        return retry(attempt, is_transient, deadline, CONNECT_SECONDS + READ_SECONDS)


@contextmanager
def storage_errors(service: str, to_error: ErrorMapper = lambda _: None) -> Iterator[None]:
    """Turn errors of boto3, urllib3 and retry() into StorageErrors, without their text, which may contain keys."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise to_error(error) or _unavailable(service) from error
    except (BotoCoreError, HTTPError, TimeoutError) as error:
        if is_timeout(error):
            raise StorageTimeout(f"{service} did not answer in time; send the request again.") from error
        raise _unavailable(service) from error


def retry(
    attempt: Callable[[], T],
    is_transient: Callable[[Exception], bool],
    deadline: Deadline,
    attempt_seconds: float = 0,
) -> T:
    """Call `attempt` and return its result; after a transient error, call it again, with growing random pauses.

    No attempt starts with less than `attempt_seconds` left; pass 0 if each attempt limits its own time. Raises the last
    attempt's error, or TimeoutError if there is not enough time for the first attempt.
    """
    if deadline.remaining() < attempt_seconds:
        raise TimeoutError("There is no time left to call AWS.")
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
    """Return whether a failed boto3 call may succeed when it is repeated."""
    from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
    from botocore.exceptions import ConnectionError as NoConnection
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status >= 500 or status == 429 or error.response["Error"]["Code"] in _THROTTLED
    # While a body is read, botocore passes on errors of urllib3.
    return isinstance(error, NoConnection | HTTPClientError | HTTPError | IncompleteReadError)


def is_timeout(error: Exception) -> bool:
    """Return whether a boto3 call, or retry() itself, ran out of time."""
    from botocore.exceptions import ConnectTimeoutError, ReadTimeoutError
    from urllib3.exceptions import TimeoutError as HTTPTimeoutError

    return isinstance(error, TimeoutError | ConnectTimeoutError | ReadTimeoutError | HTTPTimeoutError)


def error_code(error: Exception) -> str:
    """Return the error code of AWS's response, such as AccessDenied; empty for errors that AWS did not send."""
    from botocore.exceptions import ClientError

    return error.response["Error"]["Code"] if isinstance(error, ClientError) else ""


def _unavailable(service: str) -> StorageUnavailable:
    return StorageUnavailable(f"{service} is not available at the moment; send the request again.")
