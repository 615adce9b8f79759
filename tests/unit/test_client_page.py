"""The page of `litelens serve`: the files of web/ with the headers that CloudFront adds."""

import asyncio
import gzip
import os
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp
from support import ROOT
from template import page_headers

from litelens_client.page import IMMUTABLE, PAGE_HEADERS, PAGE_TYPES, REVALIDATED, main, read_page
from litelens_client.serve import MIN_COMPRESSED_BYTES, create_app

WEB = ROOT / "web"

INDEX = """<!doctype html>
<link rel="stylesheet" href="style.css" />
<script type="module" src="main.js"></script>
<a href="https://example.com/"></a><a href="#main"></a>
"""
FILES = {"main.js": "main", "style.css": "", "views/card.js": "card", "worker.js": "worker"}


def no_handler(*_: object) -> dict[str, Any]:
    raise AssertionError("the handler must not be called")


def get(path: str, app: ASGIApp | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a path, by default from an application that requires a key."""
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
    asyncio.run((app or create_app(no_handler, "a-key"))(scope, receive, send))
    start, *contents = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(content["body"] for content in contents)


class Page:
    """A page in a folder, and a server for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.restart()

    def restart(self) -> None:
        self._app = create_app(no_handler, "a-key")

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return get(path, self._app, **headers)

    @property
    def version(self) -> str:
        """The version that the index names; the index is requested anew."""
        (version,) = set(re.findall(r"v-[0-9a-f]{12}", self.get("/")[2].decode())) or {read_page(self.folder).version}
        return version


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """Return another page."""
    folder = tmp_path / "page"
    (folder / "views").mkdir(parents=True)
    for name, content in {"index.html": INDEX, **FILES}.items():
        (folder / name).write_text(content)
    monkeypatch.setattr("litelens_client.serve.page_folder", lambda: folder)
    return Page(folder)


def test_the_page_is_at_the_root_and_requires_no_key() -> None:
    status, headers, body = get("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert headers["cache-control"] == REVALIDATED
    assert body == get("/index.html")[2] == read_page(WEB).index


def test_the_index_names_files_of_its_version_which_browsers_keep(page: Page) -> None:
    status, headers, body = page.get(f"/{page.version}/views/card.js")
    assert (status, headers["cache-control"], body) == (200, IMMUTABLE, b"card")
    index = page.get("/")[2].decode()
    assert index.count(page.version) == 2
    assert f'href="{page.version}/style.css"' in index
    assert f'src="{page.version}/main.js"' in index
    # Addresses of other hosts and places in the page stay.
    assert 'href="https://example.com/"' in index
    assert 'href="#main"' in index


def test_the_version_changes_with_any_file_and_its_name_and_returns_with_the_content(page: Page) -> None:
    versions = [page.version]
    for change in (
        lambda: (page.folder / "views" / "card.js").write_text("CARD"),
        lambda: (page.folder / "main.js").rename(page.folder / "start.js"),
        lambda: (page.folder / "worker.js").write_text("WORKER"),
        lambda: (page.folder / "index.html").write_text("<!doctype html>"),
    ):
        change()
        versions.append(page.version)
    assert len(set(versions)) == 5
    (page.folder / "index.html").write_text(INDEX)
    assert page.version == versions[-2]


def test_an_edit_is_in_the_next_version_and_never_at_the_addresses_of_the_one_before(page: Page) -> None:
    before = page.version
    (page.folder / "main.js").write_text("edited")
    # The page that is being loaded gets what its index named.
    assert page.get(f"/{before}/main.js")[2] == b"main"
    after = page.version
    _, headers, body = page.get(f"/{after}/main.js")
    assert (headers["cache-control"], body) == (IMMUTABLE, b"edited")
    # A page that is still open gets the only file there is, but not for a year.
    _, headers, body = page.get(f"/{before}/main.js")
    assert (headers["cache-control"], body) == (REVALIDATED, b"edited")


def test_a_restarted_server_knows_the_version_before_the_index_is_requested(page: Page) -> None:
    version = page.version
    page.restart()
    assert page.get(f"/{version}/main.js")[1]["cache-control"] == IMMUTABLE
    assert page.get("/v-0123456789ab/main.js")[1]["cache-control"] == REVALIDATED


def test_the_index_and_the_worker_are_revalidated_at_every_address(page: Page) -> None:
    for path in ("/", "/index.html", "/worker.js", f"/{page.version}/worker.js", f"/{page.version}/index.html"):
        assert page.get(path)[1]["cache-control"] == REVALIDATED


def test_hidden_and_unreadable_files_have_no_version(page: Page) -> None:
    version = page.version
    (page.folder / ".main.js.swp").write_text("edited")
    (page.folder / "dangling.js").symlink_to(page.folder / "nothing")
    assert page.version == version
    assert page.get(f"/{version}/.main.js.swp")[0] == page.get(f"/{version}/dangling.js")[0] == 403


def test_the_written_site_is_what_the_server_sends(page: Page, tmp_path: Path) -> None:
    site = tmp_path / "build" / "site"
    main([str(page.folder), str(site)])
    paths = [file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()]
    assert sorted(paths) == sorted(
        ["index.html", "worker.js", *(f"{page.version}/{name}" for name in ("main.js", "style.css", "views/card.js"))]
    )
    for path in paths:
        assert page.get(f"/{path}")[2] == (site / path).read_bytes()


@pytest.mark.parametrize("missing", ["index.html", "worker.js"])
def test_no_site_is_written_without_an_index_or_a_worker(page: Page, missing: str, tmp_path: Path) -> None:
    (page.folder / missing).unlink()
    with pytest.raises(SystemExit, match=missing):
        main([str(page.folder), str(tmp_path / "site")])
    assert not (tmp_path / "site").exists()


def test_a_folder_that_cannot_be_written_is_named(page: Page, tmp_path: Path) -> None:
    (tmp_path / "site").write_text("a file")
    with pytest.raises(SystemExit, match="site cannot be written"):
        main([str(page.folder), str(tmp_path / "site")])
    with pytest.raises(SystemExit, match="Name the folder"):
        main([])


@pytest.mark.parametrize("file", [file for file in WEB.rglob("*") if file.is_file()], ids=lambda file: file.name)
def test_every_file_of_the_page_is_served_unchanged(file: Path) -> None:
    path = file.relative_to(WEB).as_posix()
    for address in (f"/{path}", f"/{read_page(WEB).version}/{path}"):
        status, headers, body = get(address)
        assert (status, headers["content-length"]) == (200, str(len(body)))
        assert body == (read_page(WEB).index if address == "/index.html" else file.read_bytes())


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


def test_a_404_page_does_not_hide_the_api(page: Page) -> None:
    (page.folder / "404.html").write_text("gone")
    assert page.get("/v1/model")[0] == 403


def test_hidden_files_are_not_served(page: Page) -> None:
    (page.folder / ".secret").write_text("secret")
    assert page.get("/.secret")[0] == 403


def test_linked_files_and_folders_are_served(page: Page, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "start.js").write_text("1")
    (page.folder / "start.js").symlink_to(tmp_path / "linked" / "start.js")
    (page.folder / "linked").symlink_to(tmp_path / "linked")
    for version in ("", f"/{page.version}"):
        assert page.get(f"{version}/start.js")[2] == page.get(f"{version}/linked/start.js")[2] == b"1"


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


def test_a_change_shows_at_once_even_with_the_same_size_and_time(page: Page) -> None:
    file = page.folder / "main.js"
    changed_at = file.stat().st_mtime
    _, headers, before = page.get("/")
    file.write_text("MAIN")
    os.utime(file, (changed_at, changed_at))
    status, _, after = page.get("/", if_none_match=headers["etag"])
    assert status == 200
    assert before != after
    assert page.get(f"/{page.version}/main.js")[2] == b"MAIN"


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
