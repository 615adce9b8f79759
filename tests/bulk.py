"""The bulk path for tests: tables from the template, messages in S3's form, and the handler."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

from aws import aws_client_of_tests, new_bucket
from support import DEFAULT_BUNDLE, LambdaContext
from template import synthesize_nested

from litelens.api.response_schemas import BulkResult
from litelens.aws.clients import Deadline, aws_client
from litelens.aws.results_table import ResultsTable
from litelens.aws.s3 import RESULTS_PREFIX, s3_client
from litelens.core.images import Limits
from litelens.settings import Settings

# The header x-amz-request-id of S3's response to an upload.
UPLOAD_REQUEST_ID = "C3D13FE58DE4C810"


def new_table(resource: str) -> str:
    """Create a table for one test from the template's resource and return its name."""
    declared = dict(synthesize_nested("Storage")["Resources"][resource]["Properties"])
    # Not parameters of CreateTable.
    for later in ("TimeToLiveSpecification", "PointInTimeRecoverySpecification"):
        declared.pop(later)
    name = f"{resource}-{uuid.uuid4()}"
    aws_client_of_tests("dynamodb").create_table(TableName=name, **declared)
    return name


def new_settings(max_upload_bytes: int = 1_000_000, **others: Any) -> Settings:
    """Create a bucket and tables for one test and return the settings with their names."""
    return Settings(
        DEFAULT_BUNDLE,
        Limits(),
        1,
        max_upload_bytes,
        upload_bucket=new_bucket(),
        results_table=new_table("ResultsTable"),
        **others,
    )


@dataclass(frozen=True)
class StoredObject:
    """An object in S3 and its ETag."""

    bucket: str
    key: str
    etag: str


def put(settings: Settings, key: str, body: bytes) -> StoredObject:
    assert settings.upload_bucket
    answer = s3_client().put_object(Bucket=settings.upload_bucket, Key=key, Body=body)
    return StoredObject(settings.upload_bucket, key, answer["ETag"].strip('"'))


def record(stored: StoredObject, event: str = "ObjectCreated:Put", **more: str | int) -> dict[str, Any]:
    """Return S3's notification record of an object.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    described = {
        "key": quote_plus(stored.key, safe="/"),
        "size": 1024,
        "eTag": stored.etag,
        "sequencer": "0055AED6DC",
    }
    return {
        "eventVersion": "2.2",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-11-21T00:00:00.000Z",
        "eventName": event,
        "responseElements": {"x-amz-request-id": UPLOAD_REQUEST_ID, "x-amz-id-2": "host"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "uploads",
            "bucket": {"name": stored.bucket, "arn": f"arn:aws:s3:::{stored.bucket}"},
            "object": described | more,
        },
    }


def notification(*records: Mapping[str, Any]) -> str:
    return json.dumps({"Records": list(records)})


def batch(*bodies: str, delivery: int = 1) -> dict[str, Any]:
    """Return Lambda's event for SQS messages with these bodies; the messages' ids are "0", "1", and so on.

    It is the first `delivery` of these messages, or a later one.
    """
    return {
        "Records": [
            {
                "messageId": str(number),
                "receiptHandle": f"handle-{number}",
                "body": body,
                "attributes": {"ApproximateReceiveCount": str(delivery)},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:images",
                "awsRegion": "us-east-1",
            }
            for number, body in enumerate(bodies)
        ]
    }


def failed_ids(answer: Any) -> list[str]:
    """Return the ids of the failed messages in a handler's response."""
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def classify_uploads(settings: Settings) -> None:
    """Invoke the handler with notifications of all objects under uploads/."""
    from litelens.bulk.batches import create_handler

    assert settings.upload_bucket
    listed = s3_client().list_objects_v2(Bucket=settings.upload_bucket, Prefix="uploads/")["Contents"]
    puts = [StoredObject(settings.upload_bucket, found["Key"], found["ETag"].strip('"')) for found in listed]
    answer = create_handler(settings)(batch(*(notification(record(stored)) for stored in puts)), Context())
    assert failed_ids(answer) == []


def result_lines(settings: Settings) -> list[bytes]:
    """Return the lines of all objects with results."""
    assert settings.upload_bucket
    listed = s3_client().list_objects_v2(Bucket=settings.upload_bucket, Prefix=RESULTS_PREFIX).get("Contents", [])
    bodies = [
        s3_client().get_object(Bucket=settings.upload_bucket, Key=found["Key"])["Body"].read() for found in listed
    ]
    return [line for body in bodies for line in body.splitlines()]


def results_of(settings: Settings, key: str) -> list[BulkResult]:
    """Return all results of an object in the table, newest first."""
    import msgspec

    assert settings.results_table
    assert settings.upload_bucket
    documents = ResultsTable(settings.results_table).find_all(settings.upload_bucket, key, Deadline.after(20))
    return [msgspec.json.decode(document, type=BulkResult) for document in documents]


def table_items(name: str | None) -> list[dict[str, Any]]:
    """Return all items of a table."""
    items: list[dict[str, Any]] = aws_client("dynamodb").scan(TableName=name)["Items"]
    return items


class Context(LambdaContext):
    """A Lambda context with this many seconds left."""

    def __init__(self, seconds: float = 60) -> None:
        self._milliseconds = int(seconds * 1000)

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds
