"""Large images, which go around the API: by a form straight to a bucket, under an id that finds the result later."""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from adapters.deadline import Deadline
from adapters.errors import ObjectNotFound
from adapters.objects import ObjectLocation, Objects, ask, s3_client, storage_errors

# Version 7 with the variant of RFC 9562, section 5.7.
_UPLOAD_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_VERSION_7, _VARIANT = 0x7 << 76, 0b10 << 62

# Results are answered by Lambda, which sends no more.
_MAX_RESULT = 6_000_000

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
    """The uploaded images in a bucket and their results, each by the upload's id.

    Needs the permissions s3:GetObject, s3:PutObject and s3:ListBucket, without which S3 denies access to what has not
    arrived. Methods raise ObjectNotFound for an id that is none.
    """

    def __init__(self, bucket: str, max_bytes: int, expires_in: int = 900) -> None:
        """`expires_in` is in seconds."""
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._expires_in = expires_in
        self._images = Objects([bucket], max_bytes)
        self._results = Objects([bucket], _MAX_RESULT)

    def create(self, content_type: str) -> Upload:
        """A form that takes one image of this type and at most `max_bytes`; raises StorageUnavailable."""
        upload_id = _new_id()
        with storage_errors():
            form = s3_client().generate_presigned_post(
                self._bucket,
                _image_key(upload_id),
                Fields={"Content-Type": content_type},
                Conditions=[{"Content-Type": content_type}, ["content-length-range", 1, self._max_bytes]],
                ExpiresIn=self._expires_in,
            )
        return Upload(upload_id, form["url"], form["fields"], self._expires_in, self._max_bytes)

    def image(self, upload_id: str, deadline: Deadline) -> bytes | None:
        """The image, or None while none has arrived; raises what Objects.read raises."""
        return self._read(self._images, _image_key(upload_id), deadline)

    def result(self, upload_id: str, deadline: Deadline) -> bytes | None:
        """The saved document, or None before there is one; raises what Objects.read raises."""
        return self._read(self._results, _result_key(upload_id), deadline)

    def save_result(self, upload_id: str, document: bytes, deadline: Deadline) -> None:
        """Keep this JSON as the upload's result; raises ObjectError."""
        key = _result_key(upload_id)
        ask(
            lambda: s3_client().put_object(Bucket=self._bucket, Key=key, Body=document, ContentType="application/json"),
            deadline,
        )

    def is_open(self, upload_id: str) -> bool:
        """Whether an image may still arrive: the id is not from the future, and its form has not run out."""
        return -_GRACE < time.time() - _created_at(upload_id) < self._expires_in + _GRACE

    def _read(self, objects: Objects, key: str, deadline: Deadline) -> bytes | None:
        try:
            return objects.read(ObjectLocation(self._bucket, key), deadline)
        except ObjectNotFound:
            return None


def is_upload_id(text: str) -> bool:
    """Whether this is a UUIDv7 as create() writes it: in lower case, with hyphens."""
    return _UPLOAD_ID.fullmatch(text) is not None


def _new_id() -> str:
    """A UUIDv7 (RFC 9562), which Python has from 3.14 on: 48 bits of milliseconds since 1970, the rest random."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10)) & ~(0xF << 76) & ~(0b11 << 62)
    return str(UUID(int=milliseconds << 80 | _VERSION_7 | _VARIANT | random))


def _created_at(upload_id: str) -> float:
    """Seconds since 1970."""
    return (UUID(_checked(upload_id)).int >> 80) / 1000


def _image_key(upload_id: str) -> str:
    return f"uploads/{_checked(upload_id)}"


def _result_key(upload_id: str) -> str:
    return f"results/{_checked(upload_id)}.json"


def _checked(upload_id: str) -> str:
    if not is_upload_id(upload_id):
        raise ObjectNotFound("There is no such upload; its id is not one that was given out here.")
    return upload_id
