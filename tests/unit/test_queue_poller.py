"""QueuePoller on moto's SQS, with functions of the tests."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from local_stack import count_messages, create_queue, queue_arn, receive_bodies, wait_until

from local.aws import client_at, serve_aws
from local.emulator import InvocationFailed
from local.queue_poller import Invoke, QueuePoller, failed_messages
from local.storage import EventSource


@pytest.fixture(scope="module")
def sqs() -> Iterator[Any]:
    with serve_aws() as url:
        yield client_at(url, "sqs")


@pytest.fixture
def source(sqs: Any) -> EventSource:
    queue = create_queue(sqs)
    return EventSource(queue, queue_arn(sqs, queue), batch_size=10, window=0, reports_failures=True)


def send(sqs: Any, source: EventSource, *bodies: str) -> None:
    for body in bodies:
        sqs.send_message(QueueUrl=source.queue_url, MessageBody=body)


@contextmanager
def polling(sqs: Any, source: EventSource, *functions: Invoke) -> Iterator[None]:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(QueuePoller(sqs, source, functions).run, stop)
        try:
            yield
        finally:
            stop.set()
            running.result()


class Recorder:
    """A function that records its events and returns `answer`, or calls it with the event."""

    def __init__(self, answer: Any = None) -> None:
        self.events: list[Any] = []
        self._answer = answer

    def __call__(self, event: Any) -> Any:
        self.events.append(event)
        return self._answer(event) if callable(self._answer) else self._answer

    @property
    def batches(self) -> list[list[str]]:
        return [[record["body"] for record in event["Records"]] for event in self.events]

    @property
    def bodies(self) -> list[str]:
        return [body for batch in self.batches for body in batch]


def report_failures(*bodies: str) -> Any:
    """Return a function whose answers report the messages with these bodies as failed."""

    def answer(event: Any) -> Any:
        failed = [record["messageId"] for record in event["Records"] if record["body"] in bodies]
        return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}

    return answer


def fail(_: Any) -> Any:
    raise InvocationFailed("as the test requires")


def test_messages_have_the_form_that_lambda_passes(sqs: Any, source: EventSource) -> None:
    function = Recorder()
    send(sqs, source, "hello")
    with polling(sqs, source, function):
        wait_until(lambda: function.events)
    ((record,),) = (event["Records"] for event in function.events)
    assert record["body"] == "hello"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert (record["eventSource"], record["eventSourceARN"]) == ("aws:sqs", source.queue_arn)
    assert record["awsRegion"] == "us-east-1"
    assert {"messageId", "receiptHandle", "md5OfBody", "messageAttributes"} < record.keys()
    json.dumps(record)


def test_processed_messages_are_deleted_and_failed_ones_stay(sqs: Any, source: EventSource) -> None:
    function = Recorder(report_failures("b"))
    send(sqs, source, "a", "b", "c")
    with polling(sqs, source, function):
        wait_until(lambda: len(function.bodies) == 3)
        wait_until(lambda: count_messages(sqs, source.queue_url) == 1)
    receipts = {record["body"]: record["receiptHandle"] for event in function.events for record in event["Records"]}
    sqs.change_message_visibility(QueueUrl=source.queue_url, ReceiptHandle=receipts["b"], VisibilityTimeout=0)
    assert receive_bodies(sqs, source.queue_url) == ["b"]


def test_a_message_is_delivered_until_it_succeeds(sqs: Any) -> None:
    queue = create_queue(sqs, VisibilityTimeout="0")
    source = EventSource(queue, queue_arn(sqs, queue), batch_size=10, window=0, reports_failures=True)
    function = Recorder(lambda event: report_failures("a")(event) if len(function.events) < 3 else None)
    send(sqs, source, "a")
    with polling(sqs, source, function):
        wait_until(lambda: count_messages(sqs, queue) == 0)
    assert function.batches == [["a"]] * 3
    counts = [event["Records"][0]["attributes"]["ApproximateReceiveCount"] for event in function.events]
    assert counts == ["1", "2", "3"]


def test_a_failing_function_leaves_the_whole_batch_in_the_queue(sqs: Any, source: EventSource) -> None:
    function = Recorder(fail)
    send(sqs, source, "a", "b")
    with polling(sqs, source, function):
        wait_until(lambda: len(function.bodies) == 2)
    assert count_messages(sqs, source.queue_url) == 2


def test_without_failure_reports_any_answer_is_a_success(sqs: Any, source: EventSource) -> None:
    function = Recorder(report_failures("a"))
    send(sqs, source, "a")
    with polling(sqs, replace(source, reports_failures=False), function):
        wait_until(lambda: count_messages(sqs, source.queue_url) == 0)
    assert function.bodies == ["a"]


def test_a_message_that_fails_too_often_goes_to_the_dead_letter_queue(sqs: Any) -> None:
    dead_letters = create_queue(sqs)
    policy = json.dumps({"deadLetterTargetArn": queue_arn(sqs, dead_letters), "maxReceiveCount": 3})
    queue = create_queue(sqs, VisibilityTimeout="0", RedrivePolicy=policy)
    source = EventSource(queue, queue_arn(sqs, queue), batch_size=10, window=0, reports_failures=True)
    function = Recorder(report_failures("poison"))
    send(sqs, source, "a", "poison", "b")
    with polling(sqs, source, function):
        wait_until(lambda: count_messages(sqs, dead_letters) == 1)
    assert count_messages(sqs, queue) == 0
    assert receive_bodies(sqs, dead_letters) == ["poison"]
    assert sorted(function.bodies) == ["a", "b", "poison", "poison", "poison"]


def test_a_batch_has_at_most_the_batch_size(sqs: Any, source: EventSource) -> None:
    function = Recorder()
    send(sqs, source, *"abcdefg")
    with polling(sqs, replace(source, batch_size=3), function):
        wait_until(lambda: count_messages(sqs, source.queue_url) == 0)
    assert [len(batch) for batch in function.batches] == [3, 3, 1]
    assert sorted(function.bodies) == list("abcdefg")


def test_a_batching_window_combines_the_messages_of_several_requests(sqs: Any, source: EventSource) -> None:
    function = Recorder()
    bodies = [str(number) for number in range(25)]
    send(sqs, source, *bodies)
    with polling(sqs, replace(source, batch_size=25, window=60), function):
        wait_until(lambda: function.events)
    assert [len(batch) for batch in function.batches] == [25]
    assert sorted(function.bodies, key=int) == bodies


def test_a_partial_batch_is_delivered_when_the_window_ends(sqs: Any, source: EventSource) -> None:
    function = Recorder()
    send(sqs, source, "a")
    with polling(sqs, replace(source, batch_size=25, window=1), function):
        wait_until(lambda: function.events)
    assert function.batches == [["a"]]


def test_several_functions_run_at_the_same_time(sqs: Any, source: EventSource) -> None:
    both = threading.Barrier(2, timeout=60)

    def wait_for_the_other(_: Any) -> None:
        both.wait()

    functions = Recorder(wait_for_the_other), Recorder(wait_for_the_other)
    send(sqs, source, "a", "b")
    with polling(sqs, replace(source, batch_size=1), *functions):
        wait_until(lambda: count_messages(sqs, source.queue_url) == 0)
    assert sorted(functions[0].bodies + functions[1].bodies) == ["a", "b"]
    assert [len(function.bodies) for function in functions] == [1, 1]


def test_an_unexpected_error_stops_the_poller(sqs: Any, source: EventSource) -> None:
    def broken(_: Any) -> Any:
        raise ZeroDivisionError

    send(sqs, source, "a")
    with pytest.raises(ZeroDivisionError):
        QueuePoller(sqs, source, [broken, Recorder()]).run(threading.Event())


NONE_FAILED: list[Any] = [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}, {"other": 1}]


@pytest.mark.parametrize("answer", NONE_FAILED)
def test_an_answer_without_failures_is_a_success(answer: Any) -> None:
    assert failed_messages(answer, ["a", "b"]) == frozenset()


ALL_FAILED: list[Any] = [
    "done",
    [],
    7,
    {"batchItemFailures": 7},
    {"batchItemFailures": ["a"]},
    {"batchItemFailures": [{"messageId": "a"}]},
    {"batchItemFailures": [{"itemIdentifier": None}]},
    {"batchItemFailures": [{"itemIdentifier": ""}]},
    {"batchItemFailures": [{"itemIdentifier": []}]},
    {"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "of another batch"}]},
]


@pytest.mark.parametrize("answer", ALL_FAILED)
def test_a_malformed_failure_report_fails_the_whole_batch(answer: Any) -> None:
    assert failed_messages(answer, ["a", "b"]) == {"a", "b"}
