"""Lambda's SQS event source mapping: invokes functions with batches of messages and deletes the processed ones.

Follows https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html. Failed messages stay hidden for
the queue's visibility timeout, and SQS moves messages that failed too often to the dead-letter queue. Lambda's limit of
6 MB per batch is not enforced.
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

# The maximum number of messages in one request to SQS.
_MAX_MESSAGES = 10

# Seconds between polls of an empty queue. Lambda uses long polling instead, which could not be interrupted.
_PAUSE = 0.1

_logger = logging.getLogger(__name__)


class QueuePoller:
    """Polls a queue and invokes functions with batches, one batch per function at a time."""

    def __init__(self, sqs: "SQSClient", source: EventSource, functions: Sequence[Invoke]) -> None:
        self._sqs = sqs
        self._source = source
        self._functions = functions
        self._receiving = threading.Lock()

    def run(self, stop: threading.Event) -> None:
        """Poll until `stop` is set, then finish the current batches."""
        with ThreadPoolExecutor(len(self._functions), thread_name_prefix="poller") as threads:
            list(threads.map(lambda invoke: self._poll(invoke, stop), self._functions))

    def _poll(self, invoke: Invoke, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                # Only receive messages when a function is idle, so that their visibility timeout does not run out.
                with self._receiving:
                    messages = self._receive_batch(stop)
                if messages:
                    self._process(messages, invoke)
        finally:
            # If one function fails, stop all, so that the error shows.
            stop.set()

    def _receive_batch(self, stop: threading.Event) -> list["MessageTypeDef"]:
        """Receive one batch: up to `batch_size` messages within the window after the first one."""
        messages: list[MessageTypeDef] = []
        ends = math.inf
        while len(messages) < self._source.batch_size and time.monotonic() < ends and not stop.is_set():
            received = self._receive_messages(self._source.batch_size - len(messages))
            messages += received
            if not received:
                stop.wait(_PAUSE)
            elif ends == math.inf:
                ends = time.monotonic() + self._source.window
        return messages

    def _receive_messages(self, most: int) -> list["MessageTypeDef"]:
        answer = self._sqs.receive_message(
            QueueUrl=self._source.queue_url,
            MaxNumberOfMessages=min(most, _MAX_MESSAGES),
            MessageSystemAttributeNames=["All"],
        )
        return answer.get("Messages", [])

    def _process(self, messages: Sequence["MessageTypeDef"], invoke: Invoke) -> None:
        try:
            answer = invoke({"Records": [_record(message, self._source) for message in messages]})
        except InvocationFailed as error:
            _logger.info("Messages to retry: %d. %s", len(messages), error)
            return
        ids = {message["MessageId"] for message in messages}
        failed = failed_messages(answer, ids) if self._source.reports_failures else frozenset()
        done = [message for message in messages if message["MessageId"] not in failed]
        _logger.info("Messages processed: %d, to retry: %d.", len(done), len(failed))
        self._delete(done)

    def _delete(self, messages: Sequence["MessageTypeDef"]) -> None:
        for start in range(0, len(messages), _MAX_MESSAGES):
            self._sqs.delete_message_batch(
                QueueUrl=self._source.queue_url,
                Entries=[
                    {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                    for number, message in enumerate(itertools.islice(messages, start, start + _MAX_MESSAGES))
                ],
            )


def failed_messages(answer: Any, ids: Collection[str]) -> frozenset[str]:
    """Return the ids of the failed messages from the response of a function with ReportBatchItemFailures.

    A response without failures means that none failed; a malformed response means that all failed.
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
