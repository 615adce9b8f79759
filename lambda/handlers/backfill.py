"""From a batch of a backfill, as Step Functions' Distributed Map makes it, to the objects in it."""

from typing import Any
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct, field

from handlers.arrivals import Arrival


class InvalidBatch(Exception):
    """The event is no batch of a backfill; the message says what is wrong with it."""


class _Listed(Struct):
    """An object as ListObjectsV2 tells of it."""

    key: str = field(name="Key")
    etag: str = field(name="Etag", default="")


class _Inventoried(Struct):
    """An object in an S3 inventory, which writes keys as URLs are written."""

    bucket: str = field(name="Bucket")
    key: str = field(name="Key")
    etag: str = field(name="ETag", default="")
    version_id: str = field(name="VersionId", default="")


class _BatchInput(Struct):
    bucket: str = ""


class _Batch(Struct):
    items: list[dict[str, Any]] = field(name="Items")
    batch_input: _BatchInput = field(name="BatchInput", default_factory=_BatchInput)


def read_batch(event: dict[str, Any]) -> list[Arrival]:
    """The objects in the batch; raises InvalidBatch."""
    try:
        batch = msgspec.convert(event, _Batch)
        return [_arrival(item, batch.batch_input.bucket) for item in batch.items]
    except msgspec.ValidationError as error:
        raise InvalidBatch(f"The event is no batch of a backfill: {error}.") from error


def _arrival(item: dict[str, Any], bucket: str) -> Arrival:
    if "Bucket" in item:
        found = msgspec.convert(item, _Inventoried)
        revision = found.version_id or found.etag.strip('"')
        return Arrival(found.bucket, unquote_plus(found.key), revision, is_version=bool(found.version_id))
    if not bucket:
        raise InvalidBatch("The batch names no bucket.")
    listed = msgspec.convert(item, _Listed)
    return Arrival(bucket, listed.key, listed.etag.strip('"'), is_version=False)
