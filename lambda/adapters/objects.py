"""Objects in S3: read within limits, and S3's failures as errors of ours."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from adapters.deadline import Deadline
from adapters.errors import (
    BucketNotAllowed,
    ObjectAccessDenied,
    ObjectError,
    ObjectNotFound,
    ObjectVersionNotFound,
    StorageTimeout,
    StorageUnavailable,
)
from adapters.retries import is_timeout, is_transient, retry
from litelens.errors import ImageTooLarge

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef

T = TypeVar("T")

# Seconds. S3 begins to answer within 0.2 seconds, and the advice for it is to give up early and ask again:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-guidelines.html
CONNECT_SECONDS = 1.0
READ_SECONDS = 2.0

_CHUNK = 65536

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html; version ids have the same limit.
_LONGEST_NAME = 1024

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_NOT_FOUND = (ObjectNotFound, "There is no such object in S3.")
_NO_VERSION = (ObjectVersionNotFound, "The object in S3 is not there in this version.")
_DENIED = (ObjectAccessDenied, "S3 denies access to this object; ask the owner of its bucket for the permission.")
_ARCHIVED = (ObjectAccessDenied, "The object is archived; restore it in S3 before you send the request again.")
_ENCRYPTED = (ObjectAccessDenied, "The object is encrypted with a key that may not be used here; ask its owner.")
_ELSEWHERE = (ObjectAccessDenied, "The bucket is in a region that S3 does not lead to; ask whoever runs the service.")
_REFUSALS: dict[str | int, tuple[type[ObjectError], str]] = {
    "InvalidArgument": _NO_VERSION,
    "InvalidObjectState": _ARCHIVED,
    # The object is encrypted with a key that its owner keeps and sends along.
    "InvalidRequest": _ENCRYPTED,
    "InvalidURI": _NOT_FOUND,
    "NoSuchVersion": _NO_VERSION,
    301: _ELSEWHERE,
    403: _DENIED,
    404: _NOT_FOUND,
    # The version asked for is a delete marker.
    405: _NOT_FOUND,
}


@dataclass(frozen=True)
class ObjectLocation:
    """Where an object is; without a version id the latest version is meant."""

    bucket: str
    key: str
    version_id: str | None = None


class Objects:
    """The objects in some buckets, up to a size in bytes."""

    def __init__(self, buckets: Collection[str], max_bytes: int) -> None:
        self._buckets = frozenset(buckets)
        self._max_bytes = max_bytes

    def read(self, location: ObjectLocation, deadline: Deadline) -> bytes:
        """The object's bytes.

        Raises BucketNotAllowed, ObjectNotFound, ObjectVersionNotFound, ObjectAccessDenied, ImageTooLarge,
        StorageTimeout or StorageUnavailable. Without the permission s3:ListBucket, S3 denies access to what is missing.
        """
        if location.bucket not in self._buckets:
            raise BucketNotAllowed("This bucket is not read here; ask whoever runs the service to allow it.")
        if not _is_name(location.key):
            raise ObjectNotFound(f"No object in S3 has such a key; keys have 1 to {_LONGEST_NAME:,} bytes of UTF-8.")
        if location.version_id is not None and not _is_name(location.version_id):
            raise ObjectVersionNotFound("No object in S3 has a version with such an id.")
        return ask(lambda: self._read_once(location, deadline), deadline)

    def _read_once(self, location: ObjectLocation, deadline: Deadline) -> bytes:
        request: GetObjectRequestTypeDef = {"Bucket": location.bucket, "Key": location.key}
        if location.version_id is not None:
            request["VersionId"] = location.version_id
        response = s3_client().get_object(**request)
        length = response["ContentLength"]
        with response["Body"] as connection:
            if length > self._max_bytes:
                raise ImageTooLarge(f"The image has {length:,} bytes; at most {self._max_bytes:,} are accepted.")
            return _receive(response["Body"], connection, length, deadline)


@cache
def s3_client() -> "S3Client":
    """The process's client for S3, made when it is first used. It does not retry: ask() does, by the deadline."""
    from boto3.session import Session
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Otherwise forms are signed in the old way in us-east-1, and elsewhere sent to an address that redirects.
        signature_version="s3v4",
        s3={"addressing_style": "virtual"},
        # Bodies are read past botocore's stream, which is what would compare checksums.
        response_checksum_validation="when_required",
    )
    # Unlike boto3's default session, one of its own may be used beside other threads.
    session = Session()
    if session.get_credentials() is None:
        # Requests would say so themselves, but signing a form breaks without a word.
        raise NoCredentialsError
    return session.client("s3", config=config)


def ask(attempt: Callable[[], T], deadline: Deadline) -> T:
    """What `attempt` returns, which calls S3 once, with retries until the deadline; raises ObjectError."""
    with storage_errors():
        return retry(attempt, is_transient, deadline, CONNECT_SECONDS + READ_SECONDS)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Makes the errors of boto3, urllib3 and retry ours, without their texts, which may hold keys and addresses."""
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _refusal(error) from error
    except (BotoCoreError, HTTPError, TimeoutError) as error:
        if is_timeout(error):
            raise StorageTimeout("S3 did not answer in time; the request may be sent again.") from error
        raise _unavailable() from error


def _refusal(error: "ClientError") -> ObjectError:
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    refusal = _ENCRYPTED if code.startswith("KMS.") else _REFUSALS.get(code) or _REFUSALS.get(status)
    if refusal is None:
        return _unavailable()
    kind, message = refusal
    return kind(message)


def _unavailable() -> StorageUnavailable:
    return StorageUnavailable("S3 cannot be used at the moment; the request may be sent again.")


def _is_name(text: str) -> bool:
    try:
        return 1 <= len(text.encode()) <= _LONGEST_NAME
    except UnicodeEncodeError:
        return False


def _receive(body: Any, connection: Any, length: int, deadline: Deadline) -> bytes:
    """The `length` bytes of a body; raises TimeoutError at the deadline, however slowly they come."""
    from botocore.exceptions import IncompleteReadError

    received = bytearray()
    while len(received) < length:
        remaining = deadline.remaining()
        if remaining <= 0:
            raise TimeoutError("The object did not arrive in time.")
        body.set_socket_timeout(min(READ_SECONDS, remaining))
        # read() would wait for all that it is asked for, with a new timeout for each packet.
        chunk = connection.read1(min(_CHUNK, length - len(received)))
        if not chunk:
            raise IncompleteReadError(actual_bytes=len(received), expected_bytes=length)
        received += chunk
    return bytes(received)
