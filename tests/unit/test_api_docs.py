"""The page with the API's documentation, as a browser loads it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from support import answer_of, content_type_of, event

Handle = Callable[[dict[str, Any]], dict[str, Any]]

DOCS_FILES = ("/docs/swagger-ui-bundle.min.js", "/docs/swagger-ui.min.css", "/docs/start.js")


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_page_needs_only_files_that_are_served(handle: Handle, path: str) -> None:
    page = handle(event("GET", path))
    assert content_type_of(page) == "text/html; charset=utf-8"
    needed = re.findall(r'(?:src|href)="(/.+?)"', page["body"])
    assert sorted(needed) == sorted(DOCS_FILES)
    for link in needed:
        file = handle(event("GET", link))
        assert file["statusCode"] == 200
        expected = "text/css" if link.endswith(".css") else "text/javascript"
        assert content_type_of(file) == f"{expected}; charset=utf-8"


def test_the_pages_content_security_policy_allows_only_what_it_needs(handle: Handle) -> None:
    page = handle(event("GET", "/docs"))
    policy = dict(
        part.strip().split(" ", 1) for part in page["multiValueHeaders"]["Content-Security-Policy"][0].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    # Swagger UI sets styles from its script, and its style sheet has icons as data URLs.
    assert policy["style-src"] == "'self' 'unsafe-inline'"
    assert policy["img-src"] == "'self' data:"
    assert re.findall(r"<script(?![^>]*\bsrc=)|\bon\w+=|javascript:", page["body"]) == []


def test_the_page_loads_nothing_from_other_hosts(handle: Handle) -> None:
    style = handle(event("GET", "/docs/swagger-ui.min.css"))["body"]
    assert all(url.startswith("data:") for url in re.findall(r"url\([\"']?(.{5})", style))
    assert "@import" not in style
    assert "//" not in handle(event("GET", "/docs/start.js"))["body"].replace("\\/", "")


def test_only_the_pages_own_files_are_served(handle: Handle) -> None:
    for name in ("docs.py", "..", "../docs.py", "start.js/x", "START.JS", "__init__.py", "%2e%2e"):
        assert handle(event("GET", f"/docs/{name}"))["statusCode"] == 404


@pytest.mark.parametrize(
    ("path", "request_path", "root"),
    [
        ("/openapi.json", "/live/openapi.json", "/live"),
        ("/openapi.json", "/openapi.json", "/"),
        ("/openapi.json/", "/live/openapi.json/", "/live"),
        ("/openapi.json", None, "/"),
    ],
)
def test_the_openapi_document_has_the_root_url_of_the_request(
    handle: Handle, path: str, request_path: str | None, root: str
) -> None:
    request = event("GET", path)
    request["requestContext"]["path"] = request_path
    assert answer_of(handle(request))["servers"] == [{"url": root}]
