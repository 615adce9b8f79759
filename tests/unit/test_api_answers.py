"""Properties of every response: headers, caching, CORS, and refused methods and paths."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import DEFAULT_BUNDLE, ROCKET, LambdaContext, answer_of, classify_bytes, content_type_of, event
from test_api_docs import DOCS_FILES

from litelens.api.handler import create_handler
from litelens.api.openapi import OPERATIONS
from litelens.core.bundle import load_bundle
from litelens.core.images import Limits
from litelens.settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

ORIGIN = "https://photos.example.com"
MODEL = "{0.name}/{0.version}".format(load_bundle(DEFAULT_BUNDLE))
PHOTO = ROCKET.read_bytes()
DOCUMENTS = ("/openapi.json", "/docs", *DOCS_FILES)
ROUTES = [
    *((operation.method, operation.path.replace("{id}", "any-id")) for operation in OPERATIONS),
    *(("GET", path) for path in DOCUMENTS),
]
# The documents of a bundle can change at any time, the others only with a deployment.
CACHED = {
    **{operation.path: "private, no-cache" for operation in OPERATIONS if operation.is_cached},
    **dict.fromkeys(DOCUMENTS, "private, max-age=3600"),
}
REFUSED_METHODS = [
    (method, path, allowed)
    for allowed, path in ROUTES
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    if method != allowed
]
# One request of each kind, with the expected status: answers, a page, and refusals by handler, router and decoder.
SAMPLES = {
    "an answer": (event("GET", "/v1/health"), 200),
    "a prediction": (classify_bytes(PHOTO), 200),
    "a document": (event("GET", "/v1/model"), 200),
    "a page": (event("GET", "/docs"), 200),
    "a refused body": (classify_bytes(b"hello"), 415),
    "a refused option": (classify_bytes(PHOTO, top_k="x"), 400),
    "an unknown path": (event("GET", "/v1/nothing"), 404),
    "an unknown file": (event("GET", "/docs/secret.js"), 404),
    "a method that is not allowed": (event("DELETE", "/v1/model"), 405),
    "a feature that is not configured": (event("GET", "/v1/results/x"), 501),
}


def headers_of(response: dict[str, Any]) -> dict[str, str]:
    """Return the headers with names in lower case; each must have one value."""
    headers = {name.lower(): values for name, values in response["multiValueHeaders"].items()}
    assert all(len(values) == 1 for values in headers.values())
    assert len(headers) == len(response["multiValueHeaders"])
    return {name: value for name, (value,) in headers.items()}


def with_headers(request: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Return the request with these headers added; an underscore stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    several = {name: [value] for name, value in named.items()}
    return {
        **request,
        "headers": request["headers"] | named,
        "multiValueHeaders": request["multiValueHeaders"] | several,
    }


@pytest.fixture(scope="module")
def handle_with_cors() -> Handle:
    """A handler that the pages of one other site may call."""
    handler = create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1, cors_origin=ORIGIN))
    return lambda event: handler(event, LambdaContext())


@pytest.fixture
def handle_without_report(tmp_path: Path) -> Handle:
    """A handler whose bundle has neither a report nor metrics."""
    for name in ("manifest.json", "model.tflite", "head.npz"):
        shutil.copy(DEFAULT_BUNDLE / name, tmp_path)
    handler = create_handler(Settings(tmp_path, Limits(), threads=1))
    return lambda event: handler(event, LambdaContext())


@pytest.mark.parametrize("name", SAMPLES)
def test_every_response_has_the_common_headers(handle: Handle, name: str) -> None:
    request, status = SAMPLES[name]
    response = handle(request)
    assert response["statusCode"] == status
    headers = headers_of(response)
    assert headers["x-request-id"] == request["requestContext"]["requestId"]
    assert headers["litelens-model"] == MODEL
    assert headers["x-content-type-options"] == "nosniff"
    expected = CACHED.get(request["path"], "no-store") if status == 200 else "no-store"
    assert headers["cache-control"] == expected


@pytest.mark.parametrize("malformed", [{}, {"httpMethod": "GET"}, {"path": "/v1/health"}, [], None, "text", 7])
def test_the_response_to_a_malformed_event_has_the_common_headers(handle: Handle, malformed: Any) -> None:
    response = handle(malformed)
    headers = headers_of(response)
    assert response["statusCode"] == 500
    assert content_type_of(response) == "application/problem+json"
    assert headers["x-request-id"] == answer_of(response)["request_id"] == LambdaContext.aws_request_id
    assert headers["litelens-model"] == MODEL
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


class TestCaching:
    @pytest.mark.parametrize("path", CACHED)
    def test_a_matching_etag_gets_an_empty_304(self, handle: Handle, path: str) -> None:
        first = handle(event("GET", path))
        tag = headers_of(first)["etag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
        for known in (tag, f"W/{tag}", f'"older", {tag}', f'W/"older",W/{tag}', "*"):
            again = handle(with_headers(event("GET", path), If_None_Match=known))
            assert (again["statusCode"], again["body"]) == (304, "")
            assert headers_of(again)["etag"] == tag
            assert headers_of(again)["cache-control"] == CACHED[path]
            assert "content-type" not in headers_of(again)

    @pytest.mark.parametrize("path", CACHED)
    @pytest.mark.parametrize("known", ['"older"', "", 'W/"0"', "**"])
    def test_another_etag_gets_the_document(self, handle: Handle, path: str, known: str) -> None:
        response = handle(with_headers(event("GET", path), If_None_Match=known))
        assert response["statusCode"] == 200
        assert response["body"]

    def test_an_etag_without_quotes_does_not_match(self, handle: Handle) -> None:
        tag = headers_of(handle(event("GET", "/v1/model")))["etag"].strip('"')
        assert handle(with_headers(event("GET", "/v1/model"), If_None_Match=tag))["statusCode"] == 200

    def test_different_documents_have_different_etags(self, handle: Handle) -> None:
        tags = {headers_of(handle(event("GET", path)))["etag"] for path in CACHED}
        assert len(tags) == len(CACHED)


class TestReport:
    def test_a_bundle_without_a_report_has_no_link_to_one(self, handle_without_report: Handle) -> None:
        answer = answer_of(handle_without_report(event("GET", "/v1/model")))
        assert list(answer) == ["manifest", "links", "limits"]
        assert answer["links"] == {}

    def test_the_report_of_a_bundle_without_one_is_not_found(self, handle_without_report: Handle) -> None:
        response = handle_without_report(event("GET", "/v1/model/report"))
        assert (response["statusCode"], answer_of(response)["code"]) == (404, "not_found")
        assert headers_of(response)["cache-control"] == "no-store"
        assert "etag" not in headers_of(response)


class TestCors:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_there_are_no_cors_headers_by_default(self, handle: Handle, name: str) -> None:
        response = handle(with_headers(SAMPLES[name][0], Origin=ORIGIN))
        assert [header for header in headers_of(response) if header.startswith("access-control")] == []

    def test_preflight_requests_are_refused_by_default(self, handle: Handle) -> None:
        request = with_headers(event("OPTIONS", "/v1/classify"), Origin=ORIGIN, Access_Control_Request_Method="POST")
        response = handle(request)
        assert response["statusCode"] == 405
        assert [header for header in headers_of(response) if header.startswith("access-control")] == []

    @pytest.mark.parametrize("name", SAMPLES)
    def test_the_allowed_origin_may_read_every_response(self, handle_with_cors: Handle, name: str) -> None:
        request, status = SAMPLES[name]
        response = handle_with_cors(with_headers(request, Origin=ORIGIN))
        headers = headers_of(response)
        assert response["statusCode"] == status
        assert headers["access-control-allow-origin"] == ORIGIN
        exposed = headers["access-control-expose-headers"].split(",")
        assert exposed == ["x-request-id", "litelens-model", "etag", "retry-after"]
        assert "access-control-allow-credentials" not in headers

    def test_preflight_requests_of_the_allowed_origin_are_answered(self, handle_with_cors: Handle) -> None:
        for method, path in ROUTES:
            request = with_headers(event("OPTIONS", path), Origin=ORIGIN, Access_Control_Request_Method=method)
            response = handle_with_cors(request)
            headers = headers_of(response)
            assert (response["statusCode"], response["body"]) == (204, "")
            assert headers["access-control-allow-origin"] == ORIGIN
            assert method in headers["access-control-allow-methods"].split(",")
            allowed = headers["access-control-allow-headers"].lower().split(",")
            assert {"content-type", "x-api-key", "if-none-match"} <= set(allowed)
            assert headers["access-control-max-age"] == "3600"

    @pytest.mark.parametrize("name", SAMPLES)
    @pytest.mark.parametrize(
        "origin", ["https://example.com", f"{ORIGIN}.evil.com", "null", "http://photos.example.com"]
    )
    def test_other_origins_get_no_cors_headers(self, handle_with_cors: Handle, name: str, origin: str) -> None:
        headers = headers_of(handle_with_cors(with_headers(SAMPLES[name][0], Origin=origin)))
        assert [header for header in headers if header.startswith("access-control")] == []

    def test_preflight_requests_of_other_origins_get_no_permission(self, handle_with_cors: Handle) -> None:
        headers = headers_of(
            handle_with_cors(with_headers(event("OPTIONS", "/v1/classify"), Origin="https://evil.com"))
        )
        assert "access-control-allow-origin" not in headers


class TestRoutes:
    @pytest.mark.parametrize(("method", "path", "allowed"), REFUSED_METHODS)
    def test_a_wrong_method_gets_405_with_the_allowed_one(
        self, handle: Handle, method: str, path: str, allowed: str
    ) -> None:
        response = handle(event(method, path))
        assert (response["statusCode"], answer_of(response)["code"]) == (405, "method_not_allowed")
        assert headers_of(response)["allow"] == allowed

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_a_trailing_slash_changes_nothing(self, handle: Handle, method: str, path: str) -> None:
        with_slash, without = (handle(event(method, path + end))["statusCode"] for end in ("/", ""))
        assert with_slash == without
        assert without not in (404, 405)

    @pytest.mark.parametrize(
        "path",
        ["", "/", "//", "/v1", "/v1/", "/v2/classify", "/V1/health", "/v1//health", "/../v1/health", "/openapi", "/é"],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
    def test_an_unknown_path_is_not_found(self, handle: Handle, method: str, path: str) -> None:
        assert_not_found(handle(event(method, path)))

    @pytest.mark.parametrize(
        "path",
        ["/v1/results", "/v1/results/a/b", '/v1/results/"', "/v1/results/#", '/docs/"', "/docs/a/b", "/v1/health/x"],
    )
    def test_a_similar_path_is_not_found_rather_than_not_allowed(self, handle: Handle, path: str) -> None:
        assert_not_found(handle(event("GET", path)))


def assert_not_found(response: dict[str, Any]) -> None:
    assert (response["statusCode"], answer_of(response)["code"]) == (404, "not_found")
    assert "allow" not in headers_of(response)
