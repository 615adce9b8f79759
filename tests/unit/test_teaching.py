"""The routes of `litelens serve` below /v1/draft, through its ASGI application."""

import asyncio
import contextlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from class_folders import BASE, one_thread, photo
from starlette.types import ASGIApp
from support import ROOT, LambdaContext, answer_of, encoded, event

from litelens.core.bundle import load_bundle
from litelens_client import serve, teaching
from litelens_client.learning import draft as draft_module
from litelens_client.learning import embeddings, learned_bundle, regression
from litelens_client.serve import METHODS, create_app
from litelens_client.teaching import DraftInUse, DraftMissing, DraftNameTaken, DraftRefused

Handle = Callable[[dict[str, Any]], dict[str, Any]]

HOST = "127.0.0.1:8080"
KEY = "key-of-the-tests"
UNKNOWN_ID = "0" * 32
CLASS = "/classes/cat"

LEARN_PAGE = (ROOT / "docs" / "learn.md").read_text()
# The methods of each path in the documentation's table.
DOCUMENTED: dict[str, set[str]] = {}
for methods, path in re.findall(r"^\| `((?:[A-Z]+`, `)*[A-Z]+) (/v1/draft\S*)` \|", LEARN_PAGE, re.MULTILINE):
    DOCUMENTED.setdefault(path, set()).update(methods.split("`, `"))


@dataclass(frozen=True)
class Answer:
    """A response of the application."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> tuple[int, str]:
        assert self.headers["content-type"] == "application/problem+json"
        assert self.json["request_id"] == self.headers["x-request-id"]
        return self.status, self.json["code"]


class Server:
    """The application with a draft; sends requests as pages of the server do."""

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self._app = app
        self.models = folder
        self.chunks_left = 0

    def send(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send a request to a path below that of the draft."""
        return self.send_chunks(method, path, [body], headers)

    def send_chunks(
        self, method: str, path: str, chunks: Sequence[bytes], headers: dict[str, str] | None = None
    ) -> Answer:
        given = {"host": HOST} | (headers or {})
        scope = {
            "type": "http",
            "method": method,
            # As uvicorn decodes it.
            "path": unquote(f"/v1/draft{path}"),
            "query_string": b"",
            "headers": [(name.encode(), text.encode()) for name, text in given.items()],
            "http_version": "1.1",
            "client": ("127.0.0.1", 5),
        }
        return asyncio.run(self._exchange(scope, iter(chunks), len(chunks)))

    async def _exchange(self, scope: dict[str, Any], chunks: Iterator[bytes], count: int) -> Answer:
        self.chunks_left, sent = count, []

        async def receive() -> dict[str, Any]:
            for chunk in chunks:
                self.chunks_left -= 1
                return {"type": "http.request", "body": chunk, "more_body": self.chunks_left > 0}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start, *bodies = sent
        headers = {name.decode(): text.decode() for name, text in start["headers"]}
        return Answer(start["status"], headers, b"".join(each.get("body", b"") for each in bodies))

    def classes(self) -> dict[str, list[str]]:
        """Return the ids of the photos of each class."""
        return {each["name"]: each["photos"] for each in self.send("GET", "").json["classes"]}


def no_handler(*_: object) -> dict[str, Any]:
    raise AssertionError("the handler must not be called")


def png(label: str, number: int) -> bytes:
    return encoded(photo(label, number), "PNG", compress_level=1)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Learn with a fast base and without golden images, and keep the embeddings of these tests only."""
    monkeypatch.setattr(serve, "bundle_folder", lambda model: BASE)
    monkeypatch.setattr(regression, "REGULARIZATIONS", (1e-2,))
    monkeypatch.setattr(learned_bundle, "add_golden_images", lambda folder: [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server with an empty draft, and without a key."""
    return server_with(tmp_path / "models")


@pytest.fixture
def pets(server: Server) -> Server:
    """A server whose draft has two classes of two photos."""
    for label in ("cat", "coffee"):
        server.send("PUT", f"/classes/{label}")
        for number in range(2):
            server.send("POST", f"/classes/{label}/photos", png(label, number))
    return server


def server_with(models: Path, **options: Any) -> Server:
    return Server(create_app(no_handler, draft=models / ".draft", **options), models)


# The routes.


def test_the_draft_is_empty_at_first_and_reading_it_writes_nothing(server: Server) -> None:
    answer = server.send("GET", "")
    assert (answer.status, answer.json) == (200, {"classes": []})
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (
        "application/json",
        "private, no-cache",
    )
    for path in (CLASS, f"{CLASS}/photos", f"{CLASS}/photos/{UNKNOWN_ID}", "/bundle.zip", "/nothing"):
        server.send("GET", path)
    assert not server.models.exists()


def test_an_unchanged_draft_is_not_sent_again(pets: Server) -> None:
    tag = pets.send("GET", "").headers["etag"]
    again = pets.send("GET", "", headers={"if-none-match": tag})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    pets.send("PUT", "/classes/rocket")
    changed = pets.send("GET", "", headers={"if-none-match": tag})
    assert (changed.status, len(changed.json["classes"])) == (200, 3)


def test_a_class_is_renamed_and_a_photo_is_moved(pets: Server) -> None:
    identifier = pets.classes()["cat"][0]
    moved = pets.send("PATCH", f"{CLASS}/photos/{identifier}", b'{"class": "coffee"}')
    assert (moved.status, moved.body) == (204, b"")
    assert identifier in pets.classes()["coffee"]
    assert pets.send("PATCH", CLASS, b'{"name": "Tabby Cat"}').status == 204
    assert {name: len(photos) for name, photos in pets.classes().items()} == {"Tabby Cat": 1, "coffee": 3}
    assert pets.send("PATCH", CLASS, b'{"name": "dog"}').code == (404, "draft_not_found")


def test_a_name_that_another_class_or_model_has_is_taken(pets: Server) -> None:
    assert pets.send("PATCH", CLASS, b'{"name": "coffee"}').code == (409, "draft_name_taken")
    (pets.models / "mine").mkdir()
    assert pets.send("POST", "/keep", b'{"name": "mine"}').code == (409, "draft_name_taken")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"name": 1}', b'{"class": 1}', b"\xff"])
def test_a_body_that_names_no_class_is_refused(body: bytes, pets: Server) -> None:
    for path in (CLASS, f"{CLASS}/photos/{pets.classes()['cat'][0]}"):
        assert pets.send("PATCH", path, body).code == (400, "invalid_request")


def test_a_class_is_added_once_and_removed_once(server: Server) -> None:
    assert [server.send("PUT", CLASS).status for _ in range(2)] == [204, 204]
    assert server.classes() == {"cat": []}
    assert server.send("DELETE", CLASS).status == 204
    assert server.send("DELETE", CLASS).code == (404, "draft_not_found")


def test_a_photo_is_added_read_and_removed(server: Server) -> None:
    server.send("PUT", CLASS)
    added = server.send("POST", f"{CLASS}/photos", png("cat", 0), {"content-type": "image/png"})
    assert added.status == 201
    identifier = added.json["id"]
    assert server.classes() == {"cat": [identifier]}
    read = server.send("GET", f"{CLASS}/photos/{identifier}")
    assert (read.status, read.body) == (200, png("cat", 0))
    assert (read.headers["content-type"], read.headers["x-content-type-options"]) == ("image/png", "nosniff")
    assert server.send("DELETE", f"{CLASS}/photos/{identifier}").status == 204
    for method in ("GET", "DELETE"):
        assert server.send(method, f"{CLASS}/photos/{identifier}").code == (404, "draft_not_found")
    assert server.classes() == {"cat": []}


def test_what_is_learned_classifies_is_kept_downloaded_and_discarded(pets: Server, tmp_path: Path) -> None:
    learned = pets.send("POST", "/learn")
    assert (learned.status, learned.json["distribution"]) == (200, {"train": [2, 2]})
    assert pets.send("GET", "").json["learned"] == learned.json

    answer = pets.send("POST", "/classify", png("coffee", 40), {"content-type": "image/png"})
    assert answer.status == 200
    assert answer.json["predictions"][0]["label"] == "coffee"
    assert answer.json["model"]["version"] == "1.0.0"
    assert answer.json["request_id"]

    kept = pets.send("POST", "/keep", b'{"name": "pets"}', {"content-type": "application/json"})
    assert (kept.status, kept.json["name"]) == (201, "pets")
    assert load_bundle(pets.models / "pets").labels == ("cat", "coffee")

    archive = pets.send("GET", "/bundle.zip")
    assert (archive.status, archive.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(BytesIO(archive.body)) as file:
        file.extractall(tmp_path / "unpacked")
    assert load_bundle(tmp_path / "unpacked").labels == ("cat", "coffee")

    assert pets.send("DELETE", "").status == 204
    assert pets.send("GET", "").json == {"classes": []}
    assert {path.name for path in pets.models.iterdir()} == {"pets"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/bundle.zip"),
        ("POST", "/classify"),
        ("DELETE", "/classes/dog"),
        ("POST", "/classes/dog/photos"),
        ("GET", f"/classes/dog/photos/{UNKNOWN_ID}"),
        ("DELETE", f"{CLASS}/photos/{UNKNOWN_ID}"),
        ("GET", f"{CLASS}/photos/..%2f..%2fdraft"),
    ],
)
def test_what_the_draft_does_not_have_is_not_found(method: str, path: str, pets: Server) -> None:
    assert pets.send(method, path, png("cat", 5)).status == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"name": 1}', b'{"name": "pets", "more": 1}', b"\xff"])
def test_a_body_that_names_no_model_is_refused(body: bytes, pets: Server) -> None:
    assert pets.send("POST", "/keep", body).code == (400, "invalid_request")


@pytest.mark.parametrize("name", ["", "..", "../pets", "a/b", "My Pets", ".draft", "everyday"])
def test_a_name_that_a_model_cannot_have_is_refused(name: str, pets: Server) -> None:
    assert pets.send("POST", "/keep", json.dumps({"name": name}).encode()).code == (422, "draft_refused")
    assert [path.name for path in pets.models.iterdir()] == [".draft"]


@pytest.mark.parametrize("path", ["/learn", "/keep"])
def test_too_few_classes_are_refused(path: str, server: Server) -> None:
    server.send("PUT", CLASS)
    assert server.send("POST", path, b'{"name": "pets"}').code == (422, "draft_refused")


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", (400, "image_missing")), (b"hello", (415, "not_an_image")), (png("cat", 1)[:999], (422, "corrupt_image"))],
)
def test_a_body_that_is_no_photo_gets_the_errors_of_classification(
    body: bytes, code: tuple[int, str], pets: Server
) -> None:
    pets.send("POST", "/learn")
    for path in (f"{CLASS}/photos", "/classify"):
        assert pets.send("POST", path, body).code == code
    assert [len(photos) for photos in pets.classes().values()] == [2, 2]


def test_a_draft_that_is_in_use_can_be_tried_again(pets: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_module, "_WAIT_SECONDS", 0.01)
    busy, load = [], draft_module.load_base

    def meanwhile(base: Path) -> Any:
        busy.append(pets.send("PUT", "/classes/rocket"))
        assert list(pets.classes()) == ["cat", "coffee"]
        assert pets.send("GET", "").json["learning"] is True
        return load(base)

    monkeypatch.setattr(draft_module, "load_base", meanwhile)
    assert pets.send("POST", "/learn").status == 200
    assert pets.send("GET", "").json.get("learning") is None
    assert busy[0].code == (409, "draft_busy")
    assert int(busy[0].headers["retry-after"]) > 0


def test_the_draft_says_how_many_photos_were_read(pets: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, embed = [], embeddings._embed

    def look_first(*arguments: Any) -> Any:
        seen.append(pets.send("GET", "").json["progress"])
        return embed(*arguments)

    monkeypatch.setattr(embeddings, "_embed", look_first)
    monkeypatch.setattr(teaching, "default_cache", lambda: contextlib.closing(embeddings.EmbeddingCache()))
    assert pets.send("POST", "/learn").status == 200
    # So few photos are read a second time, as mirror images.
    assert seen == [{"done": done, "total": 4} for done in range(4)] * 2
    assert "progress" not in pets.send("GET", "").json


def test_an_unexpected_error_is_an_internal_error_without_its_message(
    pets: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Any:
        raise OSError(28, "secret")

    monkeypatch.setattr(draft_module, "learn", broken)
    answer = pets.send("POST", "/learn")
    assert answer.code == (500, "internal_error")
    assert b"secret" not in answer.body
    monkeypatch.setattr(draft_module, "load_base", lambda base: load_bundle(base / "nothing"))
    assert pets.send("POST", "/learn").code == (422, "draft_refused")


# Paths and methods.


@pytest.mark.parametrize("path", DOCUMENTED)
def test_each_documented_path_has_exactly_the_documented_methods(path: str, server: Server) -> None:
    below = path.removeprefix("/v1/draft").replace("NAME", "cat").replace("ID", UNKNOWN_ID)
    for method in METHODS:
        answer = server.send(method, below)
        assert (answer.status == 405) is (method not in DOCUMENTED[path])
        if answer.status == 405:
            assert set(answer.headers["allow"].split(", ")) == DOCUMENTED[path]
        else:
            assert answer.status != 404 or answer.json["code"] == "draft_not_found"


def test_the_documentation_has_every_route_and_error() -> None:
    assert len(DOCUMENTED) == 8
    for error in (DraftMissing, DraftInUse, DraftNameTaken, DraftRefused):
        assert f"`{error.code}` ({error.status.value}" in LEARN_PAGE


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/nothing",
        "/learn/",
        "/LEARN",
        "/classes",
        "/classes/",
        f"{CLASS}/",
        f"{CLASS}/photos/",
        f"{CLASS}/photos/{UNKNOWN_ID}/",
        f"{CLASS}/other",
        "/bundle.zip/x",
        "/learn%0a",
        "/../models",
        "/classes/a%2fb",
        "/classes/..%2f..%2fetc",
        f"{CLASS}/photos/a%2fb",
    ],
)
def test_another_path_does_not_exist(path: str, server: Server) -> None:
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert server.send(method, path).code == (404, "not_found")
    assert not server.models.exists()


@pytest.mark.parametrize("path", ["s", "x/learn", "%2e"])
def test_a_path_that_only_begins_like_the_drafts_is_the_handlers(path: str, tmp_path: Path) -> None:
    seen = []

    def handler(event: dict[str, Any], _: object) -> dict[str, Any]:
        seen.append(event["path"])
        return {"statusCode": 200}

    app = create_app(handler, draft=tmp_path / ".draft")
    assert Server(app, tmp_path).send("POST", path).status == 200
    assert seen == [f"/v1/draft{unquote(path)}"]


@pytest.mark.parametrize(
    ("encoded_name", "name"),
    [("Tabby%20Cat", "Tabby Cat"), ("caf%C3%A9", "café"), ("%E7%8C%AB", "猫"), ("100%25", "100%"), ("a%2Bb", "a+b")],
)
def test_the_name_of_a_class_is_percent_encoded(encoded_name: str, name: str, server: Server) -> None:
    assert server.send("PUT", f"/classes/{encoded_name}").status == 204
    identifier = server.send("POST", f"/classes/{encoded_name}/photos", png("cat", 0)).json["id"]
    assert server.classes() == {name: [identifier]}
    assert server.send("GET", f"/classes/{encoded_name}/photos/{identifier}").status == 200
    assert server.send("DELETE", f"/classes/{encoded_name}").status == 204
    assert server.classes() == {}


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "%2E", "a%5Cb", "%5C..", "a%00b", "a%0Ab", "%20", "C%3A", "a%7F"]
)
def test_a_name_that_could_be_a_path_is_refused(name: str, pets: Server) -> None:
    before = sorted(pets.models.rglob("*"))
    assert pets.send("PUT", f"/classes/{name}").code == (422, "draft_refused")
    assert pets.send("DELETE", f"/classes/{name}").code == (404, "draft_not_found")
    assert pets.send("POST", f"/classes/{name}/photos", png("cat", 7)).code == (404, "draft_not_found")
    assert sorted(pets.models.rglob("*")) == before


# Who may send requests, and how much.


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "evil.example:8080"},
        {"host": "127.0.0.1:8080@evil.example"},
        {"host": "192.168.1.7:8080"},
        {"host": "localhost:"},
        {"host": ""},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1"},
        {"origin": f"https://{HOST}"},
        {"origin": "http://localhost:8080"},
        {"host": "evil.example", "origin": "http://evil.example"},
    ],
)
def test_other_websites_are_refused(headers: dict[str, str], pets: Server) -> None:
    before = pets.classes()
    for method, path in (("GET", ""), ("DELETE", ""), ("PUT", "/classes/dog"), ("POST", "/learn"), ("GET", "/nothing")):
        assert pets.send(method, path, headers=headers).code == (403, "forbidden")
    assert pets.classes() == before


@pytest.mark.parametrize("host", [HOST, "127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:8080"])
def test_pages_of_the_server_and_programs_on_this_machine_are_answered(host: str, server: Server) -> None:
    for headers in ({"host": host}, {"host": host, "origin": f"http://{host}"}):
        assert server.send("GET", "", headers=headers).status == 200


def test_no_other_page_may_read_the_draft_even_if_it_may_use_the_api(tmp_path: Path) -> None:
    server = server_with(tmp_path / "models", cors_origin="https://example.com")
    for method in ("OPTIONS", "GET", "DELETE"):
        answer = server.send(method, "", headers={"origin": "https://example.com"})
        assert answer.code == (403, "forbidden")


def test_a_key_is_required_if_one_is_set(tmp_path: Path) -> None:
    server = server_with(tmp_path / "models", api_key=KEY)
    for method, path in (("GET", ""), ("PUT", CLASS), ("DELETE", ""), ("GET", "/bundle.zip"), ("GET", "/nothing")):
        for headers in ({}, {"x-api-key": "wrong"}):
            assert server.send(method, path, headers=headers).code == (403, "forbidden")
    assert not server.models.exists()
    assert server.send("PUT", CLASS, headers={"x-api-key": KEY}).status == 204


def test_the_body_of_another_website_is_not_read(pets: Server) -> None:
    chunks = [b"large", b"and larger", b"and larger"]
    answer = pets.send_chunks("POST", f"{CLASS}/photos", chunks, headers={"origin": "https://evil.example"})
    assert answer.code == (403, "forbidden")
    assert pets.chunks_left == len(chunks)


def test_a_body_above_the_limit_is_refused_before_it_is_complete(pets: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data = png("cat", 5)
    monkeypatch.setattr(teaching, "MAX_PHOTO_BYTES", len(data))
    assert pets.send_chunks("POST", f"{CLASS}/photos", [data[:100], data[100:]]).status == 201
    for path in (f"{CLASS}/photos", "/classify", "/keep"):
        beyond = pets.send_chunks("POST", path, [data, b"\0", b"this is never read"])
        assert beyond.code == (413, "request_too_large")
    assert [len(photos) for photos in pets.classes().values()] == [3, 2]


def test_the_body_may_be_as_large_as_a_photo() -> None:
    assert f"{draft_module.MAX_PHOTO_BYTES // 10**6} MB" in LEARN_PAGE
    assert f"{draft_module.MAX_PHOTOS:,} photos" in LEARN_PAGE
    assert f"at most {draft_module.MAX_CLASSES}" in LEARN_PAGE


# A deployed API.


@pytest.mark.parametrize("path", DOCUMENTED)
def test_a_deployed_api_does_not_have_the_routes(path: str, handle: Handle) -> None:
    for method in METHODS:
        response = handle(event(method, path.replace("NAME", "cat").replace("ID", UNKNOWN_ID)))
        assert (response["statusCode"], answer_of(response)["code"]) == (404, "not_found")


def test_a_server_without_a_draft_passes_the_requests_on() -> None:
    from litelens.api.handler import handler

    app = create_app(lambda event, _: handler(event, LambdaContext()))
    assert Server(app, Path()).send("GET", "").code == (404, "not_found")
