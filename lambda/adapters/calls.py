"""Calls to AWS: clients that give up early, tried again by the deadline, their failures as errors of ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from adapters.deadline import Deadline
from adapters.errors import StorageError, StorageTimeout, StorageUnavailable
from adapters.retries import is_timeout, is_transient, retry

if TYPE_CHECKING:
    from boto3.session import Session
    from botocore.exceptions import ClientError

T = TypeVar("T")

# Seconds. S3 begins to answer within 0.2 seconds, and the advice for it is to give up early and ask again:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html
CONNECT_SECONDS = 1.0
READ_SECONDS = 2.0

# More than one image's threads ever use at a time.
_CONNECTIONS = 20

Service = Literal["codedeploy", "dynamodb", "events", "lambda", "s3"]

# Those that images in bulk need.
SERVICES: tuple[Service, ...] = ("dynamodb", "events", "s3")

_clients: list[Any] = []

Refusal = Callable[["ClientError"], StorageError | None]


@cache
def aws_client(service: Service, attempts: int = 1) -> Any:
    """The process's client for a service, made when it is first used.

    With one attempt it does not retry: ask() does, by the deadline.
    """
    client = new_client(new_session(), service, READ_SECONDS, attempts)
    _clients.append(client)
    return client


def new_session() -> "Session":
    """Unlike boto3's default session, one of its own may be used beside other threads."""
    from boto3.session import Session
    from botocore.exceptions import NoCredentialsError

    session = Session()
    if session.get_credentials() is None:
        # Requests would say so themselves, but signing a form breaks without a word.
        raise NoCredentialsError
    return session


def new_client(session: "Session", service: Service, read_seconds: float, attempts: int = 1) -> Any:
    """A client of the caller's own, to be closed, for answers that take longer than others."""
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=read_seconds,
        max_pool_connections=_CONNECTIONS,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        # Otherwise forms are signed in the old way in us-east-1, and elsewhere sent to an address that redirects.
        signature_version="s3v4" if service == "s3" else None,
        s3={"addressing_style": "virtual"},
        # Bodies are read past botocore's stream, which is what would compare checksums.
        response_checksum_validation="when_required",
    )
    return session.client(service, config=config)


def close_connections() -> None:
    """Close the connections of all clients, which open new ones when they are used again."""
    for client in _clients:
        client.close()


def ask(attempt: Callable[[], T], deadline: Deadline, service: str, refusal: Refusal = lambda _: None) -> T:
    """What `attempt` returns, which makes one call, with retries until the deadline; raises StorageError.

    `refusal` makes errors of what this service means by its codes.
    """
    with storage_errors(service, refusal):
        return retry(attempt, is_transient, deadline, CONNECT_SECONDS + READ_SECONDS)


@contextmanager
def storage_errors(service: str, refusal: Refusal = lambda _: None) -> Iterator[None]:
    """Makes the errors of boto3, urllib3 and retry ours, without their texts, which may hold keys and addresses."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise refusal(error) or _unavailable(service) from error
    except (BotoCoreError, HTTPError, TimeoutError) as error:
        if is_timeout(error):
            raise StorageTimeout(f"{service} did not answer in time; the request may be sent again.") from error
        raise _unavailable(service) from error


def _unavailable(service: str) -> StorageUnavailable:
    return StorageUnavailable(f"{service} cannot be used at the moment; the request may be sent again.")
