"""The upload bucket: images that were put there, by a form of ours or by hand, and the results beside them."""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from adapters.calls import storage_errors
from adapters.deadline import Deadline
from adapters.errors import ObjectNotFound
from adapters.objects import ObjectLocation, ask_s3, is_object_key, s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

# The prefix that notifies, and the one that never does.
IMAGES, RESULTS = "uploads/", "results/"

# Version 7 with the variant of RFC 9562, section 5.7.
_UPLOAD_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_VERSION_7, _VARIANT = 0x7 << 76, 0b10 << 62

# Seconds for an upload that was begun in time to arrive, and for clocks that differ.
_GRACE = 60


@dataclass(frozen=True)
class Upload:
    """A form for one image: `fields` and then `file`, as multipart/form-data to `url`, within `expires_in` seconds."""

    id: str
    url: str
    fields: Mapping[str, str]
    expires_in: int
    max_bytes: int


class Uploads:
    """The bucket that takes images, each under its upload's id or a key of its owner's choice."""

    def __init__(self, bucket: str, max_bytes: int, expires_in: int = 900) -> None:
        """`expires_in` is in seconds."""
        self.bucket = bucket
        self._max_bytes = max_bytes
        self._expires_in = expires_in

    def create(self, content_type: str) -> Upload:
        """A form that takes one image of this type and at most `max_bytes`; raises StorageUnavailable."""
        upload_id = _new_id()
        with storage_errors("S3"):
            form = s3_client().generate_presigned_post(
                self.bucket,
                image_key(upload_id),
                Fields={"Content-Type": content_type},
                Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, self._max_bytes]],
                ExpiresIn=self._expires_in,
            )
        return Upload(upload_id, form["url"], form["fields"], self._expires_in, self._max_bytes)

    def is_there(self, upload_id: str, deadline: Deadline) -> bool:
        """Whether an image has arrived and not been deleted; raises StorageError."""
        return self._head(image_key(upload_id), deadline) is not None

    def is_at(self, location: ObjectLocation, deadline: Deadline) -> bool:
        """Whether what is in this place now is this version, or has this etag; raises StorageError."""
        head = self._head(location.key, deadline)
        if head is None:
            return False
        if location.version_id is not None:
            return head.get("VersionId") == location.version_id
        return head["ETag"].strip('"') == location.etag

    def _head(self, key: str, deadline: Deadline) -> "HeadObjectOutputTypeDef | None":
        try:
            return ask_s3(lambda: s3_client().head_object(Bucket=self.bucket, Key=key), deadline)
        except ObjectNotFound:
            return None

    def is_open(self, upload_id: str) -> bool:
        """Whether an image may still arrive: the id is not from the future, and its form has not run out."""
        return -_GRACE < time.time() - _created_at(upload_id) < self._expires_in + _GRACE

    def save_result(self, key: str, document: bytes, deadline: Deadline) -> None:
        """Keep this JSON as the result of the image at `key`; raises StorageError."""
        to = result_key(key)
        ask_s3(
            lambda: s3_client().put_object(Bucket=self.bucket, Key=to, Body=document, ContentType="application/json"),
            deadline,
        )


def is_upload_id(text: str) -> bool:
    """Whether this is a UUIDv7 as create() writes it: in lower case, with hyphens."""
    return _UPLOAD_ID.fullmatch(text) is not None


def image_key(upload_id: str) -> str:
    """Where an upload's image is put; raises ValueError for an id that is none."""
    if not is_upload_id(upload_id):
        raise ValueError("There is no such upload; its id is not one that was given out here.")
    return f"{IMAGES}{upload_id}"


def result_key(key: str) -> str:
    """Where the result of the image at this key is put: `uploads/a/b.jpg` has it at `results/a/b.jpg.json`.

    Keys that would be too long with that have the SHA-256 of the image's own key instead.
    """
    result = f"{RESULTS}{key.removeprefix(IMAGES)}.json"
    return result if is_object_key(result) else f"{RESULTS}sha256-{hashlib.sha256(key.encode()).hexdigest()}.json"


def _new_id() -> str:
    """A UUIDv7 (RFC 9562), which Python has from 3.14 on: 48 bits of milliseconds since 1970, the rest random."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10)) & ~(0xF << 76) & ~(0b11 << 62)
    return str(UUID(int=milliseconds << 80 | _VERSION_7 | _VARIANT | random))


def _created_at(upload_id: str) -> float:
    """Seconds since 1970."""
    return (UUID(upload_id).int >> 80) / 1000
