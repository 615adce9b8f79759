"""parse_notification: S3's notifications, as they are in the queue."""

import contextlib
import json
import re
from typing import Any

import pytest
from bulk import UPLOAD_REQUEST_ID, StoredObject, notification, record
from hypothesis import given
from hypothesis import strategies as st

from litelens.bulk.s3_events import InvalidNotification, ObjectRevision, parse_notification

PUT = StoredObject("photos", "uploads/cat.jpg", "0123456789abcdef0123456789abcdef")

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda key: len(key.encode()) <= 1024)


def test_the_revision_is_the_etag() -> None:
    (found,) = parse_notification(notification(record(PUT)))
    assert found == ObjectRevision(
        "photos",
        "uploads/cat.jpg",
        PUT.etag,
        is_version=False,
        upload_request_id=UPLOAD_REQUEST_ID,
    )
    assert (found.location.etag, found.location.version_id) == (PUT.etag, None)


def test_the_revision_is_the_version_id_in_a_versioned_bucket() -> None:
    (found,) = parse_notification(notification(record(PUT, versionId="096fKKXTRTtl3on89fVO.nfljtsv6qko")))
    assert found.location.version_id == found.revision == "096fKKXTRTtl3on89fVO.nfljtsv6qko"
    assert found.location.etag is None


@given(KEYS)
def test_any_key_is_decoded(key: str) -> None:
    (found,) = parse_notification(notification(record(StoredObject("photos", key, "etag"))))
    assert found.key == key


@pytest.mark.parametrize(
    ("encoded", "key"), [("a+b.jpg", "a b.jpg"), ("a%2Bb.jpg", "a+b.jpg"), ("%C3%BC.jpg", "ü.jpg"), ("a%252F", "a%2F")]
)
def test_keys_are_decoded_like_form_fields(encoded: str, key: str) -> None:
    changed = record(PUT)
    changed["s3"]["object"]["key"] = encoded
    assert parse_notification(notification(changed))[0].key == key


def test_a_notification_may_have_several_records() -> None:
    others = [StoredObject("photos", f"uploads/{number}", "etag") for number in range(3)]
    found = parse_notification(notification(*map(record, others)))
    assert [each.key for each in found] == ["uploads/0", "uploads/1", "uploads/2"]


@pytest.mark.parametrize(
    "event",
    [
        "ObjectRemoved:Delete",
        "ObjectTagging:Put",
        "ObjectRestore:Completed",
        "ObjectAcl:Put",
        "LifecycleTransition",
        "IntelligentTiering",
        "Replication:OperationNotTracked",
        "ReducedRedundancyLostObject",
        "s3:ObjectRemoved:Delete",
    ],
)
def test_events_other_than_creation_are_ignored(event: str) -> None:
    assert parse_notification(notification(record(PUT, event))) == []


@pytest.mark.parametrize("event", ["Put", "Post", "Copy", "CompleteMultipartUpload", "NewKind"])
@pytest.mark.parametrize("prefix", ["", "s3:"])
def test_every_kind_of_creation_is_accepted(event: str, prefix: str) -> None:
    assert len(parse_notification(notification(record(PUT, f"{prefix}ObjectCreated:{event}")))) == 1


@pytest.mark.parametrize(
    "event", ["", "ObjectCreated", "ObjectCreated:", "objectcreated:Put", "Put", "ObjectRenamed:Put"]
)
def test_a_message_about_an_unknown_event_is_refused_and_not_taken_as_processed(event: str) -> None:
    with pytest.raises(InvalidNotification):
        parse_notification(notification(record(PUT, event)))


@given(st.text(max_size=30))
def test_no_event_is_ignored_unless_its_name_is_known(event: str) -> None:
    with contextlib.suppress(InvalidNotification):
        assert parse_notification(notification(record(PUT, event))) or event.partition(":")[0] in ("s3", *IGNORED)


IGNORED = (
    "IntelligentTiering",
    "LifecycleExpiration",
    "LifecycleTransition",
    "ObjectAcl",
    "ObjectRemoved",
    "ObjectRestore",
    "ObjectTagging",
    "ReducedRedundancyLostObject",
    "Replication",
)


@pytest.mark.parametrize("key", ["uploads/trip/", "uploads/", "uploads/trip_$folder$", "uploads/a b/"])
def test_an_empty_object_that_stands_for_a_folder_is_skipped(key: str) -> None:
    marker = record(StoredObject("photos", key, "d41d8cd98f00b204e9800998ecf8427e"), size=0)
    assert [each.key for each in parse_notification(notification(marker, record(PUT)))] == [PUT.key]


@pytest.mark.parametrize(("key", "size"), [("uploads/trip/", 5), ("uploads/empty.jpg", 0)])
def test_other_objects_are_not_taken_for_folders(key: str, size: int) -> None:
    (found,) = parse_notification(notification(record(StoredObject("photos", key, "etag"), size=size)))
    assert found.key == key


def test_an_object_whose_size_is_not_notified_is_not_taken_for_a_folder() -> None:
    marker = record(StoredObject("photos", "uploads/trip/", "etag"))
    del marker["s3"]["object"]["size"]
    assert len(parse_notification(notification(marker))) == 1


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_etag_becomes_one_that_a_header_can_carry(etag: str) -> None:
    (found,) = parse_notification(notification(record(StoredObject("photos", "cat.jpg", etag))))
    assert found.revision == etag
    assert re.fullmatch("[!-~]+", found.location.etag or "")


@given(st.from_regex(r"\A[0-9a-f]{32}(-[1-9][0-9]{0,3})?\Z"))
def test_the_etags_of_s3_are_compared_as_they_are(etag: str) -> None:
    (found,) = parse_notification(notification(record(StoredObject("photos", "cat.jpg", etag))))
    assert found.location.etag == etag


def test_the_test_event_of_s3_has_no_objects() -> None:
    assert parse_notification('{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}') == []


def test_the_id_of_the_upload_request_is_optional() -> None:
    (without_it,) = parse_notification(notification(without("responseElements")))
    (without_its_id,) = parse_notification(notification(record(PUT) | {"responseElements": {}}))
    assert without_it.upload_request_id == without_its_id.upload_request_id == ""


def without(*path: str) -> dict[str, Any]:
    changed = record(PUT)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return changed


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
        notification(record(StoredObject("photos", "cat.jpg", "\ud800"))),
    ],
)
def test_another_message_is_refused(body: str) -> None:
    with pytest.raises(InvalidNotification):
        parse_notification(body)


@given(
    st.text()
    | st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)).map(
        json.dumps
    )
)
def test_any_message_is_parsed_or_refused(body: str) -> None:
    with contextlib.suppress(InvalidNotification):
        assert parse_notification(body) == []
