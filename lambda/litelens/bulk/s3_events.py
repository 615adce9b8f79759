"""Parse the events of the bulk path into S3 objects: S3's notifications, and batches of a backfill."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote_plus

import msgspec
from msgspec import Struct, field

from litelens.aws.s3 import ObjectLocation

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html
# Programs that imitate S3 keep the "s3:".
_CREATED = re.compile(r"(s3:)?ObjectCreated:\w+")
_OTHER = re.compile(
    r"(s3:)?(IntelligentTiering|LifecycleExpiration|LifecycleTransition|ObjectAcl|ObjectRemoved|ObjectRestore"
    r"|ObjectTagging|ReducedRedundancyLostObject|Replication)(:\w+)?"
)

# What a header can carry, and thus an ETag.
_PRINTABLE = "".join(map(chr, range(ord("!"), ord("~") + 1)))

# The ends of keys of empty objects that stand for folders, in S3's console and in Hadoop.
_FOLDER_MARKERS = ("/", "_$folder$")


class InvalidNotification(Exception):
    """A message in the queue is not from S3, or is about an event of an unknown name."""


class InvalidBatch(Exception):
    """The event is not a batch of a backfill; the message says why."""


@dataclass(frozen=True)
class ObjectRevision:
    """An object in S3 with one content.

    `revision` is its version id, or else its ETag, or empty if neither is known. `upload_request_id` is S3's id of the
    request that put the object, or empty if unknown.
    """

    bucket: str
    key: str
    revision: str
    is_version: bool
    upload_request_id: str = ""

    @property
    def location(self) -> ObjectLocation:
        if self.is_version:
            return ObjectLocation(self.bucket, self.key, version_id=self.revision)
        # Escaped, because an ETag that no header can carry would fail each time, and so be retried. S3 answers that the
        # object has another one.
        return ObjectLocation(self.bucket, self.key, etag=quote(self.revision, safe=_PRINTABLE) or None)


# https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
class _NotifiedObject(Struct, rename="camel"):
    key: str
    size: int | None = None
    e_tag: str = ""
    version_id: str = ""


class _Bucket(Struct):
    name: str


class _S3(Struct):
    bucket: _Bucket
    object: _NotifiedObject


class _ResponseElements(Struct):
    request_id: str = field(name="x-amz-request-id", default="")


class _Record(Struct, rename="camel"):
    event_name: str
    s3: _S3
    response_elements: _ResponseElements = field(default_factory=_ResponseElements)


class _Notification(Struct):
    records: list[_Record] = field(name="Records")


class _TestEvent(Struct):
    """The event that S3 sends once, when notifications are configured."""

    event: str = field(name="Event")


def parse_notification(body: str) -> list[ObjectRevision]:
    """Return the created objects of a notification, without markers of folders; none for S3's test event.

    Raises InvalidNotification.
    """
    try:
        records = msgspec.json.decode(body, type=_Notification).records
    except (ValueError, RecursionError) as error:
        if _is_test_event(body):
            return []
        raise InvalidNotification("The message is not a notification of S3.") from error
    return [found for record in records if (found := _notified(record))]


def _notified(record: _Record) -> ObjectRevision | None:
    """Return the created object; None for another event or a marker of a folder. Raises InvalidNotification."""
    found = record.s3.object
    if not _CREATED.fullmatch(record.event_name):
        if not _OTHER.fullmatch(record.event_name):
            raise InvalidNotification("The notification is about an event of an unknown name.")
        return None
    # S3 encodes keys like form fields: a space becomes a plus sign, and non-ASCII bytes become %xx.
    key = unquote_plus(found.key)
    if _is_folder_marker(key, found.size):
        return None
    if not found.version_id and not found.e_tag:
        raise InvalidNotification("The notification has neither a version id nor an ETag.")
    return ObjectRevision(
        record.s3.bucket.name,
        key,
        found.version_id or found.e_tag,
        is_version=bool(found.version_id),
        upload_request_id=record.response_elements.request_id,
    )


def _is_folder_marker(key: str, size: int | str | None) -> bool:
    return size in (0, "0") and key.endswith(_FOLDER_MARKERS)


def _is_test_event(body: str) -> bool:
    try:
        return msgspec.json.decode(body, type=_TestEvent).event == "s3:TestEvent"
    except (ValueError, RecursionError):
        return False


class _ListedObject(Struct):
    """An object as ListObjectsV2 returns it."""

    key: str = field(name="Key")
    etag: str = field(name="Etag", default="")
    size: int | None = field(name="Size", default=None)


class _InventoryObject(Struct):
    """An object in an S3 inventory, whose keys are URL-encoded."""

    bucket: str = field(name="Bucket")
    key: str = field(name="Key")
    etag: str = field(name="ETag", default="")
    # An inventory is a table of text.
    size: int | str | None = field(name="Size", default=None)
    version_id: str = field(name="VersionId", default="")


class _BatchInput(Struct):
    bucket: str = ""


class _Batch(Struct):
    """A batch as Step Functions' Distributed Map passes it."""

    items: list[dict[str, Any]] = field(name="Items")
    batch_input: _BatchInput = field(name="BatchInput", default_factory=_BatchInput)


def parse_backfill_batch(event: dict[str, Any]) -> list[ObjectRevision]:
    """Return the objects of a batch, without markers of folders; raises InvalidBatch."""
    try:
        batch = msgspec.convert(event, _Batch)
        objects = (_batch_object(item, batch.batch_input.bucket) for item in batch.items)
        return [found for found in objects if found]
    except msgspec.ValidationError as error:
        raise InvalidBatch(f"The event is not a batch of a backfill: {error}.") from error


def _batch_object(item: dict[str, Any], bucket: str) -> ObjectRevision | None:
    """Return the object; None for a marker of a folder. Raises ValidationError or InvalidBatch."""
    if "Bucket" in item:
        found = msgspec.convert(item, _InventoryObject)
        key, revision = unquote_plus(found.key), found.version_id or found.etag.strip('"')
        if _is_folder_marker(key, found.size):
            return None
        return ObjectRevision(found.bucket, key, revision, is_version=bool(found.version_id))
    if not bucket:
        raise InvalidBatch("The batch names no bucket.")
    listed = msgspec.convert(item, _ListedObject)
    if _is_folder_marker(listed.key, listed.size):
        return None
    return ObjectRevision(bucket, listed.key, listed.etag.strip('"'), is_version=False)
