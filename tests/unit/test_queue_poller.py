"""The queue's poller on moto's SQS, with functions of our own."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from stacks import arn_of, bodies_in, messages_in, new_queue, until

from local.aws import client_at, serving_aws
from local.emulator import InvocationFailed
from local.queue_poller import Invoke, QueuePoller, failed_messages
from local.storage import EventSource


@pytest.fixture(scope="module")
def sqs() -> Iterator[Any]:
    with serving_aws() as url:
        yield client_at(url, "sqs")


@pytest.fixture
def source(sqs: Any) -> EventSource:
    queue = new_queue(sqs)
    return EventSource(queue, arn_of(sqs, queue), batch_size=10, window=0, reports_failures=True)


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


class Function:
    """Keeps the batches that it gets, as their messages' bodies, and answers as it is told."""

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


def reporting(*bodies: str) -> Any:
    """An answer that tells that the messages with these bodies failed."""

    def answer(event: Any) -> Any:
        failed = [record["messageId"] for record in event["Records"] if record["body"] in bodies]
        return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}

    return answer


def fail(_: Any) -> Any:
    raise InvocationFailed("it was told to")


def test_messages_arrive_as_lambda_hands_them_over(sqs: Any, source: EventSource) -> None:
    function = Function()
    send(sqs, source, "hello")
    with polling(sqs, source, function):
        until(lambda: function.events)
    ((record,),) = (event["Records"] for event in function.events)
    assert record["body"] == "hello"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert (record["eventSource"], record["eventSourceARN"]) == ("aws:sqs", source.queue_arn)
    assert record["awsRegion"] == "us-east-1"
    assert {"messageId", "receiptHandle", "md5OfBody", "messageAttributes"} < record.keys()
    json.dumps(record)


def test_what_was_done_is_deleted_and_what_was_not_stays(sqs: Any, source: EventSource) -> None:
    function = Function(reporting("b"))
    send(sqs, source, "a", "b", "c")
    with polling(sqs, source, function):
        until(lambda: len(function.bodies) == 3)
        until(lambda: messages_in(sqs, source.queue_url) == 1)
    receipts = {record["body"]: record["receiptHandle"] for event in function.events for record in event["Records"]}
    sqs.change_message_visibility(QueueUrl=source.queue_url, ReceiptHandle=receipts["b"], VisibilityTimeout=0)
    assert bodies_in(sqs, source.queue_url) == ["b"]


def test_a_message_comes_again_until_it_is_done(sqs: Any) -> None:
    queue = new_queue(sqs, VisibilityTimeout="0")
    source = EventSource(queue, arn_of(sqs, queue), batch_size=10, window=0, reports_failures=True)
    function = Function(lambda event: reporting("a")(event) if len(function.events) < 3 else None)
    send(sqs, source, "a")
    with polling(sqs, source, function):
        until(lambda: messages_in(sqs, queue) == 0)
    assert function.batches == [["a"]] * 3
    counts = [event["Records"][0]["attributes"]["ApproximateReceiveCount"] for event in function.events]
    assert counts == ["1", "2", "3"]


def test_a_function_that_fails_leaves_the_whole_batch(sqs: Any, source: EventSource) -> None:
    function = Function(fail)
    send(sqs, source, "a", "b")
    with polling(sqs, source, function):
        until(lambda: len(function.bodies) == 2)
    assert messages_in(sqs, source.queue_url) == 2


def test_without_reports_an_answer_means_that_all_is_done(sqs: Any, source: EventSource) -> None:
    function = Function(reporting("a"))
    send(sqs, source, "a")
    with polling(sqs, replace(source, reports_failures=False), function):
        until(lambda: messages_in(sqs, source.queue_url) == 0)
    assert function.bodies == ["a"]


def test_what_fails_too_often_ends_in_the_dead_letters(sqs: Any) -> None:
    dead_letters = new_queue(sqs)
    policy = json.dumps({"deadLetterTargetArn": arn_of(sqs, dead_letters), "maxReceiveCount": 3})
    queue = new_queue(sqs, VisibilityTimeout="0", RedrivePolicy=policy)
    source = EventSource(queue, arn_of(sqs, queue), batch_size=10, window=0, reports_failures=True)
    function = Function(reporting("poison"))
    send(sqs, source, "a", "poison", "b")
    with polling(sqs, source, function):
        until(lambda: messages_in(sqs, dead_letters) == 1)
    assert messages_in(sqs, queue) == 0
    assert bodies_in(sqs, dead_letters) == ["poison"]
    assert sorted(function.bodies) == ["a", "b", "poison", "poison", "poison"]


def test_a_batch_has_no_more_messages_than_it_may(sqs: Any, source: EventSource) -> None:
    function = Function()
    send(sqs, source, *"abcdefg")
    with polling(sqs, replace(source, batch_size=3), function):
        until(lambda: messages_in(sqs, source.queue_url) == 0)
    assert [len(batch) for batch in function.batches] == [3, 3, 1]
    assert sorted(function.bodies) == list("abcdefg")


def test_within_the_window_a_batch_takes_more_than_one_request_gives(sqs: Any, source: EventSource) -> None:
    function = Function()
    bodies = [str(number) for number in range(25)]
    send(sqs, source, *bodies)
    with polling(sqs, replace(source, batch_size=25, window=60), function):
        until(lambda: function.events)
    assert [len(batch) for batch in function.batches] == [25]
    assert sorted(function.bodies, key=int) == bodies


def test_the_window_ends_though_the_batch_is_not_full(sqs: Any, source: EventSource) -> None:
    function = Function()
    send(sqs, source, "a")
    with polling(sqs, replace(source, batch_size=25, window=1), function):
        until(lambda: function.events)
    assert function.batches == [["a"]]


def test_several_functions_work_at_the_same_time(sqs: Any, source: EventSource) -> None:
    both = threading.Barrier(2, timeout=60)

    def wait_for_the_other(_: Any) -> None:
        both.wait()

    functions = Function(wait_for_the_other), Function(wait_for_the_other)
    send(sqs, source, "a", "b")
    with polling(sqs, replace(source, batch_size=1), *functions):
        until(lambda: messages_in(sqs, source.queue_url) == 0)
    assert sorted(functions[0].bodies + functions[1].bodies) == ["a", "b"]
    assert [len(function.bodies) for function in functions] == [1, 1]


def test_what_is_wrong_with_the_poller_itself_ends_it(sqs: Any, source: EventSource) -> None:
    def broken(_: Any) -> Any:
        raise ZeroDivisionError

    send(sqs, source, "a")
    with pytest.raises(ZeroDivisionError):
        QueuePoller(sqs, source, [broken, Function()]).run(threading.Event())


NONE_FAILED: list[Any] = [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}, {"other": 1}]


@pytest.mark.parametrize("answer", NONE_FAILED)
def test_an_answer_without_failures_means_that_all_is_done(answer: Any) -> None:
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
def test_an_answer_that_tells_of_failures_wrongly_means_that_all_failed(answer: Any) -> None:
    assert failed_messages(answer, ["a", "b"]) == {"a", "b"}
