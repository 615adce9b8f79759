"""What Lambda does with a queue that is an event source: hands its messages on in batches, deletes what is done.

As https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html tells. Messages that are not done stay
hidden for the queue's visibility timeout, and SQS moves those that came too often to the dead letters. Lambda's limit
of 6 MB on a batch is not imposed.
"""

import itertools
import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from local.emulator import InvocationFailed
from local.storage import EventSource

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

Invoke = Callable[[Any], Any]

# What SQS gives and takes in one request.
_MOST_MESSAGES = 10

# Seconds between two looks into a queue without messages. Lambda has SQS wait instead, which could not be interrupted.
_PAUSE = 0.1

_logger = logging.getLogger(__name__)


class QueuePoller:
    """Hands messages to functions that each take one batch at a time, and that raise InvocationFailed."""

    def __init__(self, sqs: "SQSClient", source: EventSource, functions: Sequence[Invoke]) -> None:
        self._sqs = sqs
        self._source = source
        self._functions = functions
        self._receiving = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Hand on messages until told to stop; the batches in hand are finished first."""
        with ThreadPoolExecutor(len(self._functions), thread_name_prefix="poller") as threads:
            list(threads.map(lambda invoke: self._serve(invoke, stop), self._functions))

    def _serve(self, invoke: Invoke, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                # Messages are taken for a function that is idle, so that they do not grow old while they wait for one.
                with self._receiving:
                    messages = self._collect(stop)
                if messages:
                    self._hand_over(messages, invoke)
        finally:
            # Without one function the others would hide that something is wrong.
            stop.set()

    def _collect(self, stop: threading.Event) -> list["MessageTypeDef"]:
        """A batch: all that comes within the window after the first message, as far as it has room."""
        messages: list[MessageTypeDef] = []
        ends = math.inf
        while len(messages) < self._source.batch_size and time.monotonic() < ends and not stop.is_set():
            received = self._receive(self._source.batch_size - len(messages))
            messages += received
            if not received:
                stop.wait(_PAUSE)
            elif ends == math.inf:
                ends = time.monotonic() + self._source.window
        return messages

    def _receive(self, most: int) -> list["MessageTypeDef"]:
        answer = self._sqs.receive_message(
            QueueUrl=self._source.queue_url,
            MaxNumberOfMessages=min(most, _MOST_MESSAGES),
            MessageSystemAttributeNames=["All"],
        )
        return answer.get("Messages", [])

    def _hand_over(self, messages: Sequence["MessageTypeDef"], invoke: Invoke) -> None:
        try:
            answer = invoke({"Records": [_record(message, self._source) for message in messages]})
        except InvocationFailed as error:
            _logger.info("Messages that come again: %d. %s", len(messages), error)
            return
        ids = {message["MessageId"] for message in messages}
        failed = failed_messages(answer, ids) if self._source.reports_failures else frozenset()
        done = [message for message in messages if message["MessageId"] not in failed]
        _logger.info("Messages that are done: %d. Those that come again: %d.", len(done), len(failed))
        self._delete(done)

    def _delete(self, messages: Sequence["MessageTypeDef"]) -> None:
        for start in range(0, len(messages), _MOST_MESSAGES):
            self._sqs.delete_message_batch(
                QueueUrl=self._source.queue_url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                    for number, message in enumerate(itertools.islice(messages, start, start + _MOST_MESSAGES))
                ],
            )


def failed_messages(answer: Any, ids: Collection[str]) -> frozenset[str]:
    """Those of the messages with these ids that a function with ReportBatchItemFailures failed to process.

    An answer that does not tell of failures means that there are none, one that tells of them wrongly that all failed.
    """
    if answer is None:
        return frozenset()
    try:
        failures = answer.get("batchItemFailures") or []
        failed = frozenset(failure["itemIdentifier"] for failure in failures)
    except (AttributeError, KeyError, TypeError):
        return frozenset(ids)
    return failed if failed <= frozenset(ids) else frozenset(ids)


def _record(message: "MessageTypeDef", source: EventSource) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": source.queue_arn,
        "awsRegion": source.queue_arn.split(":")[3],
    }
