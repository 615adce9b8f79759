"""Objects in S3 that are read within limits, and the upload bucket with its forms and result objects."""

import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from litelens.aws import clients
from litelens.aws.clients import Deadline, aws_client, call_with_retry, storage_errors
from litelens.aws.errors import (
    BucketNotAllowed,
    ObjectAccessDenied,
    ObjectNotFound,
    ObjectVersionNotFound,
    StorageError,
)
from litelens.core.errors import ImageTooLarge

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef, HeadObjectOutputTypeDef

T = TypeVar("T")

# The prefix whose objects are classified, and the prefix of the results, which sends no notifications.
UPLOADS_PREFIX, RESULTS_PREFIX = "uploads/", "results/"

_CHUNK = 65536

S3_SCHEME = "s3://"
_S3_URI = re.compile(rf"{S3_SCHEME}([^/?#]+)(?:/(.*))?", re.DOTALL)

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html; version ids have the same limit.
_MAX_KEY_BYTES = 1024

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_NOT_FOUND = (ObjectNotFound, "There is no such object in S3.")
_NO_VERSION = (ObjectVersionNotFound, "The object in S3 has no such version.")
_DENIED = (ObjectAccessDenied, "S3 denies access to this object; ask the owner of its bucket for the permission.")
_CHANGED = (ObjectVersionNotFound, "The object in S3 has been overwritten.")
_ARCHIVED = (ObjectAccessDenied, "The object is archived; restore it in S3 before you send the request again.")
_ENCRYPTED = (ObjectAccessDenied, "The object is encrypted with a key that this service cannot use; ask its owner.")
_ELSEWHERE = (ObjectAccessDenied, "The bucket is in another region, and S3 does not redirect to it; ask the operator.")
_ERRORS: dict[str | int, tuple[type[StorageError], str]] = {
    "InvalidArgument": _NO_VERSION,
    "InvalidObjectState": _ARCHIVED,
    # The object is encrypted with a key that its owner must send with each request.
    "InvalidRequest": _ENCRYPTED,
    "InvalidURI": _NOT_FOUND,
    "NoSuchVersion": _NO_VERSION,
    301: _ELSEWHERE,
    403: _DENIED,
    404: _NOT_FOUND,
    # The requested version is a delete marker.
    405: _NOT_FOUND,
    # The object has another ETag.
    412: _CHANGED,
}

# Version 7 with the variant of RFC 9562, section 5.7.
_UPLOAD_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_VERSION_7, _VARIANT = 0x7 << 76, 0b10 << 62

# Extra seconds for an upload that started before the form expired, and for differences between clocks.
_GRACE = 60


@dataclass(frozen=True)
class ObjectLocation:
    """The location of an object in S3, by default of its latest version. If `etag` is set, the object's must match."""

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None


class ObjectReader:
    """Reads objects of some buckets, up to a size in bytes."""

    def __init__(self, buckets: Collection[str], max_bytes: int) -> None:
        self._buckets = frozenset(buckets)
        self._max_bytes = max_bytes

    def read(self, location: ObjectLocation, deadline: Deadline) -> bytes:
        """Return the object's bytes.

        Raises BucketNotAllowed, ObjectNotFound, ObjectVersionNotFound, ObjectAccessDenied, ImageTooLarge,
        StorageTimeout or StorageUnavailable. Without the permission s3:ListBucket, S3 reports a missing object as
        access denied.
        """
        if location.bucket not in self._buckets:
            raise BucketNotAllowed("This service does not read this bucket; ask its operator to allow it.")
        if not is_object_key(location.key):
            raise ObjectNotFound(f"No object in S3 has such a key; keys have 1 to {_MAX_KEY_BYTES:,} bytes of UTF-8.")
        if location.version_id is not None and not is_object_key(location.version_id):
            raise ObjectVersionNotFound("No object in S3 has a version with such an id.")
        return _call_s3(lambda: self._read_once(location, deadline), deadline)

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


@dataclass(frozen=True)
class UploadForm:
    """A form for one image: send `fields` and then `file` as multipart/form-data to `url` within `expires_in` seconds.

    `id` is the upload's id; `max_bytes` is the largest file that S3 accepts.
    """

    id: str
    url: str
    fields: Mapping[str, str]
    expires_in: int
    max_bytes: int


class UploadBucket:
    """The bucket for uploaded images and their results.

    The key of an image that was uploaded with a form ends in the upload's id. Other clients choose their own keys.
    """

    def __init__(self, bucket: str, max_bytes: int, expires_in: int = 300) -> None:
        """`expires_in` is the lifetime of upload forms in seconds."""
        self.bucket = bucket
        self._max_bytes = max_bytes
        self._expires_in = expires_in

    def create_form(self, content_type: str) -> UploadForm:
        """Return a form for one image of this type and of at most `max_bytes`; raises StorageUnavailable."""
        upload_id = _new_upload_id()
        with storage_errors("S3"):
            form = s3_client().generate_presigned_post(
                self.bucket,
                image_key(upload_id),
                Fields={"Content-Type": content_type},
                Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, self._max_bytes]],
                ExpiresIn=self._expires_in,
            )
        return UploadForm(upload_id, form["url"], form["fields"], self._expires_in, self._max_bytes)

    def has_image(self, upload_id: str, deadline: Deadline) -> bool:
        """Return whether the upload's image exists; raises StorageError."""
        return self._head(image_key(upload_id), deadline) is not None

    def accepts_upload(self, upload_id: str) -> bool:
        """Return whether the upload's form is still valid; false for an id whose time is in the future."""
        return -_GRACE < time.time() - _created_at(upload_id) < self._expires_in + _GRACE

    def save_results(self, batch: str, documents: Sequence[bytes], on: date, deadline: Deadline) -> None:
        """Save the JSON documents of a batch as the lines of one object.

        Raises StorageTimeout, and StorageUnavailable also if access is denied: only the operator can allow it.
        """
        key, body = results_key(batch, on), b"".join(document + b"\n" for document in documents)
        call_with_retry(
            lambda: s3_client().put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/jsonl"),
            deadline,
            "S3",
        )

    def _head(self, key: str, deadline: Deadline) -> "HeadObjectOutputTypeDef | None":
        try:
            return _call_s3(lambda: s3_client().head_object(Bucket=self.bucket, Key=key), deadline)
        except ObjectNotFound:
            return None


def parse_s3_uri(uri: str) -> ObjectLocation:
    """Return the location that an S3 URI names; the key is empty if the URI has only a bucket. Raises ValueError."""
    found = _S3_URI.fullmatch(uri)
    if not found:
        raise ValueError("An S3 URI must be like s3://bucket/key.")
    return ObjectLocation(found[1], found[2] or "")


def is_object_key(text: str) -> bool:
    """Return whether S3 allows this text as an object's key or as a version id."""
    try:
        return 1 <= len(text.encode()) <= _MAX_KEY_BYTES
    except UnicodeEncodeError:
        return False


def is_upload_id(text: str) -> bool:
    """Return whether this is a UUIDv7 as create_form() writes it: in lower case, with hyphens."""
    return _UPLOAD_ID.fullmatch(text) is not None


def is_form_key(key: str) -> bool:
    """Return whether an image with this key may have been uploaded with a form."""
    return key.startswith(UPLOADS_PREFIX) and is_upload_id(key.removeprefix(UPLOADS_PREFIX))


def image_key(upload_id: str) -> str:
    """Return the key of an upload's image; raises ValueError if this is not an upload id."""
    if not is_upload_id(upload_id):
        raise ValueError("This is not the id of an upload.")
    return f"{UPLOADS_PREFIX}{upload_id}"


def results_key(batch: str, on: date) -> str:
    """Return the key of the results of a batch, for example `results/2026-11-30/BATCH.jsonl`."""
    return f"{RESULTS_PREFIX}{on}/{batch}.jsonl"


def s3_client() -> "S3Client":
    """Return the process's client for S3."""
    client: S3Client = aws_client("s3")
    return client


def _call_s3(attempt: Callable[[], T], deadline: Deadline) -> T:
    return call_with_retry(attempt, deadline, "S3", _to_error)


def _to_error(error: "ClientError") -> StorageError | None:
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    found = _ENCRYPTED if code.startswith("KMS.") else _ERRORS.get(code) or _ERRORS.get(status)
    if found is None:
        return None
    error_class, message = found
    return error_class(message)


def _receive(body: Any, connection: Any, length: int, deadline: Deadline) -> bytes:
    """Read a body of `length` bytes; raises TimeoutError at the deadline, even if bytes still arrive."""
    from botocore.exceptions import IncompleteReadError

    received = bytearray()
    while len(received) < length:
        remaining = deadline.remaining()
        if remaining <= 0:
            raise TimeoutError("The object did not arrive in time.")
        body.set_socket_timeout(min(clients.READ_SECONDS, remaining))
        # read() would wait for all bytes, with a new timeout for each packet.
        chunk = connection.read1(min(_CHUNK, length - len(received)))
        if not chunk:
            raise IncompleteReadError(actual_bytes=len(received), expected_bytes=length)
        received += chunk
    return bytes(received)


def _new_upload_id() -> str:
    """Return a UUIDv7 (RFC 9562), which Python has from 3.14 on: 48 bits of milliseconds since 1970, then random."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10)) & ~(0xF << 76) & ~(0b11 << 62)
    return str(UUID(int=milliseconds << 80 | _VERSION_7 | _VARIANT | random))


def _created_at(upload_id: str) -> float:
    """Return the seconds since 1970 at which the id was made."""
    return (UUID(upload_id).int >> 80) / 1000
