"""Every event gets a response: any request from API Gateway, and events that are not from API Gateway."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import answer_of, event
from test_request_forms import FORM_TYPE, form

from litelens.core.formats import MEDIA_TYPES

Handle = Callable[[dict[str, Any]], dict[str, Any]]

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH")
PATHS = ("/v1/model", "/v1/models", "/v1/results/x", "/openapi.json", "/docs/start.js", "/v1/classify/")
ROUTES = (("POST", "/v1/classify"), ("POST", "/v1/describe"), ("POST", "/v1/uploads"), ("GET", "/v1/model"))
TYPES = (*MEDIA_TYPES, "application/json", FORM_TYPE, "multipart/form-data", "multipart/form-data; boundary=x")
NAMES = ("Content-Type", "If-None-Match", "Origin", "Accept-Encoding", "content-type")
OPTIONS = ("model", "top_k", "threshold", "heatmap", "heatmap_label", "question")
JSON_NAMES = ("image", "images", "s3", "s3_uri", "bucket", "key", "content_type", "turns", *OPTIONS)
VALUES = (
    st.sampled_from(["true", "false", "1", "0.5", "everyday", "rocket", "image/png", "s3://photos/cat.jpg", "aGVsbG8="])
    | WORDS
)

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(JSON_NAMES) | WORDS, inner, max_size=4),
    max_leaves=8,
)
forms = st.lists(
    st.tuples(st.sampled_from(["image", *OPTIONS]) | WORDS, VALUES | st.binary(max_size=60)), max_size=4
).map(lambda parts: form(*parts))
bodies = (
    st.none() | WORDS | st.binary(max_size=100) | forms | forms.map(lambda body: body[:-9]) | documents.map(json.dumps)
)

contents = st.one_of(
    st.tuples(st.just("application/json"), documents.map(json.dumps)),
    st.tuples(st.just(FORM_TYPE), forms),
    st.tuples(st.sampled_from(MEDIA_TYPES), st.binary(max_size=100)),
)


@st.composite
def gateway_events(draw: st.DrawFn) -> dict[str, Any]:
    """Draw an event as API Gateway makes it, for any request; optional parts are sometimes null or missing."""
    method, path = draw(st.sampled_from(ROUTES) | st.tuples(st.sampled_from(METHODS), st.sampled_from(PATHS) | WORDS))
    content_type, body = draw(contents | st.tuples(st.none() | st.sampled_from(TYPES) | WORDS, bodies))
    made = event(method, path, body, content_type)
    headers = draw(st.dictionaries(st.sampled_from(NAMES) | WORDS, VALUES, max_size=2))
    query = draw(st.none() | st.dictionaries(st.sampled_from(OPTIONS) | WORDS, VALUES, max_size=3))
    made["headers"] |= headers
    made["multiValueHeaders"] |= {name: [value] for name, value in headers.items()}
    made["queryStringParameters"] = query
    made["multiValueQueryStringParameters"] = query and {name: [value] for name, value in query.items()}
    made["isBase64Encoded"] ^= draw(st.integers(0, 9)) == 9
    nullable = ("headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters", "body")
    for name in draw(st.lists(st.sampled_from([*nullable, "pathParameters", "stageVariables"]), max_size=2)):
        made[name] = None
    for name in draw(st.lists(st.sampled_from([*nullable, "isBase64Encoded", "resource"]), max_size=1)):
        del made[name]
    return made


def assert_is_response(response: dict[str, Any]) -> None:
    assert set(response) == {"statusCode", "multiValueHeaders", "body", "isBase64Encoded"}
    assert isinstance(response["body"], str)
    json.dumps(response)
    if response["statusCode"] >= 400:
        assert answer_of(response)["status"] == response["statusCode"]


@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=gateway_events())
def test_no_request_causes_an_internal_error(handle: Handle, request: dict[str, Any]) -> None:
    response = handle(request)
    assert_is_response(response)
    assert 200 <= response["statusCode"] < 500 or response["statusCode"] == 501, response["body"]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=documents, path=st.sampled_from(["/v1/classify", "/v1/describe", "/v1/uploads"]))
def test_no_json_body_causes_an_internal_error(handle: Handle, document: Any, path: str) -> None:
    response = handle(event("POST", path, json.dumps(document), "application/json"))
    assert_is_response(response)
    assert 400 <= response["statusCode"] < 500 or response["statusCode"] == 501, response["body"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("httpMethod", "path", "headers", "requestContext", "body", "isBase64Encoded", "queryStringParameters")


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything | st.dictionaries(st.sampled_from(KEYS), anything))
def test_any_event_gets_a_response(handle: Handle, malformed: Any) -> None:
    assert_is_response(handle(malformed))


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=gateway_events(), name=st.sampled_from(KEYS), value=anything)
def test_a_damaged_event_gets_a_response(handle: Handle, request: dict[str, Any], name: str, value: Any) -> None:
    assert_is_response(handle(request | {name: value}))
