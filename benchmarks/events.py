"""Events and a context to call the Lambda handlers with."""

import base64
import json
from typing import Any

_BOUNDARY = b"7b2e5f0c41d84b6f9a3c"


class Context:
    """The attributes of Lambda's context object that the handlers read, as long as those of a stack."""

    function_name = "litelens-prod-ApiFunction-0a1B2c3D4e5F"
    memory_limit_in_mb = 1769
    invoked_function_arn = f"arn:aws:lambda:us-east-1:000000000000:function:{function_name}:live"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def binary_request(photo: bytes, content_type: str = "image/jpeg") -> dict[str, Any]:
    """Return API Gateway's event for POST /v1/classify with the photo as its body."""
    return _request(base64.b64encode(photo).decode(), content_type, is_base64=True)


def json_request(photo: bytes) -> dict[str, Any]:
    """Return API Gateway's event for POST /v1/classify with the photo as base64 in JSON."""
    return _request(json.dumps({"image": base64.b64encode(photo).decode()}), "application/json", is_base64=False)


def form_request(photos: list[bytes]) -> dict[str, Any]:
    """Return API Gateway's event for POST /v1/classify with a form that has all these photos."""
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="image"; filename="%d.jpg"\r\n\r\n%s\r\n'
        % (_BOUNDARY, number, photo)
        for number, photo in enumerate(photos)
    ]
    body = b"".join([*parts, b"--%s--\r\n" % _BOUNDARY])
    content_type = f"multipart/form-data; boundary={_BOUNDARY.decode()}"
    return _request(base64.b64encode(body).decode(), content_type, is_base64=True)


def _request(body: str, content_type: str, *, is_base64: bool) -> dict[str, Any]:
    return {
        "resource": "/v1/classify",
        "path": "/v1/classify",
        "httpMethod": "POST",
        "headers": {"Content-Type": content_type},
        "multiValueHeaders": {"Content-Type": [content_type]},
        "requestContext": {"requestId": Context.aws_request_id},
        "body": body,
        "isBase64Encoded": is_base64,
    }


def queue_event(numbers: list[int]) -> dict[str, Any]:
    """Return SQS's event with a message for each upload, as S3 sends them."""
    return {"Records": [_message(number) for number in numbers]}


def _message(number: int) -> dict[str, Any]:
    uploaded = {"key": f"uploads/{number}.jpg", "eTag": f"{number:032x}", "size": 1}
    notification = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "uploads"}, "object": uploaded}}
    return {
        "messageId": str(number),
        "receiptHandle": "handle",
        "body": json.dumps({"Records": [notification]}),
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:images",
        "awsRegion": "us-east-1",
    }


def backfill_event(numbers: list[int]) -> dict[str, Any]:
    """Return Step Functions' event with a batch of objects."""
    items = [{"Key": f"{number}.jpg", "Etag": '"etag"'} for number in numbers]
    return {"BatchInput": {"bucket": "uploads"}, "Items": items}
