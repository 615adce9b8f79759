"""Images in bulk, by the handler: moto's S3, DynamoDB, SQS and EventBridge, over real HTTP."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
import pytest
from aws import Clock, error, failing_aws, json_error, still_clock
from bulk import (
    Context,
    Put,
    batch,
    left,
    new_settings,
    notification,
    put,
    record,
    results_of,
    table_of,
)
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from support import CAT, DEFAULT_BUNDLE, encoded

from adapters.calls import aws_client
from adapters.errors import StorageUnavailable
from adapters.events import Events
from adapters.objects import s3_client
from adapters.results import Results
from adapters.uploads import Uploads, result_key
from handlers.answers import BulkResult, Classification, Failure
from handlers.batches import create_handler
from handlers.worker import Worker
from litelens.bundle import load_bundle
from litelens.engines import LiteRT
from settings import Settings, SettingsError

PHOTO = CAT.read_bytes()
LONG_KEY = "uploads/" + "k" * 1016
KEYS = ["uploads/cat.jpg", "uploads/a b+c.jpg", "uploads/ü/ß%2F#?.jpg", "uploads/" + "é" * 508, LONG_KEY]


@pytest.fixture
def settings(moto_server: str) -> Settings:
    return new_settings(event_bus="default")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every inference."""
    run, counted = LiteRT.run, []

    def counting(*arguments: Any) -> Any:
        counted.append(1)
        return run(*arguments)

    monkeypatch.setattr(LiteRT, "run", counting)
    return counted


def take(settings: Settings, *bodies: str, seconds: float = 60) -> list[str]:
    """The ids of the messages that a new execution environment leaves in the queue."""
    return left(create_handler(settings)(batch(*bodies), Context(seconds)))


def told(put: Put, **more: str) -> str:
    return notification(record(put, **more))


def outcome(settings: Settings, key: str) -> Any:
    (result,) = results_of(settings, key)
    return result.result


def code(settings: Settings, key: str) -> str:
    failed = outcome(settings, key)
    assert isinstance(failed, Failure)
    return failed.problem.code


def saved_object(settings: Settings, key: str) -> BulkResult:
    body = s3_client().get_object(Bucket=settings.upload_bucket, Key=result_key(key))["Body"].read()
    return msgspec.json.decode(body, type=BulkResult)


def listening(bus: str) -> Callable[[], list[dict[str, Any]]]:
    """What a queue behind this bus has been told since."""
    queue, events = aws_client("sqs"), aws_client("events")  # type: ignore[arg-type]
    url = queue.create_queue(QueueName=f"listener-{id(object())}")["QueueUrl"]
    arn = queue.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="all", EventBusName=bus, EventPattern='{"source": ["litelens"]}')
    events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "listener", "Arn": arn}])

    def heard() -> list[dict[str, Any]]:
        messages = queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(message["Body"]) for message in messages]

    return heard


@pytest.mark.parametrize("key", KEYS, ids=["plain", "spaces and plus signs", "unicode", "1024 bytes", "long"])
def test_an_image_gets_its_result_in_the_table_and_beside_it(settings: Settings, key: str) -> None:
    arrived = put(settings, key, PHOTO)
    assert take(settings, told(arrived)) == []
    (result,) = results_of(settings, key)
    assert isinstance(result.result, Classification)
    assert result.result.predictions[0].label == "Egyptian cat"
    assert (result.bucket, result.key, result.revision) == (arrived.bucket, key, arrived.etag)
    assert saved_object(settings, key) == result


def test_whoever_listens_is_told(settings: Settings) -> None:
    heard = listening("default")
    arrived = put(settings, KEYS[1], PHOTO)
    take(settings, told(arrived))
    (event,) = heard()
    assert (event["source"], event["detail-type"]) == ("litelens", "ImageClassified")
    assert msgspec.convert(event["detail"], BulkResult) == results_of(settings, KEYS[1])[0]


def test_without_a_bus_nobody_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Events, "publish", None)
    assert take(dataclasses.replace(settings, event_bus=None), told(put(settings, KEYS[0], PHOTO))) == []
    assert isinstance(outcome(settings, KEYS[0]), Classification)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "image_missing"),
        (b"hello", "not_an_image"),
        (PHOTO[:5000], "corrupt_image"),
        (bytes(1_000_001), "image_too_large"),
    ],
)
def test_what_cannot_be_classified_is_a_failed_result_and_not_tried_again(
    settings: Settings, body: bytes, expected: str
) -> None:
    assert take(settings, told(put(settings, KEYS[0], body))) == []
    assert code(settings, KEYS[0]) == expected
    assert isinstance(saved_object(settings, KEYS[0]).result, Failure)


def test_an_object_that_was_deleted_or_renamed_meanwhile_has_failed(settings: Settings) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    s3_client().delete_object(Bucket=arrived.bucket, Key=arrived.key)
    assert take(settings, told(arrived)) == []
    assert code(settings, KEYS[0]) == "object_not_found"


def test_an_object_that_was_overwritten_meanwhile_leaves_the_place_beside_it_to_the_next(settings: Settings) -> None:
    old = put(settings, KEYS[0], encoded(Image.new("RGB", (9, 9)), "PNG"))
    new = put(settings, KEYS[0], PHOTO)
    assert take(settings, told(new)) == []
    assert take(settings, told(old)) == []
    newest, first = results_of(settings, KEYS[0])
    assert (newest.revision, newest.is_superseded) == (old.etag, True)
    assert saved_object(settings, KEYS[0]) == first


def test_an_image_that_is_put_again_after_it_was_deleted_is_new(settings: Settings) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    s3_client().delete_object(Bucket=arrived.bucket, Key=arrived.key)
    handler = create_handler(settings)
    assert left(handler(batch(told(arrived)), Context())) == []
    assert code(settings, KEYS[0]) == "object_not_found"
    again = put(settings, KEYS[0], PHOTO)
    assert again == arrived
    assert left(handler(batch(told(again)), Context())) == []
    assert isinstance(outcome(settings, KEYS[0]), Classification)
    assert isinstance(saved_object(settings, KEYS[0]).result, Classification)


def test_a_late_repetition_does_not_bring_back_an_old_result_beside_the_image(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = create_handler(settings)
    old = put(settings, KEYS[0], encoded(Image.new("RGB", (9, 9)), "PNG"))
    with monkeypatch.context() as patch:
        patch.setattr(Uploads, "save_result", failing)
        assert left(handler(batch(told(old)), Context())) == ["0"]
    new = put(settings, KEYS[0], PHOTO)
    assert left(handler(batch(told(new)), Context())) == []
    assert left(handler(batch(told(old)), Context())) == []
    assert saved_object(settings, KEYS[0]).revision == new.etag


def test_an_image_that_is_put_back_as_it_was_has_its_result_beside_it_again(
    settings: Settings, runs: list[int]
) -> None:
    handler = create_handler(settings)
    for body, sequencer in ((PHOTO, "1"), (b"hello", "2"), (PHOTO, "3")):
        arrived = put(settings, KEYS[0], body)
        before = len(runs)
        assert left(handler(batch(told(arrived, sequencer=sequencer)), Context())) == []
    assert len(runs) == before
    assert saved_object(settings, KEYS[0]).revision == arrived.etag
    assert len(results_of(settings, KEYS[0])) == 2


def test_in_a_bucket_with_versions_each_version_has_its_result(settings: Settings) -> None:
    s3_client().put_bucket_versioning(Bucket=settings.upload_bucket, VersioningConfiguration={"Status": "Enabled"})
    versions = [
        s3_client().put_object(Bucket=settings.upload_bucket, Key=KEYS[0], Body=body)["VersionId"]
        for body in (PHOTO, b"hello")
    ]
    bodies = [told(Put(settings.upload_bucket or "", KEYS[0], "etag"), versionId=version) for version in versions]
    assert take(settings, *bodies) == []
    statuses = {result.revision: type(result.result) for result in results_of(settings, KEYS[0])}
    assert statuses == {versions[0]: Classification, versions[1]: Failure}


def test_a_message_that_comes_again_costs_no_second_inference_and_makes_no_second_result(
    settings: Settings, runs: list[int]
) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    handler = create_handler(settings)
    before = len(runs)
    assert left(handler(batch(told(arrived)), Context())) == []
    assert len(runs) == before + 1
    result = results_of(settings, KEYS[0])
    assert left(handler(batch(told(arrived), told(arrived)), Context())) == []
    assert len(runs) == before + 1
    assert results_of(settings, KEYS[0]) == result


@pytest.mark.parametrize("sequencers", [["1", "1", "1", "1"], ["1", "2", "3", "4"]], ids=["told", "put"])
def test_the_same_image_several_times_in_a_batch_costs_one_inference(
    settings: Settings, runs: list[int], sequencers: list[str]
) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    handler = create_handler(settings)
    before = len(runs)
    assert left(handler(batch(*(told(arrived, sequencer=text) for text in sequencers)), Context())) == []
    assert len(runs) == before + 1
    assert len(results_of(settings, KEYS[0])) == 1


def test_an_image_that_another_invocation_has_in_hand_comes_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    first, second = create_handler(settings), create_handler(settings)
    keep, met = Worker.keep_result, []

    def meanwhile(*arguments: Any) -> Any:
        if not met:
            met.append(left(second(batch(told(arrived)), Context())))
        return keep(*arguments)

    monkeypatch.setattr(Worker, "keep_result", meanwhile)
    assert left(first(batch(told(arrived)), Context())) == []
    assert met == [["0"]]
    assert left(second(batch(told(arrived)), Context())) == []
    assert len(results_of(settings, KEYS[0])) == 1


def test_a_message_may_tell_of_several_objects(settings: Settings) -> None:
    puts = [put(settings, f"uploads/{number}.jpg", PHOTO) for number in range(3)]
    assert take(settings, notification(*(record(arrived) for arrived in puts))) == []
    for arrived in puts:
        assert isinstance(outcome(settings, arrived.key), Classification)


def test_one_that_fails_does_not_keep_the_others_of_its_message(settings: Settings) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    elsewhere = Put("secrets", "uploads/cat.jpg", "etag")
    assert take(settings, notification(record(elsewhere), record(arrived))) == ["0"]
    assert isinstance(outcome(settings, KEYS[0]), Classification)


def test_the_test_that_s3_sends_and_deletions_are_taken_without_a_result(settings: Settings) -> None:
    test = '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}'
    deleted = notification(record(Put("photos", KEYS[0], "etag"), "ObjectRemoved:Delete"))
    assert take(settings, test, deleted) == []
    assert table_of(settings.results_table) == []


def test_what_is_no_notification_comes_again_alone(settings: Settings) -> None:
    assert take(settings, "hello", told(put(settings, KEYS[0], PHOTO))) == ["0"]
    assert isinstance(outcome(settings, KEYS[0]), Classification)


def failing(*_: object, **__: object) -> Any:
    raise StorageUnavailable("It cannot be used at the moment.")


@pytest.mark.parametrize(
    "failing_part",
    [(Results, "find"), (Results, "save"), (Uploads, "save_result"), (Events, "publish")],
    ids=lambda part: part[1],
)
def test_wherever_it_fails_the_message_comes_again_to_one_result(
    settings: Settings, failing_part: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    heard = listening("default")
    with monkeypatch.context() as patch:
        patch.setattr(*failing_part, failing)
        assert take(settings, told(arrived)) == ["0"]
    assert take(settings, told(arrived)) == []
    (result,) = results_of(settings, KEYS[0])
    assert saved_object(settings, KEYS[0]) == result
    assert [msgspec.convert(event["detail"], BulkResult) for event in heard()] == [result]


def test_a_result_that_was_saved_before_the_rest_failed_is_not_inferred_again(
    settings: Settings, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    handler = create_handler(settings)
    before = len(runs)
    with monkeypatch.context() as patch:
        patch.setattr(Uploads, "save_result", failing)
        assert left(handler(batch(told(arrived)), Context())) == ["0"]
    assert left(handler(batch(told(arrived)), Context())) == []
    assert len(runs) == before + 1


def test_a_new_model_makes_a_result_of_its_own(settings: Settings, tmp_path: Any) -> None:
    arrived = put(settings, KEYS[0], PHOTO)
    assert take(settings, told(arrived)) == []
    new = shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
    manifest = json.loads((new / "manifest.json").read_text())
    (new / "manifest.json").write_text(json.dumps(manifest | {"version": "9.0.0"}))
    # The message comes again while the function is being replaced.
    assert take(dataclasses.replace(settings, bundle=new), told(arrived)) == []
    assert take(settings, told(arrived)) == []
    assert [result.model.version for result in results_of(settings, KEYS[0])] == [
        "9.0.0",
        load_bundle(DEFAULT_BUNDLE).version,
    ]
    assert saved_object(settings, KEYS[0]).model.version == "9.0.0"


def test_with_too_little_time_left_all_are_left_for_another_invocation(settings: Settings) -> None:
    bodies = [told(put(settings, f"uploads/{number}.jpg", PHOTO)) for number in range(3)]
    assert take(settings, *bodies, seconds=4) == ["0", "1", "2"]
    assert table_of(settings.results_table) == []
    assert take(settings, *bodies) == []
    assert len(table_of(settings.results_table)) == 3


def slowed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Clock:
    """The clock, which goes on by so many seconds with each inference from now on."""
    clock, run = still_clock(monkeypatch), LiteRT.run

    def slowly(*arguments: Any) -> Any:
        clock.now += seconds
        return run(*arguments)

    monkeypatch.setattr(LiteRT, "run", slowly)
    return clock


def test_when_the_time_runs_out_the_rest_are_left_for_another_invocation(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, runs: list[int]
) -> None:
    puts = [put(settings, f"uploads/{number}.jpg", PHOTO) for number in range(6)]
    handler = create_handler(settings)
    before = len(runs)
    with monkeypatch.context() as patch:
        slowed(patch, 14)
        again = left(handler(batch(*map(told, puts)), Context(60)))
    # 50 seconds are left for images, and none is begun in the last 5 of them.
    assert len(runs) - before <= 4
    assert len(again) >= 2
    assert left(handler(batch(*(told(puts[int(number)]) for number in again)), Context())) == []
    assert len(table_of(settings.results_table)) == 6


def test_the_records_of_a_message_are_begun_while_there_is_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, runs: list[int]
) -> None:
    puts = [put(settings, f"uploads/{number}.jpg", PHOTO) for number in range(4)]
    handler = create_handler(settings)
    slowed(monkeypatch, 21)
    before = len(runs)
    assert left(handler(batch(notification(*map(record, puts))), Context(60))) == ["0"]
    # After two, 8 of the 50 seconds are left, fewer than the 10 that it takes to begin.
    assert len(runs) - before == 2
    assert len(table_of(settings.idempotency_table)) == 2


def test_an_image_is_forgotten_before_its_result_is(settings: Settings) -> None:
    take(dataclasses.replace(settings, result_days=1), told(put(settings, KEYS[0], PHOTO)))
    (memory,), (result,) = table_of(settings.idempotency_table), table_of(settings.results_table)
    assert int(memory["expiration"]["N"]) < int(result["expires_at"]["N"])


def test_what_other_threads_fetch_is_not_taken_from_the_decoder(
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
    assert take(settings, told(put(settings, KEYS[0], PHOTO))) == []
    assert isinstance(outcome(settings, KEYS[0]), Classification)


def test_results_are_kept_for_as_many_days_as_are_set(settings: Settings) -> None:
    take(dataclasses.replace(settings, result_days=7), told(put(settings, KEYS[0], PHOTO)))
    (item,) = table_of(settings.results_table)
    seconds = int(item["expires_at"]["N"]) - msgspec.convert(item["time"]["S"], datetime).timestamp()
    assert abs(seconds - 7 * 86_400) <= 1


@pytest.mark.parametrize("field", ["upload_bucket", "results_table", "idempotency_table"])
def test_without_its_bucket_or_a_table_it_does_not_start(settings: Settings, field: str) -> None:
    with pytest.raises(SettingsError, match=f"LITELENS_{field.upper()} is not set"):
        create_handler(dataclasses.replace(settings, **{field: None}))


class TestBackfill:
    def batch(self, arrived: Put) -> dict[str, Any]:
        return {"BatchInput": {"bucket": arrived.bucket}, "Items": [{"Key": arrived.key, "Etag": f'"{arrived.etag}"'}]}

    def test_a_batch_is_answered_and_nothing_is_kept(self, settings: Settings) -> None:
        arrived = put(settings, "anywhere/cat.jpg", PHOTO)
        (answer,) = create_handler(settings)(self.batch(arrived), Context())
        result = msgspec.convert(json.loads(json.dumps(answer)), BulkResult)
        assert (result.bucket, result.key, result.revision) == (arrived.bucket, arrived.key, arrived.etag)
        assert isinstance(result.result, Classification)
        assert table_of(settings.results_table) == table_of(settings.idempotency_table) == []

    def test_answers_are_in_the_order_of_the_batch_and_a_bad_one_fails_alone(self, settings: Settings) -> None:
        puts = [put(settings, f"{number}.jpg", b"hello" if number == 2 else PHOTO) for number in range(12)]
        items = [{"Key": arrived.key, "Etag": arrived.etag} for arrived in puts]
        event = {"BatchInput": {"bucket": puts[0].bucket}, "Items": items}
        answers = create_handler(settings)(event, Context())
        assert [answer["key"] for answer in answers] == [arrived.key for arrived in puts]
        assert [number for number, answer in enumerate(answers) if answer["result"]["status"] == "failed"] == [2]

    def test_one_that_may_not_be_read_fails_alone(self, settings: Settings) -> None:
        handler = create_handler(settings)
        with failing_aws(error(403, "AccessDenied")):
            (answer,) = handler(self.batch(Put(settings.upload_bucket or "", "cat.jpg", "etag")), Context())
        assert answer["result"]["problem"]["code"] == "object_access_denied"

    def test_those_that_there_is_no_time_for_have_failed(self, settings: Settings) -> None:
        (answer,) = create_handler(settings)(self.batch(put(settings, "cat.jpg", PHOTO)), Context(seconds=4))
        assert answer["result"]["problem"]["code"] in ("timeout", "storage_timeout")

    def test_another_bucket_is_refused(self, settings: Settings) -> None:
        with pytest.raises(Exception, match="This bucket is not read here"):
            create_handler(settings)(self.batch(Put("secrets", "cat.jpg", "etag")), Context())

    def test_what_may_pass_is_raised_so_that_the_batch_is_tried_again(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler = create_handler(settings)
        still_clock(monkeypatch)
        with failing_aws(error(503, "SlowDown")), pytest.raises(StorageUnavailable):
            handler(self.batch(Put(settings.upload_bucket or "", "cat.jpg", "etag")), Context())


def test_a_throttled_memory_of_what_was_done_leaves_the_message(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    still_clock(monkeypatch)
    with failing_aws(json_error("ProvisionedThroughputExceededException")) as requests:
        assert take(settings, told(Put(settings.upload_bucket or "", KEYS[0], "etag"))) == ["0"]
    assert requests
