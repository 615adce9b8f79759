"""What tests of the local stack share: waiting for what it does, and counting what it has done."""

import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from bulk import Put

from adapters.uploads import result_key
from local.stack import Stack

# Seconds, for a machine that does much else at the same time.
PATIENCE = 120


def until(condition: Callable[[], object], within: float = PATIENCE, pause: float = 0.2) -> None:
    """Wait for the condition; fails when it does not come true within so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"it did not come to that within {within} seconds"
        time.sleep(pause)


def new_queue(sqs: Any, **attributes: str) -> str:
    """The URL of a queue made for one test."""
    return str(sqs.create_queue(QueueName=f"queue-{uuid.uuid4()}", Attributes=attributes)["QueueUrl"])


def arn_of(sqs: Any, queue: str) -> str:
    return str(_attributes(sqs, queue)["QueueArn"])


def messages_in(sqs: Any, queue: str) -> int:
    """All that are in the queue, hidden or not."""
    attributes = _attributes(sqs, queue)
    return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


def bodies_in(sqs: Any, queue: str) -> list[str]:
    """The bodies of all visible messages, which are taken out."""
    bodies = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            bodies.append(message["Body"])
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def put(stack: Stack, key: str, body: bytes) -> Put:
    bucket = stack.storage.bucket
    answer = stack.client("s3").put_object(Bucket=bucket, Key=key, Body=body)
    return Put(bucket, key, answer["ETag"].strip('"'))


def waiting(stack: Stack) -> int:
    """How many messages are in the queue."""
    return messages_in(stack.client("sqs"), stack.storage.source.queue_url)


def visible(stack: Stack) -> int:
    """How many messages in the queue nobody has in hand."""
    return int(_attributes(stack.client("sqs"), stack.storage.source.queue_url)["ApproximateNumberOfMessages"])


def results_of(stack: Stack, key: str) -> list[dict[str, Any]]:
    """What the table has of the object, oldest first."""
    answer = stack.client("dynamodb").query(
        TableName=stack.storage.results_table,
        KeyConditionExpression="image = :image",
        ExpressionAttributeValues={":image": {"S": f"{stack.storage.bucket}/{key}"}},
    )
    results = [json.loads(item["document"]["S"]) for item in answer["Items"]]
    return sorted(results, key=lambda result: str(result["time"]))


def result_file(stack: Stack, key: str) -> dict[str, Any]:
    """What the file beside the image tells of it."""
    answer = stack.client("s3").get_object(Bucket=stack.storage.bucket, Key=result_key(key))
    return dict(json.loads(answer["Body"].read()))


def _attributes(sqs: Any, queue: str) -> dict[str, Any]:
    return dict(sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"])
