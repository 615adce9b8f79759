"""Events that are not from API Gateway's REST APIs: requests of other services, and events that are no requests."""

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from captured_logs import CapturedLogs, capture_logs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ROCKET, LambdaContext, answer_of, classify_bytes, event, recorded_event
from test_request_forms import FORM_TYPE, form

from litelens.api.events import describe_event

Handle = Callable[[dict[str, Any]], dict[str, Any]]
Sender = Callable[..., dict[str, Any]]

PHOTO = ROCKET.read_bytes()
ID = "JKJaXmPLvHcESHA="


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> CapturedLogs:
    return capture_logs(monkeypatch)


def content(body: bytes | str | None) -> dict[str, Any]:
    is_bytes = isinstance(body, bytes)
    return {"body": base64.b64encode(body).decode() if isinstance(body, bytes) else body, "isBase64Encoded": is_bytes}


def function_url(
    method: str, path: str, body: bytes | str | None, headers: dict[str, str], stage: str = "$default", **query: str
) -> dict[str, Any]:
    """Return an event in the payload format 2.0.

    https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html
    """
    requested = path if stage == "$default" else f"/{stage}{path}"
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": requested,
        "rawQueryString": urlencode(query),
        "headers": {"host": "x.lambda-url.us-east-1.on.aws", **headers},
        "queryStringParameters": query,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "x",
            "domainName": "x.lambda-url.us-east-1.on.aws",
            "domainPrefix": "x",
            "http": {
                "method": method,
                "path": requested,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
                "userAgent": "curl/8.5.0",
            },
            "requestId": ID,
            "routeKey": "$default",
            "stage": stage,
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        **content(body),
    }


def http_api(method: str, path: str, body: bytes | str | None, headers: dict[str, str], **query: str) -> dict[str, Any]:
    return function_url(method, path, body, headers, stage="live", **query)


def load_balancer(
    method: str, path: str, body: bytes | str | None, headers: dict[str, str], **query: str
) -> dict[str, Any]:
    """Return an event of an Application Load Balancer, which does not decode the query.

    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
    """
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/x/y"}},
        "httpMethod": method,
        "path": path,
        "queryStringParameters": {quote_plus(name): quote_plus(value) for name, value in query.items()},
        "headers": headers,
        **content(body),
    }


def load_balancer_with_lists(*arguments: Any, **query: str) -> dict[str, Any]:
    made = load_balancer(*arguments, **query)
    headers, sent = made.pop("headers"), made.pop("queryStringParameters")
    return made | {
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "multiValueQueryStringParameters": {name: ["ignored", value] for name, value in sent.items()},
    }


SENDERS = {
    "function URL": function_url,
    "HTTP API": http_api,
    "load balancer": load_balancer,
    "load balancer with lists": load_balancer_with_lists,
}


@pytest.mark.parametrize("service", SENDERS)
class TestOtherServices:
    def test_a_photo_gets_the_same_labels_as_from_a_rest_api(self, handle: Handle, service: str) -> None:
        send = SENDERS[service]
        expected = answer_of(handle(classify_bytes(PHOTO, top_k="2", heatmap_label="tabby cat")))
        form_body = form(("image", PHOTO), ("top_k", "2"))
        for made in (
            send("POST", "/v1/classify", PHOTO, {"content-type": "image/jpeg"}, top_k="2", heatmap_label="tabby cat"),
            send("POST", "/v1/classify", form_body, {"content-type": FORM_TYPE}, heatmap_label="tabby cat"),
            send(
                "POST",
                "/v1/classify",
                json.dumps({"image": base64.b64encode(PHOTO).decode(), "top_k": 2, "heatmap_label": "tabby cat"}),
                {"content-type": "application/json"},
            ),
        ):
            response = handle(made)
            assert response["statusCode"] == 200, response["body"]
            answer = answer_of(response)
            assert answer["predictions"] == expected["predictions"]
            assert answer["heatmap"]["label"] == "tabby cat"

    def test_a_response_has_the_form_that_the_service_reads(self, handle: Handle, service: str) -> None:
        response = handle(SENDERS[service]("GET", "/v1/health", None, {}))
        json.dumps(response)
        lists = service == "load balancer with lists"
        headers = response["multiValueHeaders" if lists else "headers"]
        assert ("headers" in response, "multiValueHeaders" in response) == (not lists, lists)
        assert all(isinstance(value, list if lists else str) for value in headers.values())
        assert {"Content-Type", "X-Request-Id", "Litelens-Model", "Cache-Control"} <= headers.keys()
        assert response["isBase64Encoded"] is False
        assert (response.get("statusDescription") == "200 OK") is service.startswith("load balancer")

    def test_a_problem_has_its_status_and_code(self, handle: Handle, service: str) -> None:
        response = handle(SENDERS[service]("POST", "/v1/classify", b"hello", {"content-type": "image/png"}))
        assert (response["statusCode"], answer_of(response)["code"]) == (415, "not_an_image")
        response = handle(SENDERS[service]("GET", "/v1/nothing", None, {}))
        assert (response["statusCode"], answer_of(response)["code"]) == (404, "not_found")

    def test_the_request_has_an_id(self, handle: Handle, service: str, logs: CapturedLogs) -> None:
        answer = answer_of(handle(SENDERS[service]("POST", "/v1/classify", PHOTO, {"content-type": "image/jpeg"})))
        expected = LambdaContext.aws_request_id if service.startswith("load balancer") else ID
        assert answer["request_id"] == expected == logs.classified()[0]["request_id"]


@pytest.mark.parametrize("door", ["classify_http_api", "classify_function_url"])
def test_a_recorded_request_of_each_front_door_gets_the_same_answer(handle: Handle, door: str) -> None:
    expected = answer_of(handle(recorded_event("classify_jpeg")))
    made = recorded_event(door)
    response = handle(made)
    assert (response["statusCode"], response["isBase64Encoded"]) == (200, False)
    assert response["headers"]["X-Request-Id"] == made["requestContext"]["requestId"]
    assert answer_of(response)["predictions"] == expected["predictions"][:2]


@pytest.mark.parametrize("stage", ["$default", "live"])
def test_links_of_the_openapi_document_keep_the_stage_of_an_http_api(handle: Handle, stage: str) -> None:
    document = answer_of(handle(function_url("GET", "/openapi.json", None, {}, stage=stage)))
    assert document["servers"] == [{"url": "/" if stage == "$default" else "/live"}]


UNKNOWN = {
    "a test event of the console": {"key1": "value1", "key2": "value2"},
    "a notification of S3": {"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": "secret"}}}]},
    "a batch of SQS": {"Records": [{"eventSource": "aws:sqs", "body": "secret"}]},
    "a message of SNS": {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "secret"}}]},
    "a batch of a forged source": {"Records": [{"eventSource": "aws:\nsecret"}]},
    "an event of EventBridge": {"detail-type": "secret", "source": "aws.s3", "detail": {}},
    "a batch of a backfill": {"Items": [{"Key": "secret"}]},
    "a request without its method": {"requestContext": {"http": {}}, "rawPath": "/secret"},
    "a request of a load balancer without its path": {"requestContext": {"elb": {}}, "httpMethod": "GET"},
    "a message of a WebSocket API": {"requestContext": {"connectionId": "secret"}, "body": "secret"},
    "a list": ["secret"],
    "text": "secret",
    "null": None,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_event_that_is_no_request_is_logged_as_what_it_is_with_what_to_do(
    handle: Handle, logs: CapturedLogs, name: str
) -> None:
    response = handle(UNKNOWN[name])
    assert (response["statusCode"], answer_of(response)["code"]) == (500, "internal_error")
    (line,) = logs.log_lines("failed")
    assert line["code"] == "internal_error"
    assert describe_event(UNKNOWN[name]) in line["reason"]
    assert line["reason"] == answer_of(response)["detail"]
    assert "API Gateway" in line["reason"]
    assert "secret" not in logs.getvalue() + response["body"]
    assert "\n" not in line.get("reason", "")


@pytest.mark.parametrize(
    ("source", "named"), [("aws:sqs", "aws:sqs"), ("aws:s3", "aws:s3"), ("aws:kinesis", "aws:kinesis")]
)
def test_a_batch_is_named_by_its_source(source: str, named: str) -> None:
    assert named in describe_event({"Records": [{"eventSource": source}]})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("headers", "multiValueHeaders", "requestContext", "rawPath", "path", "rawQueryString", "body", "httpMethod")


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(service=st.sampled_from(sorted(SENDERS)), name=st.sampled_from(FIELDS), value=anything)
def test_a_damaged_request_of_another_service_gets_a_response(
    handle: Handle, service: str, name: str, value: Any
) -> None:
    damaged = SENDERS[service]("POST", "/v1/classify", PHOTO[:100], {"content-type": "image/jpeg"}) | {name: value}
    response = handle(damaged)
    json.dumps(response)
    assert 200 <= response["statusCode"] < 600


@pytest.mark.parametrize("service", SENDERS)
@pytest.mark.parametrize("name", ["httpMethod", "path", "rawPath", "http"])
def test_a_request_of_another_service_with_a_damaged_field_is_called_incomplete(
    handle: Handle, logs: CapturedLogs, service: str, name: str
) -> None:
    damaged = SENDERS[service]("GET", "/v1/health", None, {})
    damaged |= {"requestContext": damaged["requestContext"] | {name: 7}} if name == "http" else {name: 7}
    if name != "http" and name not in SENDERS[service]("GET", "/v1/health", None, {}):
        assert handle(damaged)["statusCode"] == 200
        return
    assert handle(damaged)["statusCode"] == 500
    (line,) = logs.log_lines("failed")
    assert "incomplete" in line["reason"]


@pytest.mark.parametrize("service", SENDERS)
def test_an_error_of_the_api_is_not_blamed_on_the_request(
    handle: Handle, logs: CapturedLogs, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aws_lambda_powertools.event_handler import APIGatewayRestResolver

    def fail(*_: object) -> None:
        raise KeyError("of the resolver")

    monkeypatch.setattr(APIGatewayRestResolver, "resolve", fail)
    response = handle(SENDERS[service]("GET", "/v1/health", None, {}))
    assert response["statusCode"] == 500
    (line,) = logs.log_lines("failed")
    assert "incomplete" not in line.get("reason", "") + answer_of(response)["detail"]


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("model", None, 200),
        ("model", ["1"], 404),
        ("top_k", None, 400),
        ("top_k", 1, 200),
        ("top_k", [1], 400),
        ("heatmap", True, 200),
        ("heatmap", 1, 400),
        ("heatmap_label", None, 200),
    ],
)
def test_a_value_in_a_query_that_is_no_text_is_no_internal_error(
    handle: Handle, name: str, value: Any, status: int
) -> None:
    response = handle(classify_bytes(PHOTO) | {"queryStringParameters": {name: value}})
    assert response["statusCode"] == status, response["body"]


@pytest.mark.parametrize("field", ["queryStringParameters", "multiValueQueryStringParameters"])
def test_a_load_balancer_may_send_an_option_without_a_value(handle: Handle, field: str) -> None:
    sent = load_balancer("POST", "/v1/classify", PHOTO, {"content-type": "image/jpeg"})
    del sent["queryStringParameters"]
    response = handle(sent | {field: {"model": [None] if field.startswith("multi") else None}})
    assert response["statusCode"] == 200, response["body"]


@pytest.mark.parametrize("context", [{"requestId": None}, {"requestId": 7}, {"requestId": ["a"]}, {}])
def test_a_request_id_that_is_no_text_is_replaced(handle: Handle, context: dict[str, Any]) -> None:
    made = classify_bytes(PHOTO)
    made["requestContext"] = {
        name: value for name, value in made["requestContext"].items() if name != "requestId"
    } | context
    response = handle(made)
    assert response["statusCode"] == 200
    assert response["multiValueHeaders"]["X-Request-Id"] == [LambdaContext.aws_request_id]


def test_a_request_of_a_function_url_without_an_id_gets_that_of_lambda(handle: Handle) -> None:
    made = function_url("GET", "/v1/health", None, {})
    del made["requestContext"]["requestId"]
    response = handle(made)
    assert response["statusCode"] == 200
    assert response["headers"]["X-Request-Id"] == LambdaContext.aws_request_id


BAD_IDS = ["a\r\nX-Injected: 1", "a\nb", "\ud800", "ü", "", "x" * 5000, "a b", "\x00"]


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("request_", [recorded_event("health"), classify_bytes(b"hello"), event("GET", "/nothing")])
def test_a_request_id_that_no_header_can_carry_is_replaced(
    handle: Handle, logs: CapturedLogs, request_: dict[str, Any], bad: str
) -> None:
    made = request_ | {"requestContext": request_["requestContext"] | {"requestId": bad}}
    response = handle(made)
    assert response["statusCode"] != 500
    assert response["multiValueHeaders"]["X-Request-Id"] == [LambdaContext.aws_request_id]
    assert answer_of(response).get("request_id", LambdaContext.aws_request_id) == LambdaContext.aws_request_id
    assert {line["request_id"] for line in logs.lines()} == {LambdaContext.aws_request_id}


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.text() | st.from_regex(r"\A[!-~]{1,128}\Z"))
def test_any_request_id_gives_a_header_of_printable_ascii(handle: Handle, sent: str) -> None:
    made = event("GET", "/nothing")
    made["requestContext"]["requestId"] = sent
    response = handle(made)
    (answered,) = response["multiValueHeaders"]["X-Request-Id"]
    assert answered.isascii()
    assert answered.isprintable()
    assert answered == answer_of(response)["request_id"]
