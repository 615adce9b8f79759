"""Batches of objects as Step Functions' Distributed Map makes them."""

from typing import Any

import pytest

from handlers.arrivals import Arrival
from handlers.backfill import InvalidBatch, read_batch

LISTED = {
    "Etag": '"abc"',
    "Key": "holiday/a b+ü.jpg",
    "LastModified": 1763683200,
    "Size": 5,
    "StorageClass": "STANDARD",
}


def batch(*items: Any, **inputs: str) -> dict[str, Any]:
    return {"BatchInput": inputs, "Items": list(items)}


def test_listed_objects_are_of_the_batchs_bucket_and_of_their_etag() -> None:
    assert read_batch(batch(LISTED, bucket="photos")) == [Arrival("photos", "holiday/a b+ü.jpg", "abc", False)]


def test_inventoried_objects_name_their_bucket_and_write_keys_as_urls() -> None:
    item = {"Bucket": "photos", "Key": "holiday/a+b%2B%C3%BC.jpg", "ETag": "abc", "Size": "5"}
    assert read_batch(batch(item)) == [Arrival("photos", "holiday/a b+ü.jpg", "abc", False)]


def test_an_inventory_may_have_versions() -> None:
    item = {"Bucket": "photos", "Key": "a.jpg", "ETag": "abc", "VersionId": "v1"}
    assert read_batch(batch(item)) == [Arrival("photos", "a.jpg", "v1", True)]


def test_an_inventory_without_etags_means_the_objects_as_they_are() -> None:
    (arrival,) = read_batch(batch({"Bucket": "photos", "Key": "a.jpg"}))
    assert (arrival.location.etag, arrival.location.version_id) == (None, None)


@pytest.mark.parametrize(
    "event", [batch(LISTED), {"Items": "a.jpg"}, batch({}, bucket="photos"), batch({"Key": 1}, bucket="photos"), {}]
)
def test_anything_else_is_no_batch(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidBatch):
        read_batch(event)
