"""The page of `litelens serve`: the files of web/ with the headers that CloudFront adds."""

import asyncio
import gzip
import os
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from template import page_headers

from litelens_client.serve import MIN_COMPRESSED_BYTES, PAGE_HEADERS, PAGE_TYPES, create_app

WEB = ROOT / "web"


def no_handler(*_: object) -> dict[str, Any]:
    raise AssertionError("the handler must not be called")


def get(path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a path, from an application that requires a key."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "method": "GET",
        "path": path,
        "headers": named,
        "query_string": b"",
        "http_version": "1.1",
    }
    asyncio.run(create_app(no_handler, "a-key")(scope, receive, send))
    start, *contents = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(content["body"] for content in contents)


def test_the_page_is_at_the_root_and_requires_no_key() -> None:
    status, headers, body = get("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body == (WEB / "index.html").read_bytes()


@pytest.mark.parametrize("file", [file for file in WEB.rglob("*") if file.is_file()], ids=lambda file: file.name)
def test_every_file_of_the_page_is_served_unchanged(file: Path) -> None:
    status, headers, body = get(f"/{file.relative_to(WEB).as_posix()}")
    assert (status, body) == (200, file.read_bytes())
    assert headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/main.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
        ("/samples/cat.jpg", "image/jpeg"),
    ],
)
def test_content_types_are_those_that_browsers_require(path: str, content_type: str) -> None:
    assert get(path)[1]["content-type"] == content_type


def test_every_file_that_a_browser_runs_or_shows_has_a_type() -> None:
    # The compiler's declarations and licences are not for browsers.
    others = {".ts", ""}
    assert {file.suffix for file in WEB.rglob("*") if file.is_file()} - others == set(PAGE_TYPES)


OTHER_PATHS = (
    "/../README.md",
    "/views",
    "/views/",
    "/%2e%2e/README.md",
    "/nothing.js",
    "//",
    "//main.js",
    "/./main.js",
    "/main.js/",
    "/views/../main.js",
    "/..\\README.md",
    "/main.js\0",
    "/" + "a" * 5000,
)


@pytest.mark.parametrize("path", OTHER_PATHS, ids=lambda path: ascii(path)[:30])
def test_the_api_answers_all_other_paths(path: str) -> None:
    status, headers, _ = get(path)
    assert (status, headers["content-type"]) == (403, "application/problem+json")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of another page, which is empty."""
    folder = tmp_path / "page"
    folder.mkdir()
    monkeypatch.setattr("litelens_client.serve.page_folder", lambda: folder)
    return folder


def test_a_404_page_does_not_hide_the_api(page: Path) -> None:
    (page / "404.html").write_text("gone")
    assert get("/v1/model")[0] == 403


def test_hidden_files_are_not_served(page: Path) -> None:
    (page / ".secret").write_text("secret")
    assert get("/.secret")[0] == 403


def test_linked_files_and_folders_are_served(page: Path, tmp_path: Path) -> None:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "main.js").write_text("1")
    (page / "main.js").symlink_to(tmp_path / "views" / "main.js")
    (page / "views").symlink_to(tmp_path / "views")
    assert get("/main.js")[2] == get("/views/main.js")[2] == b"1"


@pytest.mark.parametrize("requested", ["bytes=0-1", "bytes=9-", "bytes=2-1", "lines=1-2", "bytes"])
def test_a_range_gets_the_whole_file(requested: str) -> None:
    status, headers, body = get("/main.js", range=requested)
    assert (status, body) == (200, (WEB / "main.js").read_bytes())
    assert headers.items() >= PAGE_HEADERS.items()


def test_text_is_compressed_if_the_client_accepts_gzip_and_photos_are_not() -> None:
    status, headers, body = get("/style.css", accept_encoding="br, gzip")
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(body) == (WEB / "style.css").read_bytes()
    assert "content-encoding" not in get("/style.css", accept_encoding="br")[1]
    assert "content-encoding" not in get("/samples/cat.jpg", accept_encoding="gzip")[1]


def test_short_files_are_not_compressed() -> None:
    assert (WEB / "favicon.svg").stat().st_size < MIN_COMPRESSED_BYTES
    assert "content-encoding" not in get("/favicon.svg", accept_encoding="gzip")[1]


def test_an_unchanged_file_is_not_sent_again() -> None:
    tag = get("/main.js")[1]["etag"]
    status, headers, body = get("/main.js", if_none_match=tag)
    assert (status, headers["cache-control"], body) == (304, "no-cache", b"")
    assert headers.items() >= PAGE_HEADERS.items()
    assert get("/main.js", if_none_match=f'"older", W/{tag}')[0] == get("/main.js", if_none_match="*")[0] == 304
    assert get("/main.js", if_none_match='"older"')[0] == 200


def test_a_change_shows_at_once_even_with_the_same_size_and_time(page: Path) -> None:
    file = page / "index.html"
    file.write_text("before")
    changed_at = file.stat().st_mtime
    _, headers, before = get("/")
    file.write_text("after!")
    os.utime(file, (changed_at, changed_at))
    status, _, after = get("/", if_none_match=headers["etag"])
    assert (status, before, after) == (200, b"before", b"after!")


def test_the_security_headers_are_those_of_cloudfront() -> None:
    deployed, local = page_headers(), dict(PAGE_HEADERS)
    # This machine serves no TLS, and the page here may use any API and AWS.
    del deployed["strict-transport-security"]
    # Only the page here takes photos with the webcam.
    assert local["permissions-policy"] == deployed["permissions-policy"].replace("camera=()", "camera=(self)")
    deployed["permissions-policy"] = local["permissions-policy"]
    assert without_connections(deployed) == without_connections(local)
    assert get("/")[1].items() >= local.items()


def without_connections(headers: dict[str, str]) -> dict[str, Any]:
    directives = headers["content-security-policy"].split("; ")
    kept = [directive for directive in directives if not directive.startswith("connect-src ")]
    assert len(kept) == len(directives) - 1
    return {**headers, "content-security-policy": kept}
