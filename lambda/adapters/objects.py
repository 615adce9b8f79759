"""Objects in S3: read within limits, and S3's failures as errors of ours."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from adapters import calls
from adapters.calls import ask, aws_client
from adapters.deadline import Deadline
from adapters.errors import (
    BucketNotAllowed,
    ObjectAccessDenied,
    ObjectNotFound,
    ObjectVersionNotFound,
    StorageError,
)
from litelens.errors import ImageTooLarge

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef

T = TypeVar("T")

_CHUNK = 65536

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html; version ids have the same limit.
_LONGEST_NAME = 1024

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_NOT_FOUND = (ObjectNotFound, "There is no such object in S3.")
_NO_VERSION = (ObjectVersionNotFound, "The object in S3 is not there in this version.")
_DENIED = (ObjectAccessDenied, "S3 denies access to this object; ask the owner of its bucket for the permission.")
_CHANGED = (ObjectVersionNotFound, "The object in S3 was overwritten since.")
_ARCHIVED = (ObjectAccessDenied, "The object is archived; restore it in S3 before you send the request again.")
_ENCRYPTED = (ObjectAccessDenied, "The object is encrypted with a key that may not be used here; ask its owner.")
_ELSEWHERE = (ObjectAccessDenied, "The bucket is in a region that S3 does not lead to; ask whoever runs the service.")
_REFUSALS: dict[str | int, tuple[type[StorageError], str]] = {
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
    # The object has another etag.
    412: _CHANGED,
}


@dataclass(frozen=True)
class ObjectLocation:
    """Where an object is; without a version id the latest version is meant, which may be held to an etag."""

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None


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
        if not is_object_key(location.key):
            raise ObjectNotFound(f"No object in S3 has such a key; keys have 1 to {_LONGEST_NAME:,} bytes of UTF-8.")
        if location.version_id is not None and not is_object_key(location.version_id):
            raise ObjectVersionNotFound("No object in S3 has a version with such an id.")
        return ask_s3(lambda: self._read_once(location, deadline), deadline)

    def _read_once(self, location: ObjectLocation, deadline: Deadline) -> bytes:
        request: GetObjectRequestTypeDef = {"Bucket": location.bucket, "Key": location.key}
        if location.version_id is not None:
            request["VersionId"] = location.version_id
        if location.etag is not None:
            request["IfMatch"] = location.etag
        response = s3_client().get_object(**request)
        length = response["ContentLength"]
        with response["Body"] as connection:
            if length > self._max_bytes:
                raise ImageTooLarge(f"The image has {length:,} bytes; at most {self._max_bytes:,} are accepted.")
            return _receive(response["Body"], connection, length, deadline)


def s3_client() -> "S3Client":
    """The process's client for S3."""
    client: S3Client = aws_client("s3")
    return client


def ask_s3(attempt: Callable[[], T], deadline: Deadline) -> T:
    """What `attempt` returns, which calls S3 once, with retries until the deadline; raises StorageError."""
    return ask(attempt, deadline, "S3", _refusal)


def _refusal(error: "ClientError") -> StorageError | None:
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    refusal = _ENCRYPTED if code.startswith("KMS.") else _REFUSALS.get(code) or _REFUSALS.get(status)
    if refusal is None:
        return None
    kind, message = refusal
    return kind(message)


def is_object_key(text: str) -> bool:
    """Whether an object may have this key, or a version this id."""
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
        body.set_socket_timeout(min(calls.READ_SECONDS, remaining))
        # read() would wait for all that it is asked for, with a new timeout for each packet.
        chunk = connection.read1(min(_CHUNK, length - len(received)))
        if not chunk:
            raise IncompleteReadError(actual_bytes=len(received), expected_bytes=length)
        received += chunk
    return bytes(received)
