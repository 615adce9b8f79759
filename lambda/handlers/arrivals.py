"""From a notification of S3 to the objects that have arrived."""

from dataclasses import dataclass
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct

from adapters.objects import ObjectLocation


class InvalidNotification(Exception):
    """A message in the queue is no notification of S3; whoever put it there did not mean this function."""


@dataclass(frozen=True)
class Arrival:
    """An object as it arrived; `revision` tells it from later ones of the same key: its version id, or else its etag,
    or empty where neither is known."""

    bucket: str
    key: str
    revision: str
    is_version: bool
    # Differs where the same bytes are put again, and stays when S3 or SQS tells twice; empty where it is not told.
    sequencer: str = ""
    # S3's own id of the request that put the object, which its answer had; empty where it is not told.
    upload_request_id: str = ""

    @property
    def location(self) -> ObjectLocation:
        if self.is_version:
            return ObjectLocation(self.bucket, self.key, version_id=self.revision)
        return ObjectLocation(self.bucket, self.key, etag=self.revision or None)


# https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
class _Object(Struct, rename="camel"):
    key: str
    e_tag: str = ""
    version_id: str = ""
    sequencer: str = ""


class _Bucket(Struct):
    name: str


class _S3(Struct):
    bucket: _Bucket
    object: _Object


class _Answered(Struct):
    request_id: str = msgspec.field(name="x-amz-request-id", default="")


class _Record(Struct, rename="camel"):
    event_name: str
    s3: _S3
    response_elements: _Answered = msgspec.field(default_factory=_Answered)


class _Notification(Struct):
    records: list[_Record] = msgspec.field(name="Records")


class _TestEvent(Struct):
    """What S3 sends once, when notifications are set up."""

    event: str = msgspec.field(name="Event")


def read_notification(body: str) -> list[Arrival]:
    """The objects whose arrival a message tells, none for S3's test event; raises InvalidNotification."""
    try:
        records = msgspec.json.decode(body, type=_Notification).records
    except (ValueError, RecursionError) as error:
        if _is_test_event(body):
            return []
        raise InvalidNotification("The message is no notification of S3.") from error
    return [_arrival(record) for record in records if record.event_name.startswith("ObjectCreated:")]


def _arrival(record: _Record) -> Arrival:
    s3 = record.s3
    # S3 writes keys as forms are written: a space as a plus sign, and everything else that is not ASCII as %xx.
    key = unquote_plus(s3.object.key)
    version, etag = s3.object.version_id, s3.object.e_tag
    if not version and not etag:
        raise InvalidNotification("The notification names neither a version nor an etag.")
    return Arrival(
        s3.bucket.name,
        key,
        version or etag,
        is_version=bool(version),
        sequencer=s3.object.sequencer,
        upload_request_id=record.response_elements.request_id,
    )


def _is_test_event(body: str) -> bool:
    try:
        return msgspec.json.decode(body, type=_TestEvent).event == "s3:TestEvent"
    except (ValueError, RecursionError):
        return False
