"""Helpers for tests of the local stack: waiting for a condition, and reading its queues and results."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from bulk import StoredObject

from litelens.aws.results_table import document_of
from litelens.aws.s3 import RESULTS_PREFIX
from local.stack import Stack

# Seconds, enough for a busy machine.
PATIENCE = 120


def wait_until(condition: Callable[[], object], within: float = PATIENCE, pause: float = 0.2) -> None:
    """Wait until the condition is true; fails after this many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"the condition was not true within {within} seconds"
        time.sleep(pause)


def create_queue(sqs: Any, **attributes: str) -> str:
    """Create a queue for one test and return its URL."""
    return str(sqs.create_queue(QueueName=f"queue-{uuid.uuid4()}", Attributes=attributes)["QueueUrl"])


def queue_arn(sqs: Any, queue: str) -> str:
    return str(_attributes(sqs, queue)["QueueArn"])


def count_messages(sqs: Any, queue: str) -> int:
    """Return the number of messages in the queue, hidden or not."""
    attributes = _attributes(sqs, queue)
    return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def receive_bodies(sqs: Any, queue: str) -> list[str]:
    """Remove all visible messages from the queue and return their bodies."""
    bodies = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            bodies.append(message["Body"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def put_object(stack: Stack, key: str, body: bytes) -> StoredObject:
    bucket = stack.storage.bucket
    answer = stack.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return StoredObject(bucket, key, answer["ETag"].strip('"'))


def count_waiting(stack: Stack) -> int:
    """Return the number of messages in the stack's queue."""
    return count_messages(stack.client("sqs"), stack.storage.source.queue_url)


def count_visible(stack: Stack) -> int:
    """Return the number of visible messages in the stack's queue."""
    return int(_attributes(stack.client("sqs"), stack.storage.source.queue_url)["ApproximateNumberOfMessages"])


def table_results(stack: Stack, key: str) -> list[dict[str, Any]]:
    """Return the results of an object in the table, oldest first."""
    answer = stack.client("dynamodb").query(
        TableName=stack.storage.results_table,
        KeyConditionExpression="image = :image",
        ExpressionAttributeValues={":image": {"S": f"{stack.storage.bucket}/{key}"}},
    )
    results = [json.loads(document_of(item)) for item in answer["Items"]]
    return sorted(results, key=lambda result: str(result["time"]))


def result_lines(stack: Stack) -> Iterator[bytes]:
    """Yield the lines of all objects with results."""
    s3, bucket = stack.client("s3"), stack.storage.bucket
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=RESULTS_PREFIX):
        for found in page.get("Contents", ()):
            yield from s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read().splitlines()


def _attributes(sqs: Any, queue: str) -> dict[str, Any]:
    return dict(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"])
