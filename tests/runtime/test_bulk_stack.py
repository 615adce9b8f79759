"""Uploads in the local stack: the function in the runtime interface emulator, the template's resources on moto."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bulk import StoredObject, notification, record
from local_stack import (
    count_messages,
    count_waiting,
    create_queue,
    put_object,
    queue_arn,
    receive_bodies,
    result_lines,
    table_results,
    wait_until,
)
from PIL import Image
from support import DEFAULT_BUNDLE, ROCKET, LambdaContext, answer_of, classify_bytes, encoded, free_port, post_json
from urllib3.filepost import encode_multipart_formdata

from litelens.api.handler import handler
from litelens.core.bundle import load_bundle
from local.stack import Stack, Timeouts, run_stack

# 1,024 bytes.
LONGEST_KEY = f"uploads/{'ö' * 508}"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    parameters = {"EventBus": "default", "Results": "both"}
    with run_stack(DEFAULT_BUNDLE, timeouts=Timeouts(function=30, visibility=36), parameters=parameters) as stack:
        yield stack


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[str]:
    with stack.serve_api(free_port()) as url:
        yield url


@pytest.fixture
def events(stack: Stack) -> Iterator[str]:
    """A queue that receives the function's events."""
    sqs, bus = stack.client("sqs"), stack.client("events")
    queue, pattern = create_queue(sqs), {"source": ["litelens"], "detail-type": ["ImagesClassified"]}
    bus.put_rule(Name="listen", EventPattern=json.dumps(pattern))
    bus.put_targets(Rule="listen", Targets=[{"Id": "queue", "Arn": queue_arn(sqs, queue)}])
    yield queue
    bus.remove_targets(Rule="listen", Ids=["queue"])
    bus.delete_rule(Name="listen")


def process(stack: Stack) -> None:
    """Process all messages in the queue."""
    with stack.poll_queue():
        wait_until(lambda: count_waiting(stack) == 0)


@contextmanager
def visibility_timeout(stack: Stack, seconds: int) -> Iterator[None]:
    """Redeliver failed messages after this many seconds, until the block ends."""
    sqs, queue = stack.client("sqs"), stack.storage.source.queue_url
    attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])["Attributes"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": str(seconds)})
    try:
        yield
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes=attributes)


def saved_results(stack: Stack, key: str) -> list[dict[str, Any]]:
    """Return the results of an object in the objects with results."""
    results = [json.loads(line) for line in result_lines(stack)]
    return [result for result in results if result["key"] == key]


def count_dead_letters(stack: Stack) -> int:
    return count_messages(stack.client("sqs"), stack.storage.dead_letters_url)


def photo(colour: str) -> bytes:
    return encoded(Image.new("RGB", (40, 30), colour), "PNG")


def label_of(image: bytes) -> str:
    return str(answer_of(handler(classify_bytes(image), LambdaContext()))["predictions"][0]["label"])


def test_an_upload_has_one_result_in_the_table_one_in_an_object_and_one_in_an_event(stack: Stack, events: str) -> None:
    put_object(stack, "uploads/rocket.jpg", ROCKET.read_bytes())
    process(stack)
    (result,) = table_results(stack, "uploads/rocket.jpg")
    assert (result["bucket"], result["key"]) == (stack.storage.bucket, "uploads/rocket.jpg")
    assert result["result"]["status"] == "done"
    assert result["result"]["predictions"][0]["label"] == label_of(ROCKET.read_bytes())
    assert saved_results(stack, "uploads/rocket.jpg") == [result]
    (event,) = (json.loads(body) for body in receive_bodies(stack.client("sqs"), events))
    assert event["detail"] == {"results": [result]}


@pytest.mark.parametrize(
    "key",
    ["uploads/a photo.png", "uploads/1+1=2.png", "uploads/größe/写真 & <x>.png", "uploads/%2B.png", LONGEST_KEY],
    ids=["space", "plus", "unicode", "percent", "longest"],
)
def test_an_upload_with_an_unusual_key_gets_its_result(stack: Stack, key: str) -> None:
    assert len(key.encode()) <= 1024
    put_object(stack, key, photo("green"))
    process(stack)
    (result,) = table_results(stack, key)
    assert (result["key"], result["result"]["status"]) == (key, "done")
    assert saved_results(stack, key) == [result]


def test_an_empty_object_gets_a_failed_result(stack: Stack) -> None:
    put_object(stack, "uploads/empty.jpg", b"")
    process(stack)
    (result,) = table_results(stack, "uploads/empty.jpg")
    assert result["result"]["problem"]["code"] == "image_missing"


def test_the_test_event_of_s3_is_not_an_error(stack: Stack) -> None:
    s3, bucket = stack.client("s3"), stack.storage.bucket
    configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    del configuration["ResponseMetadata"]
    process(stack)
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=configuration)
    assert count_waiting(stack) == 1
    process(stack)
    assert count_dead_letters(stack) == 0


def test_an_upload_by_form_is_pending_and_then_done(stack: Stack, api: str) -> None:
    upload = post_json(f"{api}/v1/uploads", {"content_type": "image/jpeg"})
    assert result_by_api(api, upload["id"]) == {"status": "pending"}
    send_form(upload, ROCKET.read_bytes())
    assert result_by_api(api, upload["id"]) == {"status": "pending"}
    with stack.poll_queue():
        wait_until(lambda: result_by_api(api, upload["id"])["status"] != "pending")
    result = result_by_api(api, upload["id"])
    assert result["status"] == "done"
    assert result["predictions"][0]["label"] == label_of(ROCKET.read_bytes())


def result_by_api(api: str, upload: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{api}/v1/results/{upload}", timeout=60) as response:
        return dict(json.load(response)["result"])


def send_form(upload: dict[str, Any], image: bytes) -> None:
    body, content_type = encode_multipart_formdata({**upload["fields"], "file": ("photo.jpg", image)})
    request = urllib.request.Request(upload["url"], body, {"Content-Type": content_type})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status in (200, 204)


def test_an_object_deleted_before_it_is_read_gets_a_failed_result(stack: Stack) -> None:
    put_object(stack, "uploads/deleted.png", photo("red"))
    stack.client("s3").delete_object(Bucket=stack.storage.bucket, Key="uploads/deleted.png")
    assert count_waiting(stack) == 1
    process(stack)
    (result,) = table_results(stack, "uploads/deleted.png")
    assert result["result"]["problem"]["code"] == "object_not_found"
    assert count_dead_letters(stack) == 0


def test_an_object_overwritten_before_it_is_read_has_the_result_of_its_new_content(stack: Stack) -> None:
    first = put_object(stack, "uploads/twice.png", photo("red"))
    second = put_object(stack, "uploads/twice.png", photo("white"))
    assert count_waiting(stack) == 2
    process(stack)
    results = {result["revision"]: result for result in table_results(stack, "uploads/twice.png")}
    assert results.keys() == {first.etag, second.etag}
    assert results[first.etag]["result"]["problem"]["code"] == "object_version_not_found"
    assert results[second.etag]["result"]["predictions"][0]["label"] == label_of(photo("white"))


def test_the_same_bytes_uploaded_twice_have_one_result(stack: Stack) -> None:
    for _ in range(2):
        put_object(stack, "uploads/same.png", photo("blue"))
    process(stack)
    assert len(table_results(stack, "uploads/same.png")) == 1


def test_each_record_of_a_message_gets_a_result(stack: Stack) -> None:
    keys = [f"uploads/together/{number}.png" for number in range(3)]
    stored = [put_object(stack, key, photo("yellow")) for key in keys]
    receive_bodies(stack.client("sqs"), stack.storage.source.queue_url)
    send(stack, notification(*[record(each) for each in stored]))
    process(stack)
    assert [len(table_results(stack, key)) for key in keys] == [1, 1, 1]


def send(stack: Stack, body: str) -> None:
    stack.client("sqs").send_message(QueueUrl=stack.storage.source.queue_url, MessageBody=body)


def test_a_poison_message_goes_to_the_dead_letter_queue_and_the_others_succeed(stack: Stack) -> None:
    sqs = stack.client("sqs")
    with visibility_timeout(stack, 2):
        send(stack, '{"not": "a notification"}')
        put_object(stack, "uploads/beside.png", photo("pink"))
        process(stack)
    (letter,) = sqs.receive_message(
        QueueUrl=stack.storage.dead_letters_url, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    sqs.delete_message(QueueUrl=stack.storage.dead_letters_url, ReceiptHandle=letter["ReceiptHandle"])
    assert letter["Body"] == '{"not": "a notification"}'
    # The function received it three times, and this test once.
    assert letter["Attributes"]["ApproximateReceiveCount"] == "4"
    assert len(table_results(stack, "uploads/beside.png")) == 1


def test_saved_results_cause_no_notifications(stack: Stack) -> None:
    put_object(stack, "results/by-hand.png", photo("red"))
    assert count_waiting(stack) == 0
    put_object(stack, "uploads/by-hand.png", photo("red"))
    assert count_waiting(stack) == 1
    process(stack)


def test_a_worker_that_died_is_restarted(stack: Stack) -> None:
    (worker,) = stack.workers
    worker.kill()
    put_object(stack, "uploads/after.png", photo("black"))
    process(stack)
    assert len(table_results(stack, "uploads/after.png")) == 1


def test_no_upload_is_lost_while_a_new_model_is_deployed(stack: Stack, tmp_path: Path) -> None:
    before = [put_object(stack, f"uploads/rollout/{number}.png", photo(f"#{number:02}8040")) for number in range(24)]
    with stack.poll_queue():
        wait_until(lambda: table_results(stack, before[11].key) and table_results(stack, before[0].key))
        roll_out(stack, newer_bundle(tmp_path))
        again = [put_object(stack, each.key, photo(f"#{number:02}8040")) for number, each in enumerate(before[:12])]
        after = [put_object(stack, f"uploads/rollout/{number}.png", photo("cyan")) for number in range(24, 30)]
        wait_until(lambda: count_waiting(stack) == 0)
    roll_out(stack, DEFAULT_BUNDLE)
    versions = {each.key: versions_of(stack, each) for each in [*before, *after]}
    assert all(len(set(found)) == len(found) >= 1 for found in versions.values())
    assert all(versions[each.key] == [load_bundle(DEFAULT_BUNDLE).version, "9.9.9"] for each in again)
    assert all(versions[each.key] == ["9.9.9"] for each in after)
    assert count_dead_letters(stack) == 0


def roll_out(stack: Stack, bundle: Path) -> None:
    for worker in stack.workers:
        worker.deploy({"LITELENS_BUNDLE": str(bundle)})


def newer_bundle(folder: Path) -> Path:
    bundle = Path(shutil.copytree(DEFAULT_BUNDLE, folder / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"version": "9.9.9"}))
    return bundle


def versions_of(stack: Stack, stored: StoredObject) -> list[str]:
    """Return the versions of the models that have classified the object, oldest result first."""
    results = table_results(stack, stored.key)
    assert all((each["revision"], each["result"]["status"]) == (stored.etag, "done") for each in results)
    return [str(each["model"]["version"]) for each in results]
