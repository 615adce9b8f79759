"""The bulk handler with moto's S3, DynamoDB, SQS and EventBridge, over HTTP."""

import base64
import dataclasses
import json
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aws import dynamodb_error, fake_clock, ok, s3_error, scripted_aws
from bulk import (
    Context,
    StoredObject,
    batch,
    failed_ids,
    new_settings,
    notification,
    put,
    record,
    result_lines,
    results_of,
    table_items,
)
from bundles import add_bundle, remove_features
from captured_logs import capture_logs
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from support import CAT, DEFAULT_BUNDLE, encoded

from litelens.api.events import describe_event
from litelens.api.problems import UnknownEvent
from litelens.api.response_schemas import BulkResult, Classification, Failure
from litelens.aws.clients import Deadline, aws_client
from litelens.aws.errors import StorageUnavailable
from litelens.aws.event_bus import EventBus
from litelens.aws.results_table import ResultsTable
from litelens.aws.s3 import RESULTS_PREFIX, UploadBucket, results_key, s3_client
from litelens.bulk.batches import create_handler
from litelens.core.bundle import load_bundle
from litelens.core.engines import LiteRT
from litelens.settings import Settings, SettingsError

PHOTO = CAT.read_bytes()
LONG_KEY = "uploads/" + "k" * 1016
KEYS = ["uploads/cat.jpg", "uploads/a b+c.jpg", "uploads/ü/ß%2F#?.jpg", "uploads/" + "é" * 508, LONG_KEY]


@pytest.fixture
def settings(moto_server: str) -> Settings:
    return new_settings(event_bus="default", result_objects=True)


@pytest.fixture
def inferences(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one item with each inference."""
    run, counted = LiteRT.run, []

    def counting(*arguments: Any) -> Any:
        counted.append(1)
        return run(*arguments)

    monkeypatch.setattr(LiteRT, "run", counting)
    return counted


def process(settings: Settings, *bodies: str, seconds: float = 60, delivery: int = 1) -> list[str]:
    """Process messages in a new execution environment; return the ids of the failed ones."""
    return failed_ids(create_handler(settings)(batch(*bodies, delivery=delivery), Context(seconds)))


def notification_of(put: StoredObject, **more: str | int) -> str:
    return notification(record(put, **more))


def result_of(settings: Settings, key: str) -> Any:
    (result,) = results_of(settings, key)
    return result.result


def problem_code(settings: Settings, key: str) -> str:
    failed = result_of(settings, key)
    assert isinstance(failed, Failure)
    return failed.problem.code


def saved_results(settings: Settings) -> list[BulkResult]:
    """Return the results in the bucket."""
    return [msgspec.json.decode(line, type=BulkResult) for line in result_lines(settings)]


def published_results(events: list[dict[str, Any]]) -> list[BulkResult]:
    return [msgspec.convert(result, BulkResult) for event in events for result in event["detail"]["results"]]


def subscribe(bus: str) -> Callable[[], list[dict[str, Any]]]:
    """Subscribe a queue to this bus; return a function that returns the events received so far."""
    queue, events = aws_client("sqs"), aws_client("events")  # type: ignore[arg-type]
    url = queue.create_queue(QueueName=f"listener-{uuid.uuid4()}")["QueueUrl"]
    arn = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="all", EventBusName=bus, EventPattern='{"source": ["litelens"]}')
    events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "listener", "Arn": arn}])

    def received_events() -> list[dict[str, Any]]:
        messages = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"]) for message in messages]

    return received_events


@pytest.mark.parametrize("key", KEYS, ids=["plain", "spaces and plus signs", "unicode", "1024 bytes", "long"])
def test_an_image_gets_a_result_in_the_table_and_in_the_bucket(settings: Settings, key: str) -> None:
    stored = put(settings, key, PHOTO)
    assert process(settings, notification_of(stored)) == []
    (result,) = results_of(settings, key)
    assert isinstance(result.result, Classification)
    assert result.result.predictions[0].label == "Egyptian cat"
    assert (result.bucket, result.key, result.revision) == (stored.bucket, key, stored.etag)
    assert saved_results(settings) == [result]


def test_the_results_of_a_batch_are_one_event_and_one_object(settings: Settings) -> None:
    received_events = subscribe("default")
    puts = [put(settings, f"uploads/{number}.jpg", PHOTO if number else b"hello") for number in range(3)]
    process(settings, *map(notification_of, puts))
    (event,) = received_events()
    assert (event["source"], event["detail-type"]) == ("litelens", "ImagesClassified")
    expected = [results_of(settings, stored.key)[0] for stored in puts]
    assert published_results([event]) == expected
    (found,) = s3_client().list_objects_v2(Bucket=settings.upload_bucket, Prefix=RESULTS_PREFIX)["Contents"]
    assert found["Key"] == results_key(Context.aws_request_id, datetime.now(UTC).date())
    assert saved_results(settings) == expected


@pytest.mark.parametrize(
    ("table", "objects"), [(True, False), (False, True)], ids=["only in the table", "only as objects"]
)
def test_results_go_where_the_deployment_wants_them(settings: Settings, table: bool, objects: bool) -> None:
    chosen = dataclasses.replace(
        settings, results_table=settings.results_table if table else None, result_objects=objects
    )
    stored = put(settings, KEYS[0], PHOTO)
    for delivery in (1, 2):
        assert process(chosen, notification_of(stored), delivery=delivery) == []
    assert len(results_of(settings, KEYS[0])) == int(table)
    assert {result.key for result in saved_results(settings)} == ({stored.key} if objects else set())


def test_a_form_without_a_table_has_its_results_as_objects(settings: Settings) -> None:
    key = UploadBucket(settings.upload_bucket or "", 1_000_000).create_form("image/jpeg").fields["key"]
    stored = put(settings, key, PHOTO)
    assert process(dataclasses.replace(settings, results_table=None), notification_of(stored)) == []
    assert [result.key for result in saved_results(settings)] == [key]


def put_events_answer(*entries: dict[str, str]) -> Any:
    failed = sum("ErrorCode" in entry for entry in entries)
    return ok(json.dumps({"FailedEntryCount": failed, "Entries": entries}).encode())


def test_an_event_that_the_bus_did_not_accept_for_the_moment_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_clock(monkeypatch)
    throttled, failed = ({"ErrorCode": code} for code in ("ThrottlingException", "InternalFailure"))
    answers = [put_events_answer(entry) for entry in (throttled, failed, {"EventId": "1"})]
    with scripted_aws(*answers) as requests:
        EventBus("mine").publish([b"{}"], Deadline.after(30))
    assert len(requests) == 3


def test_an_event_that_the_bus_refuses_is_not_sent_again_in_vain() -> None:
    refused = put_events_answer({"ErrorCode": "NotAuthorizedForSourceException"})
    with scripted_aws(refused) as requests, pytest.raises(StorageUnavailable):
        EventBus("mine").publish([b"{}"], Deadline.after(30))
    assert len(requests) == 1


def test_without_an_event_bus_nothing_is_published(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventBus, "publish", None)
    assert process(dataclasses.replace(settings, event_bus=None), notification_of(put(settings, KEYS[0], PHOTO))) == []
    assert isinstance(result_of(settings, KEYS[0]), Classification)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "image_missing"),
        (b"hello", "not_an_image"),
        (PHOTO[:5000], "corrupt_image"),
        (bytes(1_000_001), "image_too_large"),
    ],
)
def test_an_image_that_cannot_be_classified_gets_a_failed_result_without_a_retry(
    settings: Settings, body: bytes, expected: str
) -> None:
    assert process(settings, notification_of(put(settings, KEYS[0], body))) == []
    assert problem_code(settings, KEYS[0]) == expected
    (saved,) = saved_results(settings)
    assert isinstance(saved.result, Failure)


def test_a_deleted_object_gets_a_failed_result(settings: Settings) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    s3_client().delete_object(Bucket=stored.bucket, Key=stored.key)
    assert process(settings, notification_of(stored)) == []
    assert problem_code(settings, KEYS[0]) == "object_not_found"


def test_an_overwritten_object_has_a_result_for_each_revision(settings: Settings) -> None:
    old = put(settings, KEYS[0], encoded(Image.new("RGB", (9, 9)), "PNG"))
    new = put(settings, KEYS[0], PHOTO)
    assert process(settings, notification_of(new)) == []
    assert process(settings, notification_of(old)) == []
    newest, first = results_of(settings, KEYS[0])
    assert (newest.revision, newest.is_superseded) == (old.etag, True)
    assert (first.revision, first.is_superseded) == (new.etag, False)


def test_an_image_put_again_after_its_deletion_is_classified(settings: Settings) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    s3_client().delete_object(Bucket=stored.bucket, Key=stored.key)
    handler = create_handler(settings)
    assert failed_ids(handler(batch(notification_of(stored)), Context())) == []
    assert problem_code(settings, KEYS[0]) == "object_not_found"
    again = put(settings, KEYS[0], PHOTO)
    assert again == stored
    assert failed_ids(handler(batch(notification_of(again)), Context())) == []
    assert isinstance(result_of(settings, KEYS[0]), Classification)


def test_a_late_repeated_message_does_not_replace_a_result(settings: Settings) -> None:
    old = put(settings, KEYS[0], encoded(Image.new("RGB", (9, 9)), "PNG"))
    assert process(settings, notification_of(old)) == []
    before = results_of(settings, KEYS[0])
    put(settings, KEYS[0], PHOTO)
    for delivery in (1, 2):
        assert process(settings, notification_of(old), delivery=delivery) == []
    assert results_of(settings, KEYS[0]) == before


def test_each_version_has_its_result_in_a_versioned_bucket(settings: Settings) -> None:
    s3_client().put_bucket_versioning(Bucket=settings.upload_bucket, VersioningConfiguration={"Status": "Enabled"})
    versions = [
        s3_client().put_object(Bucket=settings.upload_bucket, Key=KEYS[0], Body=body)["VersionId"]
        for body in (PHOTO, b"hello")
    ]
    bodies = [
        notification_of(StoredObject(settings.upload_bucket or "", KEYS[0], "etag"), versionId=version)
        for version in versions
    ]
    assert process(settings, *bodies) == []
    statuses = {result.revision: type(result.result) for result in results_of(settings, KEYS[0])}
    assert statuses == {versions[0]: Classification, versions[1]: Failure}


def test_a_message_that_is_delivered_again_causes_no_second_inference_and_no_second_result(
    settings: Settings, inferences: list[int]
) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    handler = create_handler(settings)
    before = len(inferences)
    assert failed_ids(handler(batch(notification_of(stored)), Context())) == []
    assert len(inferences) == before + 1
    result = results_of(settings, KEYS[0])
    repeated = batch(notification_of(stored), notification_of(stored), delivery=2)
    assert failed_ids(handler(repeated, Context())) == []
    assert len(inferences) == before + 1
    assert results_of(settings, KEYS[0]) == result


def test_the_same_image_several_times_in_a_batch_is_classified_once(settings: Settings, inferences: list[int]) -> None:
    received_events = subscribe("default")
    stored = put(settings, KEYS[0], PHOTO)
    handler = create_handler(settings)
    before = len(inferences)
    assert failed_ids(handler(batch(*[notification_of(stored)] * 4), Context())) == []
    assert len(inferences) == before + 1
    results = results_of(settings, KEYS[0])
    assert len(results) == 1
    assert saved_results(settings) == results
    assert published_results(received_events()) == results


def test_an_image_that_two_invocations_classify_at_the_same_time_has_one_result(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    first, second = create_handler(settings), create_handler(settings)
    save, answers = ResultsTable.save, []

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        if not answers:
            answers.append(None)
            answers.append(failed_ids(second(batch(notification_of(stored)), Context())))
        return save(*arguments, **options)

    monkeypatch.setattr(ResultsTable, "save", meanwhile)
    assert failed_ids(first(batch(notification_of(stored)), Context())) == []
    assert answers == [None, []]
    (result,) = results_of(settings, KEYS[0])
    # Both invocations write the same line.
    assert set(result_lines(settings)) == {msgspec.json.encode(result)}


def test_a_message_may_have_several_objects(settings: Settings) -> None:
    puts = [put(settings, f"uploads/{number}.jpg", PHOTO) for number in range(3)]
    assert process(settings, notification(*(record(stored) for stored in puts))) == []
    for stored in puts:
        assert isinstance(result_of(settings, stored.key), Classification)


def test_a_failing_object_does_not_stop_the_others_of_its_message(settings: Settings) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    elsewhere = StoredObject("secrets", "uploads/cat.jpg", "etag")
    assert process(settings, notification(record(elsewhere), record(stored))) == ["0"]
    assert isinstance(result_of(settings, KEYS[0]), Classification)


def test_test_events_and_deletions_have_no_result(settings: Settings) -> None:
    test = '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}'
    deleted = notification(record(StoredObject("photos", KEYS[0], "etag"), "ObjectRemoved:Delete"))
    assert process(settings, test, deleted) == []
    assert table_items(settings.results_table) == []


def test_only_the_invalid_message_of_a_batch_is_retried(settings: Settings) -> None:
    assert process(settings, "hello", notification_of(put(settings, KEYS[0], PHOTO))) == ["0"]
    assert isinstance(result_of(settings, KEYS[0]), Classification)


def raise_unavailable(*_: object, **__: object) -> Any:
    raise StorageUnavailable("The storage is not available.")


@pytest.mark.parametrize(
    "failing_part",
    [(ResultsTable, "save"), (UploadBucket, "save_results"), (EventBus, "publish")],
    ids=lambda part: part[1],
)
def test_after_a_failure_in_any_step_the_retry_leads_to_one_result(
    settings: Settings, failing_part: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    received_events = subscribe("default")
    with monkeypatch.context() as patch:
        patch.setattr(*failing_part, raise_unavailable)
        assert process(settings, notification_of(stored)) == ["0"]
    assert process(settings, notification_of(stored), delivery=2) == []
    (result,) = results_of(settings, KEYS[0])
    assert saved_results(settings) == [result]
    assert published_results(received_events()) == [result]


def test_a_retry_uses_the_result_that_is_already_in_the_table(
    settings: Settings, inferences: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    handler = create_handler(settings)
    before = len(inferences)
    with monkeypatch.context() as patch:
        patch.setattr(UploadBucket, "save_results", raise_unavailable)
        assert failed_ids(handler(batch(notification_of(stored)), Context())) == ["0"]
    assert failed_ids(handler(batch(notification_of(stored), delivery=2), Context())) == []
    assert len(inferences) == before + 1


def test_each_version_of_the_model_has_its_own_result(settings: Settings, tmp_path: Any) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    assert process(settings, notification_of(stored)) == []
    new = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps(manifest | {"version": "9.0.0"}))
    # The message is delivered again while the function is being replaced.
    assert process(dataclasses.replace(settings, bundle=new), notification_of(stored)) == []
    assert process(settings, notification_of(stored)) == []
    assert [result.model.version for result in results_of(settings, KEYS[0])] == [
        "9.0.0",
        load_bundle(DEFAULT_BUNDLE).version,
    ]


def test_with_too_little_time_all_messages_are_left_for_another_invocation(settings: Settings) -> None:
    bodies = [notification_of(put(settings, f"uploads/{number}.jpg", PHOTO)) for number in range(3)]
    assert process(settings, *bodies, seconds=4) == ["0", "1", "2"]
    assert table_items(settings.results_table) == []
    assert process(settings, *bodies) == []
    assert len(table_items(settings.results_table)) == 3


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Advance the clock by this many seconds with each inference from now on."""
    clock, run = fake_clock(monkeypatch), LiteRT.run

    def slowly(*arguments: Any) -> Any:
        clock.now += seconds
        return run(*arguments)

    monkeypatch.setattr(LiteRT, "run", slowly)


def test_when_time_runs_out_the_remaining_messages_are_left_for_another_invocation(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, inferences: list[int]
) -> None:
    puts = [put(settings, f"uploads/{number}.jpg", PHOTO) for number in range(6)]
    handler = create_handler(settings)
    before = len(inferences)
    with monkeypatch.context() as patch:
        slow_down(patch, 14)
        again = failed_ids(handler(batch(*map(notification_of, puts)), Context(60)))
    # 50 seconds remain for images, and none starts in the last 10 of them.
    assert len(inferences) - before <= 4
    assert len(again) >= 2
    assert failed_ids(handler(batch(*(notification_of(puts[int(number)]) for number in again)), Context())) == []
    assert len(table_items(settings.results_table)) == 6


def test_a_message_of_which_some_images_had_no_time_is_delivered_again_until_each_has_one_result(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    puts = [put(settings, f"uploads/{number}.jpg", PHOTO) for number in range(4)]
    handler = create_handler(settings)
    message = notification(*map(record, puts))
    with monkeypatch.context() as patch:
        slow_down(patch, 21)
        assert failed_ids(handler(batch(message), Context(60))) == ["0"]
    assert len(table_items(settings.results_table)) < 4
    assert failed_ids(handler(batch(message, delivery=2), Context(60))) == []
    assert len(table_items(settings.results_table)) == 4


def test_images_that_other_threads_fetch_do_not_reduce_the_decoders_memory(
    moto_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_settings(max_upload_bytes=10_000_000)
    limits, load = settings.limits, JpegImageFile.load
    nine_others = 9 * 2 * settings.max_upload_bytes

    def beside_others(image: JpegImageFile) -> Any:
        held = bytearray(limits.memory + nine_others)
        loaded = load(image)
        del held
        return loaded

    monkeypatch.setattr(JpegImageFile, "load", beside_others)
    assert process(settings, notification_of(put(settings, KEYS[0], PHOTO))) == []
    assert isinstance(result_of(settings, KEYS[0]), Classification)


def test_results_expire_after_the_configured_days(settings: Settings) -> None:
    process(dataclasses.replace(settings, result_days=7), notification_of(put(settings, KEYS[0], PHOTO)))
    (item,) = table_items(settings.results_table)
    seconds = int(item["expires_at"]["N"]) - msgspec.convert(item["time"]["S"], datetime).timestamp()
    assert abs(seconds - 7 * 86_400) <= 1


@pytest.mark.parametrize("stores", [False, True])
def test_results_contain_the_embedding_only_if_the_deployment_stores_them(settings: Settings, stores: bool) -> None:
    settings = dataclasses.replace(settings, store_embeddings=stores)
    handler, photo = create_handler(settings), put(settings, KEYS[0], PHOTO)
    assert failed_ids(handler(batch(notification_of(photo)), Context())) == []
    backfill = {"BatchInput": {"bucket": photo.bucket}, "Items": [{"Key": photo.key, "Etag": f'"{photo.etag}"'}]}
    (answer,) = handler(backfill, Context())
    found = [result_of(settings, KEYS[0]), *(result.result for result in saved_results(settings))]
    for document in (*map(msgspec.to_builtins, found), answer["result"]):
        assert ("embedding" in document) is stores
        if stores:
            embedding = document["embedding"]
            assert (embedding["backbone"], embedding["dimension"]) == (load_bundle(DEFAULT_BUNDLE).backbone, 1280)
            values = np.frombuffer(base64.b64decode(embedding["base64"]), "<f4")
            assert np.linalg.norm(values) == pytest.approx(1, abs=1e-6)


def test_a_model_without_features_stores_none_and_says_so(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = remove_features(add_bundle(tmp_path, "plain"))
    for stores, warnings in ((False, 0), (True, 1)):
        create_handler(dataclasses.replace(settings, bundle=plain, store_embeddings=stores))
        assert len(caplog.records) == warnings


@pytest.mark.parametrize("field", ["upload_bucket", "results_table"])
def test_the_handler_needs_its_bucket_and_a_place_for_results(settings: Settings, field: str) -> None:
    with pytest.raises(SettingsError, match=f"LITELENS_{field.upper()} is not set"):
        create_handler(dataclasses.replace(settings, result_objects=False, **{field: None}))


class TestBackfill:
    def batch(self, stored: StoredObject) -> dict[str, Any]:
        return {"BatchInput": {"bucket": stored.bucket}, "Items": [{"Key": stored.key, "Etag": f'"{stored.etag}"'}]}

    def test_a_batch_is_answered_and_nothing_is_saved(self, settings: Settings) -> None:
        stored = put(settings, "anywhere/cat.jpg", PHOTO)
        (answer,) = create_handler(settings)(self.batch(stored), Context())
        result = msgspec.convert(json.loads(json.dumps(answer)), BulkResult)
        assert (result.bucket, result.key, result.revision) == (stored.bucket, stored.key, stored.etag)
        assert isinstance(result.result, Classification)
        assert table_items(settings.results_table) == result_lines(settings) == []

    def test_answers_are_in_the_order_of_the_batch_and_a_bad_image_does_not_fail_the_others(
        self, settings: Settings
    ) -> None:
        puts = [put(settings, f"{number}.jpg", b"hello" if number == 2 else PHOTO) for number in range(12)]
        items = [{"Key": stored.key, "Etag": stored.etag} for stored in puts]
        event = {"BatchInput": {"bucket": puts[0].bucket}, "Items": items}
        answers = create_handler(settings)(event, Context())
        assert [answer["key"] for answer in answers] == [stored.key for stored in puts]
        assert [number for number, answer in enumerate(answers) if answer["result"]["status"] == "failed"] == [2]

    def test_an_object_that_may_not_be_read_gets_a_failed_result(self, settings: Settings) -> None:
        handler = create_handler(settings)
        with scripted_aws(s3_error(403, "AccessDenied")):
            (answer,) = handler(self.batch(StoredObject(settings.upload_bucket or "", "cat.jpg", "etag")), Context())
        assert answer["result"]["problem"]["code"] == "object_access_denied"

    def test_objects_without_time_left_get_failed_results(self, settings: Settings) -> None:
        (answer,) = create_handler(settings)(self.batch(put(settings, "cat.jpg", PHOTO)), Context(seconds=4))
        assert answer["result"]["problem"]["code"] in ("timeout", "storage_timeout")

    def test_an_object_in_another_bucket_fails_alone(self, settings: Settings) -> None:
        stored = put(settings, "cat.jpg", PHOTO)
        items = [{"Bucket": bucket, "Key": stored.key} for bucket in (stored.bucket, "secrets", stored.bucket)]
        answers = create_handler(settings)({"Items": items}, Context())
        assert [answer["result"]["status"] for answer in answers] == ["done", "failed", "done"]
        assert answers[1]["result"]["problem"]["code"] == "bucket_not_allowed"

    def test_a_marker_of_a_folder_has_no_result(self, settings: Settings) -> None:
        stored = put(settings, "cat.jpg", PHOTO)
        items = [{"Key": "trip/", "Etag": "etag", "Size": 0}, {"Key": stored.key, "Etag": stored.etag, "Size": 9}]
        answers = create_handler(settings)({"BatchInput": {"bucket": stored.bucket}, "Items": items}, Context())
        assert [answer["key"] for answer in answers] == ["cat.jpg"]

    def test_a_transient_error_is_raised_so_that_the_batch_is_retried(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler = create_handler(settings)
        fake_clock(monkeypatch)
        with scripted_aws(s3_error(503, "SlowDown")), pytest.raises(StorageUnavailable):
            handler(self.batch(StoredObject(settings.upload_bucket or "", "cat.jpg", "etag")), Context())


@pytest.mark.parametrize("etag", ["a\nb", "a\r\nIf-Match: *", "\x00", "é", " "])
def test_an_etag_that_no_header_can_carry_is_a_permanent_failure(settings: Settings, etag: str) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    handler = create_handler(settings)
    message = notification_of(dataclasses.replace(stored, etag=etag))
    for _ in range(2):
        assert failed_ids(handler(batch(message), Context())) == []
    assert problem_code(settings, KEYS[0]) == "object_version_not_found"


def test_a_marker_of_a_folder_is_skipped(settings: Settings) -> None:
    stored = put(settings, "uploads/trip/", b"")
    assert process(settings, notification_of(stored, size=0)) == []
    assert results_of(settings, stored.key) == []


def test_a_message_about_an_unknown_event_stays_in_the_queue(settings: Settings) -> None:
    stored = put(settings, KEYS[0], PHOTO)
    assert process(settings, notification(record(stored, "ObjectRenamed:Put"))) == ["0"]


OTHER_EVENTS = {
    "a notification of S3": lambda: json.loads(notification(record(StoredObject("photos", "secret.jpg", "etag")))),
    "a test event": lambda: {"key1": "secret"},
    "a message of SNS": lambda: {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "secret"}}]},
    "SQS and another source": lambda: {"Records": [*batch("{}")["Records"], {"eventSource": "aws:s3"}]},
    "records that are none": lambda: {"Records": "secret"},
    "a list": lambda: ["secret"],
    "text": lambda: "secret",
    "null": lambda: None,
}


@pytest.mark.parametrize("name", OTHER_EVENTS)
def test_another_event_is_an_error_that_says_what_it_is_in_one_line(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = capture_logs(monkeypatch)
    event = OTHER_EVENTS[name]()
    with pytest.raises(UnknownEvent) as raised:
        create_handler(settings)(event, Context())
    (line,) = logs.log_lines("failed")
    assert line["reason"] == str(raised.value)
    assert describe_event(event) in line["reason"]
    assert "\n" not in line["reason"]
    assert "secret" not in logs.getvalue()


def test_a_throttled_table_leaves_the_message_in_the_queue(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_clock(monkeypatch)
    with scripted_aws(dynamodb_error("ProvisionedThroughputExceededException")) as requests:
        stored = StoredObject(settings.upload_bucket or "", KEYS[0], "etag")
        assert process(settings, notification_of(stored), delivery=2) == ["0"]
    assert requests
