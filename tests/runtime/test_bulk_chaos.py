"""Two thousand uploads while workers are killed and the results table is throttled: exactly one result each."""

import io
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bulk import notification
from local_stack import count_visible, count_waiting, put_object, receive_bodies, result_lines, wait_until
from PIL import Image
from support import DEFAULT_BUNDLE, ROCKET, SAMPLES, LambdaContext, answer_of, classify_bytes, encoded

from litelens.api.handler import handler
from litelens.aws.results_table import document_of
from local.emulator import ExecutionEnvironment, InvocationFailed
from local.stack import Stack, Timeouts, run_stack

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

OBJECTS, SENT_AGAIN, BROKEN, KILLS = 1800, 200, 180, 5

# The shortest timeout that the template allows, and a shorter visibility timeout, after which the messages of a killed
# invocation are delivered again.
TIMEOUTS = Timeouts(function=30, visibility=36)

# The maximum number of messages in the queue, because moto scans all of them for each request.
BACKLOG = 40

POISON = [
    "not JSON",
    "{}",
    '{"Records": "none"}',
    '{"Records": [{"eventName": "ObjectCreated:Put"}]}',
    notification({"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "photos"}, "object": {"key": "a.jpg"}}}),
]


@dataclass(frozen=True)
class Upload:
    """An object and its expected result: a label, or a problem's code."""

    key: str
    body: bytes
    expected: str


class Throttle:
    """Middleware that refuses `left` requests to one DynamoDB table, like a table without free capacity."""

    def __init__(self) -> None:
        self.table = ""
        self.left = 0

    def __call__(self, application: "WSGIApplication") -> "WSGIApplication":
        def throttled(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            if self.left <= 0 or not str(environ.get("HTTP_X_AMZ_TARGET")).startswith("DynamoDB_"):
                return application(environ, start_response)
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            if json.loads(body)["TableName"] != self.table:
                return application(environ, start_response)
            self.left -= 1
            start_response("400 Bad Request", [("Content-Type", "application/x-amz-json-1.0")])
            return [b'{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"}']

        return throttled


class KillableWorker:
    """A worker that can be killed in the middle of a batch."""

    def __init__(self, worker: ExecutionEnvironment) -> None:
        self._worker = worker
        self._started = self._finished = self.failed = 0

    def invoke(self, event: Any) -> Any:
        self._started += 1
        try:
            return self._worker.invoke(event)
        except InvocationFailed:
            self.failed += 1
            raise
        finally:
            self._finished += 1

    def interrupt(self, chance: random.Random) -> None:
        """Kill the worker while it processes a batch."""
        before = self.failed
        while self.failed == before:
            wait_until(lambda: self._started > self._finished, pause=0.01)
            self._kill(chance.uniform(0, 0.2))

    def _kill(self, after: float) -> None:
        invocation = self._started
        time.sleep(after)
        self._worker.kill()
        wait_until(lambda: self._finished >= invocation, pause=0.01)


def test_every_upload_gets_exactly_one_result() -> None:
    chance = random.Random(5)
    throttle = Throttle()
    uploads = make_uploads(chance)
    with run_stack(
        DEFAULT_BUNDLE, workers=2, timeouts=TIMEOUTS, parameters={"Results": "both"}, middleware=throttle
    ) as stack:
        workers = [KillableWorker(worker) for worker in stack.workers]
        kills = {chance.randrange(len(uploads) * 3 // 10, len(uploads) * 8 // 10) for _ in range(KILLS)}
        assert len(kills) == KILLS
        killing: list[Future[None]] = []
        with ThreadPoolExecutor(1) as killer, replace(stack, workers=workers).poll_queue():
            send_poison(stack)
            for number, upload in enumerate(with_repetitions(uploads, chance)):
                put_object(stack, upload.key, upload.body)
                if number % 10 == 0:
                    wait_until(lambda: count_visible(stack) < BACKLOG)
                if number == len(uploads) // 5:
                    throttle.table, throttle.left = stack.storage.results_table, 200
                if number in kills:
                    # While the uploads go on, because a worker without messages cannot be interrupted.
                    killing.append(killer.submit(chance.choice(workers).interrupt, random.Random(number)))
            for kill in killing:
                kill.result()
            wait_until(lambda: count_waiting(stack) == 0, within=600, pause=1)
        assert throttle.left <= 0
        assert sum(worker.failed for worker in workers) >= KILLS
        assert sorted(receive_bodies(stack.client("sqs"), stack.storage.dead_letters_url)) == sorted(POISON)
        assert_complete(stack, uploads)


def make_uploads(chance: random.Random) -> list[Upload]:
    good, broken = good_images(), broken_images()
    bodies = [chance.choice(good) for _ in range(OBJECTS - BROKEN)] + [chance.choice(broken) for _ in range(BROKEN)]
    chance.shuffle(bodies)
    expected = {body: outcome_of(body) for body in {*good, *broken}}
    assert len({expected[body] for body in good}) >= 10
    assert {expected[body] for body in broken} == {"image_missing", "not_an_image", "corrupt_image"}
    return [Upload(f"uploads/{number:04}.img", body, expected[body]) for number, body in enumerate(bodies)]


def good_images() -> list[bytes]:
    """Return crops of photos, which have many different labels."""
    places, made = random.Random(5), []
    photos = [Image.open(path).convert("RGB") for path in (ROCKET, *sorted(SAMPLES.glob("*.jpg")))]
    for image_format in ("JPEG", "PNG", "WEBP"):
        for photo in photos * 5:
            left, top = places.randrange(photo.width - 90), places.randrange(photo.height - 90)
            made.append(encoded(photo.crop((left, top, left + 90, top + 90)), image_format))
    return made


def broken_images() -> list[bytes]:
    whole = encoded(Image.new("RGB", (64, 48), "red"), "PNG")
    return [b"", b"not an image", whole[:-30]]


def outcome_of(image: bytes) -> str:
    """Classify an image directly, without the queue."""
    response = handler(classify_bytes(image, "image/png"), LambdaContext())
    answer = answer_of(response)
    return str(answer["predictions"][0]["label"] if response["statusCode"] == 200 else answer["code"])


def with_repetitions(uploads: Sequence[Upload], chance: random.Random) -> Iterator[Upload]:
    """Yield the uploads in order, and some of them again after the next hundred."""
    again = set(chance.sample(range(len(uploads)), SENT_AGAIN))
    for number in range(len(uploads) + 100):
        if number < len(uploads):
            yield uploads[number]
        if number - 100 in again:
            yield uploads[number - 100]


def send_poison(stack: Stack) -> None:
    for body in POISON:
        stack.client("sqs").send_message(QueueUrl=stack.storage.source.queue_url, MessageBody=body)


def assert_complete(stack: Stack, uploads: Sequence[Upload]) -> None:
    documents = saved_documents(stack)
    results = [json.loads(document) for document in documents]
    assert Counter(result["key"] for result in results) == Counter(upload.key for upload in uploads)
    assert {result["key"]: label_or_code(result["result"]) for result in results} == {
        upload.key: upload.expected for upload in uploads
    }
    # After a failure, a line may be in another object again.
    assert set(result_lines(stack)) == set(documents)


def label_or_code(outcome: dict[str, Any]) -> str:
    return str(outcome["predictions"][0]["label"] if outcome["status"] == "done" else outcome["problem"]["code"])


def saved_documents(stack: Stack) -> list[bytes]:
    pages = stack.client("dynamodb").get_paginator("scan").paginate(TableName=stack.storage.results_table)
    return [document_of(item) for page in pages for item in page["Items"]]
