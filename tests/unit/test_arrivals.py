"""Notifications of S3, as they stand in the queue."""

import contextlib
import json
from typing import Any

import pytest
from bulk import UPLOAD_REQUEST_ID, Put, notification, record
from hypothesis import given
from hypothesis import strategies as st

from handlers.arrivals import Arrival, InvalidNotification, read_notification

PUT = Put("photos", "uploads/cat.jpg", "0123456789abcdef0123456789abcdef")

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda key: len(key.encode()) <= 1024)


def test_an_object_is_told_by_its_etag() -> None:
    (arrival,) = read_notification(notification(record(PUT)))
    assert arrival == Arrival(
        "photos",
        "uploads/cat.jpg",
        PUT.etag,
        is_version=False,
        sequencer="0055AED6DC",
        upload_request_id=UPLOAD_REQUEST_ID,
    )
    assert (arrival.location.etag, arrival.location.version_id) == (PUT.etag, None)


def test_an_object_in_a_bucket_with_versions_is_told_by_its_version() -> None:
    (arrival,) = read_notification(notification(record(PUT, versionId="096fKKXTRTtl3on89fVO.nfljtsv6qko")))
    assert arrival.location.version_id == arrival.revision == "096fKKXTRTtl3on89fVO.nfljtsv6qko"
    assert arrival.location.etag is None


@given(KEYS)
def test_any_key_is_read_as_it_was_written(key: str) -> None:
    (arrival,) = read_notification(notification(record(Put("photos", key, "etag"))))
    assert arrival.key == key


@pytest.mark.parametrize(
    ("written", "key"), [("a+b.jpg", "a b.jpg"), ("a%2Bb.jpg", "a+b.jpg"), ("%C3%BC.jpg", "ü.jpg"), ("a%252F", "a%2F")]
)
def test_keys_are_written_as_forms_are(written: str, key: str) -> None:
    told = record(PUT)
    told["s3"]["object"]["key"] = written
    assert read_notification(notification(told))[0].key == key


def test_a_message_may_tell_of_several_objects() -> None:
    others = [Put("photos", f"uploads/{number}", "etag") for number in range(3)]
    arrivals = read_notification(notification(*map(record, others)))
    assert [arrival.key for arrival in arrivals] == ["uploads/0", "uploads/1", "uploads/2"]


@pytest.mark.parametrize("event", ["ObjectRemoved:Delete", "ObjectTagging:Put", "ObjectRestore:Completed"])
def test_what_is_not_created_has_not_arrived(event: str) -> None:
    assert read_notification(notification(record(PUT, event))) == []


@pytest.mark.parametrize("event", ["Put", "Post", "Copy", "CompleteMultipartUpload"])
def test_an_object_may_be_created_in_any_way(event: str) -> None:
    assert len(read_notification(notification(record(PUT, f"ObjectCreated:{event}")))) == 1


def test_the_test_that_s3_sends_once_is_no_arrival() -> None:
    assert read_notification('{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}') == []


def test_the_request_that_put_an_object_need_not_be_told() -> None:
    (without_it,) = read_notification(notification(without("responseElements")))
    (without_its_id,) = read_notification(notification(record(PUT) | {"responseElements": {}}))
    assert without_it.upload_request_id == without_its_id.upload_request_id == ""


def without(*path: str) -> dict[str, Any]:
    told = record(PUT)
    inner = told
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return told


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"Event": "another"}',
        '{"Records": [{}]}',
        "[" * 100_000,
        notification(without("s3", "bucket")),
        notification(without("s3", "object", "key")),
        notification(without("s3", "object", "eTag")),
        json.dumps({"Records": record(PUT)}),
    ],
)
def test_anything_else_is_no_notification(body: str) -> None:
    with pytest.raises(InvalidNotification):
        read_notification(body)


@given(
    st.text()
    | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(
        json.dumps
    )
)
def test_whatever_stands_in_the_queue_is_read_or_refused(body: str) -> None:
    with contextlib.suppress(InvalidNotification):
        assert read_notification(body) == []
