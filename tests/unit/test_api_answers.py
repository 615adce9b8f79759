"""What every answer carries, whatever was asked: headers, caching, what other sites may read, refused methods."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import DEFAULT_BUNDLE, ROCKET, LambdaContext, answer_of, classify_bytes, content_type_of, event
from test_api_docs import DOCS_FILES

from handlers.api import create_handler
from handlers.openapi import OPERATIONS
from litelens.bundle import load_bundle
from litelens.images import Limits
from settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

ORIGIN = "https://photos.example.com"
MODEL = "{0.name}/{0.version}".format(load_bundle(DEFAULT_BUNDLE))
PHOTO = ROCKET.read_bytes()
DOCUMENTS = ("/openapi.json", "/docs", *DOCS_FILES)
ROUTES = [
    *((operation.method, operation.path.replace("{id}", "any-id")) for operation in OPERATIONS),
    *(("GET", path) for path in DOCUMENTS),
]
CACHED = [*(operation.path for operation in OPERATIONS if operation.is_cached), *DOCUMENTS]
OTHERS = [
    (method, path, allowed)
    for allowed, path in ROUTES
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    if method != allowed
]
# One of each: an answer, refusals by the handler, by the router and by the decoder, and a page.
SOME = {
    "an answer": (event("GET", "/v1/health"), 200),
    "a prediction": (classify_bytes(PHOTO), 200),
    "a document": (event("GET", "/v1/model"), 200),
    "a page": (event("GET", "/docs"), 200),
    "a refused body": (classify_bytes(b"hello"), 415),
    "a refused option": (classify_bytes(PHOTO, top_k="x"), 400),
    "another path": (event("GET", "/v1/nothing"), 404),
    "another file": (event("GET", "/docs/secret.js"), 404),
    "another method": (event("DELETE", "/v1/model"), 405),
    "what is not configured": (event("GET", "/v1/results/x"), 501),
}


def headers_of(response: dict[str, Any]) -> dict[str, str]:
    """Every header, its name in lower case; each has one value."""
    headers = {name.lower(): values for name, values in response["multiValueHeaders"].items()}
    assert all(len(values) == 1 for values in headers.values())
    assert len(headers) == len(response["multiValueHeaders"])
    return {name: value for name, (value,) in headers.items()}


def sent_with(request: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The request with these headers; an underscore stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    several = {name: [value] for name, value in named.items()}
    return {
        **request,
        "headers": request["headers"] | named,
        "multiValueHeaders": request["multiValueHeaders"] | several,
    }


@pytest.fixture(scope="module")
def open_to_a_site() -> Handle:
    """A handler that the pages of one other site may call."""
    handler = create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1, cors_origin=ORIGIN))
    return lambda event: handler(event, LambdaContext())


@pytest.fixture
def without_report(tmp_path: Path) -> Handle:
    """A handler whose bundle has neither a report nor metrics."""
    for name in ("manifest.json", "model.tflite"):
        shutil.copy(DEFAULT_BUNDLE / name, tmp_path)
    handler = create_handler(Settings(tmp_path, Limits(), threads=1))
    return lambda event: handler(event, LambdaContext())


@pytest.mark.parametrize("name", SOME)
def test_every_answer_names_its_request_and_its_model(handle: Handle, name: str) -> None:
    request, status = SOME[name]
    response = handle(request)
    assert response["statusCode"] == status
    headers = headers_of(response)
    assert headers["x-request-id"] == request["requestContext"]["requestId"]
    assert headers["litelens-model"] == MODEL
    assert headers["x-content-type-options"] == "nosniff"
    is_cached = request["path"] in CACHED and status == 200
    assert headers["cache-control"] == ("private, max-age=3600" if is_cached else "no-store")


@pytest.mark.parametrize("strange", [{}, {"httpMethod": "GET"}, {"path": "/v1/health"}, [], None, "text", 7])
def test_an_event_that_is_not_api_gateways_gets_the_same_headers(handle: Handle, strange: Any) -> None:
    response = handle(strange)
    headers = headers_of(response)
    assert response["statusCode"] == 500
    assert content_type_of(response) == "application/problem+json"
    assert headers["x-request-id"] == answer_of(response)["request_id"] == LambdaContext.aws_request_id
    assert headers["litelens-model"] == MODEL
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


class TestCaching:
    @pytest.mark.parametrize("path", CACHED)
    def test_what_a_client_has_is_not_sent_again(self, handle: Handle, path: str) -> None:
        first = handle(event("GET", path))
        tag = headers_of(first)["etag"]
        assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
        for known in (tag, f"W/{tag}", f'"older", {tag}', f'W/"older",W/{tag}', "*"):
            again = handle(sent_with(event("GET", path), If_None_Match=known))
            assert (again["statusCode"], again["body"]) == (304, "")
            assert headers_of(again)["etag"] == tag
            assert headers_of(again)["cache-control"] == "private, max-age=3600"
            assert "content-type" not in headers_of(again)

    @pytest.mark.parametrize("path", CACHED)
    @pytest.mark.parametrize("known", ['"older"', "", 'W/"0"', "**"])
    def test_what_has_changed_is_sent(self, handle: Handle, path: str, known: str) -> None:
        response = handle(sent_with(event("GET", path), If_None_Match=known))
        assert response["statusCode"] == 200
        assert response["body"]

    def test_a_tag_without_its_quotes_is_another(self, handle: Handle) -> None:
        tag = headers_of(handle(event("GET", "/v1/model")))["etag"].strip('"')
        assert handle(sent_with(event("GET", "/v1/model"), If_None_Match=tag))["statusCode"] == 200

    def test_different_documents_have_different_tags(self, handle: Handle) -> None:
        tags = {headers_of(handle(event("GET", path)))["etag"] for path in CACHED}
        assert len(tags) == len(CACHED)


class TestReport:
    def test_a_bundle_without_one_has_no_link_to_it(self, without_report: Handle) -> None:
        answer = answer_of(without_report(event("GET", "/v1/model")))
        assert list(answer) == ["manifest", "links", "limits"]
        assert answer["links"] == {}

    def test_a_bundle_without_one_answers_that_there_is_none(self, without_report: Handle) -> None:
        response = without_report(event("GET", "/v1/model/report"))
        assert (response["statusCode"], answer_of(response)["code"]) == (404, "not_found")
        assert headers_of(response)["cache-control"] == "no-store"
        assert "etag" not in headers_of(response)


class TestOtherSites:
    @pytest.mark.parametrize("name", SOME)
    def test_none_may_call_by_default(self, handle: Handle, name: str) -> None:
        response = handle(sent_with(SOME[name][0], Origin=ORIGIN))
        assert [header for header in headers_of(response) if header.startswith("access-control")] == []

    def test_none_is_told_in_advance_by_default(self, handle: Handle) -> None:
        request = sent_with(event("OPTIONS", "/v1/classify"), Origin=ORIGIN, Access_Control_Request_Method="POST")
        response = handle(request)
        assert response["statusCode"] == 405
        assert [header for header in headers_of(response) if header.startswith("access-control")] == []

    @pytest.mark.parametrize("name", SOME)
    def test_one_that_may_call_reads_every_answer(self, open_to_a_site: Handle, name: str) -> None:
        request, status = SOME[name]
        response = open_to_a_site(sent_with(request, Origin=ORIGIN))
        headers = headers_of(response)
        assert response["statusCode"] == status
        assert headers["access-control-allow-origin"] == ORIGIN
        exposed = headers["access-control-expose-headers"].split(",")
        assert exposed == ["x-request-id", "litelens-model", "etag", "retry-after"]
        assert "access-control-allow-credentials" not in headers

    def test_one_that_may_call_is_told_in_advance(self, open_to_a_site: Handle) -> None:
        for method, path in ROUTES:
            request = sent_with(event("OPTIONS", path), Origin=ORIGIN, Access_Control_Request_Method=method)
            response = open_to_a_site(request)
            headers = headers_of(response)
            assert (response["statusCode"], response["body"]) == (204, "")
            assert headers["access-control-allow-origin"] == ORIGIN
            assert method in headers["access-control-allow-methods"].split(",")
            allowed = headers["access-control-allow-headers"].lower().split(",")
            assert {"content-type", "x-api-key", "if-none-match"} <= set(allowed)
            assert headers["access-control-max-age"] == "3600"

    @pytest.mark.parametrize("name", SOME)
    @pytest.mark.parametrize(
        "origin", ["https://example.com", f"{ORIGIN}.evil.com", "null", "http://photos.example.com"]
    )
    def test_others_may_not(self, open_to_a_site: Handle, name: str, origin: str) -> None:
        headers = headers_of(open_to_a_site(sent_with(SOME[name][0], Origin=origin)))
        assert [header for header in headers if header.startswith("access-control")] == []

    def test_others_are_not_told_in_advance(self, open_to_a_site: Handle) -> None:
        headers = headers_of(open_to_a_site(sent_with(event("OPTIONS", "/v1/classify"), Origin="https://evil.com")))
        assert "access-control-allow-origin" not in headers


class TestRoutes:
    @pytest.mark.parametrize(("method", "path", "allowed"), OTHERS)
    def test_another_method_is_told_the_right_one(self, handle: Handle, method: str, path: str, allowed: str) -> None:
        response = handle(event(method, path))
        assert (response["statusCode"], answer_of(response)["code"]) == (405, "method_not_allowed")
        assert headers_of(response)["allow"] == allowed
        assert answer_of(response)["detail"] == f"This path takes {allowed} only."

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_a_slash_at_the_end_changes_nothing(self, handle: Handle, method: str, path: str) -> None:
        with_slash, without = (handle(event(method, path + end))["statusCode"] for end in ("/", ""))
        assert with_slash == without
        assert without not in (404, 405)

    @pytest.mark.parametrize(
        "path",
        ["", "/", "//", "/v1", "/v1/", "/v2/classify", "/V1/health", "/v1//health", "/../v1/health", "/openapi", "/é"],
    )
    @pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
    def test_there_is_nothing_at_other_paths(self, handle: Handle, method: str, path: str) -> None:
        assert_nothing_at(handle(event(method, path)))

    @pytest.mark.parametrize(
        "path",
        ["/v1/results", "/v1/results/a/b", '/v1/results/"', "/v1/results/#", '/docs/"', "/docs/a/b", "/v1/health/x"],
    )
    def test_the_right_method_is_not_refused_at_a_path_that_is_almost_right(self, handle: Handle, path: str) -> None:
        assert_nothing_at(handle(event("GET", path)))


def assert_nothing_at(response: dict[str, Any]) -> None:
    assert (response["statusCode"], answer_of(response)["code"]) == (404, "not_found")
    assert "allow" not in headers_of(response)
