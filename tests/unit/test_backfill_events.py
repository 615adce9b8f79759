"""parse_backfill_batch: batches of objects, as Step Functions' Distributed Map passes them."""

from typing import Any

import pytest

from litelens.bulk.s3_events import InvalidBatch, ObjectRevision, parse_backfill_batch

LISTED = {
    "Etag": '"abc"',
    "Key": "holiday/a b+ü.jpg",
    "LastModified": 1763683200,
    "Size": 5,
    "StorageClass": "STANDARD",
}


def batch(*items: Any, **inputs: str) -> dict[str, Any]:
    return {"BatchInput": inputs, "Items": list(items)}


def test_listed_objects_have_the_bucket_of_the_batch_and_their_etag() -> None:
    assert parse_backfill_batch(batch(LISTED, bucket="photos")) == [
        ObjectRevision("photos", "holiday/a b+ü.jpg", "abc", False)
    ]


def test_inventory_objects_name_their_bucket_and_have_url_encoded_keys() -> None:
    item = {"Bucket": "photos", "Key": "holiday/a+b%2B%C3%BC.jpg", "ETag": "abc", "Size": "5"}
    assert parse_backfill_batch(batch(item)) == [ObjectRevision("photos", "holiday/a b+ü.jpg", "abc", False)]


def test_inventory_objects_may_have_version_ids() -> None:
    item = {"Bucket": "photos", "Key": "a.jpg", "ETag": "abc", "VersionId": "v1"}
    assert parse_backfill_batch(batch(item)) == [ObjectRevision("photos", "a.jpg", "v1", True)]


def test_inventory_objects_without_etags_are_the_latest_versions() -> None:
    (found,) = parse_backfill_batch(batch({"Bucket": "photos", "Key": "a.jpg"}))
    assert (found.location.etag, found.location.version_id) == (None, None)


@pytest.mark.parametrize(
    "marker",
    [
        {"Key": "trip/", "Etag": '"abc"', "Size": 0},
        {"Key": "trip_$folder$", "Etag": '"abc"', "Size": 0},
        {"Bucket": "photos", "Key": "trip/", "Size": "0"},
        {"Bucket": "photos", "Key": "a+b%2F", "Size": "0"},
    ],
)
def test_markers_of_folders_are_skipped(marker: dict[str, Any]) -> None:
    found = parse_backfill_batch(batch(marker, LISTED, bucket="photos"))
    assert [each.key for each in found] == [LISTED["Key"]]


@pytest.mark.parametrize(
    "event", [batch(LISTED), {"Items": "a.jpg"}, batch({}, bucket="photos"), batch({"Key": 1}, bucket="photos"), {}]
)
def test_another_event_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidBatch):
        parse_backfill_batch(event)
