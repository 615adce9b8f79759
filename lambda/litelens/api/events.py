"""The events that invoke the functions: requests of other services in the form of API Gateway's REST APIs, and names.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
"""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

Event = dict[str, Any]

# The source of a batch, such as aws:sqs.
_SOURCE = re.compile(r"aws:[a-z0-9]{1,40}")


class IncompleteRequest(Exception):
    """A request of an HTTP API, a Function URL or an Application Load Balancer lacks a field, or has an invalid one."""


def to_rest_request(event: Any, lambda_request_id: str) -> tuple[Any, Callable[[Event], Event]]:
    """Return a request in the form of API Gateway's REST APIs, and a function that converts the response back.

    Requests of HTTP APIs, Function URLs and Application Load Balancers are converted; any other event is returned as it
    is. Raises IncompleteRequest if one of these lacks a field.
    """
    try:
        return _to_rest_request(event, lambda_request_id)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise IncompleteRequest from error


def _to_rest_request(event: Any, lambda_request_id: str) -> tuple[Any, Callable[[Event], Event]]:
    context = event.get("requestContext") if isinstance(event, dict) else None
    if isinstance(context, dict) and "http" in context:
        return _from_http_api(event, context), _to_http_api
    if isinstance(context, dict) and "elb" in context:
        request, response = _from_load_balancer(event, lambda_request_id), _to_load_balancer
        return request, lambda answer: response(answer, multiple="multiValueHeaders" in event)
    return event, lambda answer: answer


def _from_http_api(event: Event, context: Event) -> Event:
    """Convert a request in the payload format 2.0, which Function URLs have too."""
    requested, stage = event["rawPath"], f"/{context.get('stage')}/"
    path = "/" + requested.removeprefix(stage) if requested.startswith(stage) else requested
    query = dict(parse_qsl(event.get("rawQueryString") or "", keep_blank_values=True))
    return _rest_request(
        event, context["http"]["method"], path, requested, event.get("headers") or {}, query, context.get("requestId")
    )


def _to_http_api(answer: Event) -> Event:
    headers = {name: ", ".join(values) for name, values in answer["multiValueHeaders"].items()}
    return {name: value for name, value in answer.items() if name != "multiValueHeaders"} | {"headers": headers}


def _from_load_balancer(event: Event, lambda_request_id: str) -> Event:
    """Convert a request of an Application Load Balancer, which passes the query as it was sent."""
    headers = _last(event.get("multiValueHeaders")) or event.get("headers") or {}
    sent = _last(event.get("multiValueQueryStringParameters")) or event.get("queryStringParameters") or {}
    query = {unquote_plus(name): unquote_plus(to_text(value)) for name, value in sent.items()}
    return _rest_request(event, event["httpMethod"], event["path"], event["path"], headers, query, lambda_request_id)


def _to_load_balancer(answer: Event, *, multiple: bool) -> Event:
    status = HTTPStatus(answer["statusCode"])
    converted = answer if multiple else _to_http_api(answer)
    return {**converted, "statusDescription": f"{status.value} {status.phrase}"}


def _rest_request(
    event: Event, method: str, path: str, requested: str, headers: Event, query: Event, request_id: Any
) -> Event:
    if not (isinstance(method, str) and isinstance(path, str)):
        raise TypeError("the method or the path is no text")
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
        "requestContext": {"requestId": request_id, "path": requested, "httpMethod": method},
        "body": event.get("body"),
        "isBase64Encoded": event.get("isBase64Encoded") is True,
    }


def to_text(value: Any) -> str:
    """Return the value of an option in a query as text; null stands for no value."""
    return "" if value is None else str(value)


def _last(values: dict[str, list[str]] | None) -> dict[str, str]:
    return {name: each[-1] for name, each in (values or {}).items() if each}


def is_rest_request(event: Any) -> bool:
    """Return whether the event has the fields by which a request of a REST API is recognized."""
    return isinstance(event, dict) and isinstance(event.get("requestContext"), dict) and "httpMethod" in event


def is_request(event: Any) -> bool:
    """Return whether the event is a request of any service, though perhaps an incomplete one."""
    return isinstance(event, dict) and "requestContext" in event


def is_sqs_batch(event: Any) -> bool:
    """Return whether the event is a batch of messages from SQS."""
    records = event.get("Records") if isinstance(event, dict) else None
    return isinstance(records, list) and all(_source_of(record) == "aws:sqs" for record in records)


def describe_event(event: Any) -> str:
    """Say which service sent an event, without any of its values: "a batch of aws:s3", for example."""
    if not isinstance(event, dict):
        return "JSON that is not an object"
    records = event.get("Records")
    if isinstance(records, list) and records:
        return f"a batch of {_source_of(records[0]) or 'an unknown source'}"
    if is_request(event):
        return "a request of an HTTP API, a REST API, a Function URL or a load balancer"
    if "detail-type" in event:
        return "an event of EventBridge"
    if "Items" in event:
        return "a batch of a backfill"
    return "an event of an unknown source, perhaps a test event of the Lambda console"


def _source_of(record: Any) -> str | None:
    found = (record.get("eventSource") or record.get("EventSource")) if isinstance(record, dict) else None
    return found if isinstance(found, str) and _SOURCE.fullmatch(found) else None
