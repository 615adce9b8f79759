"""The ASGI application of `litelens serve`, with handlers made for each test."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import re
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import ASGIApp
from support import recorded_event
from template import gateway_responses

from litelens.api.problems import UnsupportedMediaType
from litelens.api.requests import BINARY_TYPES
from litelens.core.errors import InternalError, NotAnImage
from litelens.telemetry import logger, record_failure, record_problem
from litelens_client.api import MAX_PAYLOAD_BYTES
from litelens_client.request_log import Logged, RequestLog, replace_json_lines
from litelens_client.serve import (
    FIRST_BYTES,
    MAX_BODIES,
    MAX_EVENT_BYTES,
    METHODS,
    MIN_COMPRESSED_BYTES,
    Connection,
    create_app,
    decompress,
    listen,
    to_event,
)

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": "/v1/classify",
    "query_string": b"top_k=1&top_k=2&x=",
    "headers": [(b"content-type", b"image/png"), (b"accept", b"a"), (b"accept", b"b")],
    "http_version": "1.1",
    "client": ("127.0.0.1", 5),
}
Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


async def exchange(
    handler: Handler,
    *received: dict[str, Any],
    method: str = "POST",
    path: str = "/v1/classify",
    headers: Sequence[tuple[bytes, bytes]] = (),
    scope: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Return the messages that the application sends when it receives these."""
    messages, sent = iter(received), []

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    request = {"method": method, "path": path, "headers": [*SCOPE["headers"], *headers], **(scope or {})}
    await create_app(handler, **options)({**SCOPE, **request}, receive, send)
    return sent


def assert_same_as_gateway(response_type: str, start: dict[str, Any], content: dict[str, Any]) -> None:
    """Check that status, headers and problem are those that template.yaml sets for API Gateway."""
    deployed = gateway_responses()[response_type]
    headers = dict(start["headers"])
    problem = json.loads(content["body"])
    assert start["status"] == deployed.status
    assert [problem[field] for field in ("type", "title", "status", "code")] == [
        deployed.body[field] for field in ("type", "title", "status", "code")
    ]
    assert problem["detail"]
    assert f"'{headers[b'content-type'].decode()}'" == deployed.headers["Content-Type"]
    assert headers[b"x-request-id"].decode() == problem["request_id"]


def body(content: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


def no_handler(*_: object) -> dict[str, Any]:
    raise AssertionError("the handler must not be called")


def test_events_have_the_fields_of_api_gateways() -> None:
    event = to_event(Request(SCOPE), b"\x89PNG\xff", "the-id")
    recorded = recorded_event("health")
    assert set(event) == set(recorded)
    assert set(event["requestContext"]) <= set(recorded["requestContext"])
    assert base64.b64decode(event["body"]) == b"\x89PNG\xff"
    assert event["isBase64Encoded"] is True
    assert (event["headers"]["accept"], event["multiValueHeaders"]["accept"]) == ("b", ["a", "b"])
    assert event["queryStringParameters"] == {"top_k": "2", "x": ""}
    assert event["multiValueQueryStringParameters"] == {"top_k": ["1", "2"], "x": [""]}
    assert event["requestContext"]["requestId"] == "the-id"


def test_text_bodies_are_not_encoded() -> None:
    event = to_event(Request({**SCOPE, "headers": [(b"content-type", b"application/json")]}), "{ä".encode(), "the-id")
    assert (event["body"], event["isBase64Encoded"]) == ("{ä", False)


@pytest.mark.parametrize("media_type", BINARY_TYPES)
def test_binary_bodies_are_encoded_in_base64(media_type: str) -> None:
    headers = [(b"content-type", f"{media_type}; boundary=x".encode())]
    event = to_event(Request({**SCOPE, "headers": headers}), b"\xff\0", "the-id")
    assert (base64.b64decode(event["body"]), event["isBase64Encoded"]) == (b"\xff\0", True)


def test_a_request_id_sent_by_the_client_stays_a_header() -> None:
    event = to_event(Request({**SCOPE, "headers": [(b"x-request-id", b"mine")]}), b"", "the-id")
    assert (event["headers"]["x-request-id"], event["requestContext"]["requestId"]) == ("mine", "the-id")


def test_the_path_is_the_proxy_parameter() -> None:
    event = to_event(Request({**SCOPE, "path": "/v1/results/the-result"}), b"", "the-id")
    assert (event["resource"], event["pathParameters"]) == ("/{proxy+}", {"proxy": "v1/results/the-result"})


def test_a_client_that_is_gone_gets_the_address_of_this_machine() -> None:
    event = to_event(Request({**SCOPE, "client": None}), b"", "the-id")
    assert event["requestContext"]["identity"]["sourceIp"] == "127.0.0.1"


def test_a_key_need_not_be_ascii() -> None:
    def accept(*_: object) -> dict[str, Any]:
        return {"statusCode": 200}

    def status(sent_key: str) -> int:
        headers = [(b"x-api-key", sent_key.encode())]
        return int(asyncio.run(exchange(accept, body(b""), headers=headers, api_key="schlüssel"))[0]["status"])

    assert (status("schlüssel"), status("schlussel")) == (200, 403)


@pytest.mark.parametrize("method", METHODS)
def test_the_handler_gets_every_method_of_api_gateway(method: str) -> None:
    def answer(event: dict[str, Any], _: object) -> dict[str, Any]:
        return {"statusCode": 200, "headers": {"x-method": event["httpMethod"]}}

    (start, _) = asyncio.run(exchange(answer, body(b""), method=method))
    assert (b"x-method", method.encode()) in start["headers"]


def test_errors_of_the_gateway_allow_the_cors_origin() -> None:
    deployed = gateway_responses(CorsOrigin="https://example.com")["INVALID_API_KEY"]
    options = {"api_key": "a-key", "cors_origin": "https://example.com"}
    (start, content) = asyncio.run(exchange(no_handler, body(b""), **options))
    assert json.loads(content["body"])["code"] == "forbidden"
    allowed = dict(start["headers"])[b"access-control-allow-origin"].decode()
    assert f"'{allowed}'" == deployed.headers["Access-Control-Allow-Origin"]


def test_other_methods_do_not_reach_the_handler() -> None:
    assert_same_as_gateway(
        "MISSING_AUTHENTICATION_TOKEN", *asyncio.run(exchange(no_handler, body(b""), method="TRACE"))
    )


def test_a_body_in_chunks_reaches_the_handler_as_one() -> None:
    def echo(event: dict[str, Any], _: object) -> dict[str, Any]:
        return {"statusCode": 200, "body": event["body"], "isBase64Encoded": True, "headers": {"X-One": "1"}}

    start, content = asyncio.run(exchange(echo, body(b"ab", more=True), body(b"cd")))
    assert (start["status"], content["body"]) == (200, b"abcd")
    assert (b"x-one", b"1") in start["headers"]
    assert (b"content-length", b"4") in start["headers"]


def test_long_answers_are_compressed_if_the_client_accepts_gzip() -> None:
    def answer(event: dict[str, Any], _: object) -> dict[str, Any]:
        return {"statusCode": 200, "body": "a" * MIN_COMPRESSED_BYTES}

    (start, content) = asyncio.run(exchange(answer, body(b""), headers=[(b"accept-encoding", b"gzip, br")]))
    assert (b"content-encoding", b"gzip") in start["headers"]
    assert gzip.decompress(content["body"]) == b"a" * MIN_COMPRESSED_BYTES
    (start, content) = asyncio.run(exchange(answer, body(b"")))
    assert content["body"] == b"a" * MIN_COMPRESSED_BYTES


def test_all_values_of_a_response_header_are_kept() -> None:
    def answer(*_: object) -> dict[str, Any]:
        return {"statusCode": 204, "multiValueHeaders": {"Vary": ["a", "b"]}}

    start, _ = asyncio.run(exchange(answer, body(b"")))
    assert (b"vary", b"a, b") in start["headers"]


def test_an_exception_of_the_handler_is_an_internal_error_without_its_message() -> None:
    def broken(*_: object) -> dict[str, Any]:
        raise RuntimeError("secret")

    start, content = asyncio.run(exchange(broken, body(b"")))
    assert_same_as_gateway("DEFAULT_5XX", start, content)
    assert b"secret" not in content["body"]


def test_nothing_is_answered_if_the_client_disconnects_in_the_body() -> None:
    assert asyncio.run(exchange(no_handler, body(b"ab", more=True), {"type": "http.disconnect"})) == []


def test_a_body_one_byte_above_the_limit_is_too_large() -> None:
    assert_same_as_gateway("REQUEST_TOO_LARGE", *asyncio.run(exchange(no_handler, body(b"\0" * MAX_PAYLOAD_BYTES))))
    (start, content) = asyncio.run(exchange(no_handler, body(b"\0" * (MAX_PAYLOAD_BYTES + 1), more=True)))
    assert start["status"] == 413
    # API Gateway's own response, which the template cannot change.
    assert dict(start["headers"])[b"content-type"] == b"text/plain; charset=utf-8"
    assert not content["body"].startswith(b"{")


@pytest.mark.parametrize("media_type", [b"image/png", b"application/json"])
def test_an_event_is_refused_exactly_if_it_is_too_large_for_lambda(media_type: bytes) -> None:
    sizes = []

    def accept(event: dict[str, Any], _: object) -> dict[str, Any]:
        sizes.append(len(json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()))
        return {"statusCode": 200}

    def status(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
        # The last of several headers of one name counts.
        (start, content) = asyncio.run(exchange(accept, body(b"a" * size), headers=[(b"content-type", media_type)]))
        return start, content

    per_byte = 4 / 3 if media_type == b"image/png" else 1
    assert status(0)[0]["status"] == 200
    largest = int((MAX_EVENT_BYTES - sizes[0] - 10) / per_byte)
    assert status(largest)[0]["status"] == 200
    assert MAX_EVENT_BYTES - 20 < sizes[-1] <= MAX_EVENT_BYTES
    assert_same_as_gateway("REQUEST_TOO_LARGE", *status(largest + 20))
    assert len(sizes) == 2


@pytest.mark.parametrize("text", [b'"' * 4_000_000, b"\x01" * 2_000_000])
def test_characters_that_json_escapes_count_as_often_as_lambda_gets_them(text: bytes) -> None:
    beyond = asyncio.run(exchange(no_handler, body(text), headers=[(b"content-type", b"application/json")]))
    assert_same_as_gateway("REQUEST_TOO_LARGE", *beyond)


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


# Without the time, so that parallel processes have the same tests.
GZIPPED = gzip.compress(b"photo", mtime=0)
COMPRESSED = {
    "gzip": GZIPPED,
    "GZIP": GZIPPED,
    "x-gzip": GZIPPED,
    "deflate": zlib.compress(b"photo"),
    " deflate ": raw_deflate(b"photo"),
    "identity": b"photo",
    "": b"photo",
}


def echo(event: dict[str, Any], _: object) -> dict[str, Any]:
    return {"statusCode": 200, "body": event["body"], "isBase64Encoded": event["isBase64Encoded"]}


@pytest.mark.parametrize("encoding", COMPRESSED)
def test_a_compressed_body_reaches_the_handler_decompressed_as_from_api_gateway(encoding: str) -> None:
    headers = [(b"content-encoding", encoding.encode())]
    (start, content) = asyncio.run(exchange(echo, body(COMPRESSED[encoding]), headers=headers))
    assert (start["status"], content["body"]) == (200, b"photo")


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("br", b"photo"),
        ("gzip, gzip", gzip.compress(GZIPPED, mtime=0)),
        ("gzip", b"photo"),
        ("gzip", GZIPPED[:-1]),
        ("gzip", GZIPPED * 2 + GZIPPED[:-1]),
        ("gzip", gzip.compress(b"", mtime=0) * 100_000),
        ("deflate", zlib.compress(b"photo") * 2),
        ("gzip", GZIPPED + b"more"),
        ("deflate", GZIPPED),
    ],
)
def test_a_body_that_cannot_be_decompressed_is_refused_as_by_api_gateway(encoding: str, sent: bytes) -> None:
    headers = [(b"content-encoding", encoding.encode())]
    refused = asyncio.run(exchange(no_handler, body(sent), headers=headers))
    assert_same_as_gateway("UNSUPPORTED_MEDIA_TYPE", *refused)


def test_a_body_of_several_gzip_streams_is_decompressed_as_one() -> None:
    sent = b"".join(gzip.compress(part) for part in (b"ph", b"", bytes(100_000), b"oto"))
    assert decompress(sent, "gzip") == b"ph" + bytes(100_000) + b"oto"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("encoding", [b"gzip", b"br"])
def test_the_encoding_of_no_body_does_not_matter(method: str, encoding: bytes) -> None:
    headers = [(b"content-encoding", encoding)]
    (start, _) = asyncio.run(exchange(lambda *_: {"statusCode": 200}, body(b""), method=method, headers=headers))
    assert start["status"] == 200


@given(st.binary(max_size=60), st.sampled_from(sorted(COMPRESSED)))
def test_any_body_is_decompressed_or_refused(sent: bytes, encoding: str) -> None:
    with contextlib.suppress(UnsupportedMediaType):
        assert isinstance(decompress(sent, encoding.strip().lower()), bytes)


@pytest.mark.parametrize("size", [MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 1, 100 * MAX_PAYLOAD_BYTES])
@pytest.mark.parametrize("streams", [1, 2])
def test_the_limit_applies_to_the_decompressed_body(size: int, streams: int) -> None:
    first = (streams - 1) * (size // 2)
    compressed = b"".join(gzip.compress(bytes(part), compresslevel=1) for part in (first, size - first) if part)
    if size == MAX_PAYLOAD_BYTES:
        assert len(decompress(compressed, "gzip")) == size
        return
    (start, _) = asyncio.run(exchange(no_handler, body(compressed), headers=[(b"content-encoding", b"gzip")]))
    assert start["status"] == 413


@pytest.mark.parametrize("path", ["/", "/index.html", "/main.js"])
def test_the_files_of_the_page_are_there_for_head_as_for_get(path: str) -> None:
    (answered, _), (got, _) = (
        asyncio.run(exchange(no_handler, body(b""), method=method, path=path)) for method in ("HEAD", "GET")
    )
    assert answered["status"] == 200
    assert answered["headers"] == got["headers"]


def test_a_client_that_is_gone_is_not_served() -> None:
    logged: list[Logged] = []
    sent = asyncio.run(exchange(no_handler, body(b"photo"), {"type": "http.disconnect"}, log=logged.append))
    assert sent == []
    assert [each.response for each in logged] == [None]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was logged, without the milliseconds."""
    return re.sub(r"\d+ ms", "MS", capsys.readouterr().out).splitlines()


def answering(document: Any, status: int = 200) -> Handler:
    return lambda *_: {"statusCode": status, "body": document if isinstance(document, str) else json.dumps(document)}


def predictions(*labels: str, **fields: Any) -> dict[str, Any]:
    return {"predictions": [{"label": each, "confidence": 0.9, **fields} for each in labels], "uncertain": False}


DONE = {"status": "done", **predictions("cat")}


@pytest.mark.parametrize(
    ("handler", "line"),
    [
        (answering(predictions("cat", "dog")), "200 MS  cat 0.90"),
        (answering({**predictions("cat"), "uncertain": True}), "200 MS  cat 0.90 uncertain"),
        (answering({**predictions("cat"), "uncertain": True, "unfamiliar": True}), "200 MS  cat 0.90 unfamiliar"),
        (answering(predictions("cat", "dog", present=True)), "200 MS  cat 0.90, dog 0.90"),
        (answering(predictions("cat", present=False)), "200 MS"),
        (answering({"results": [DONE, {"status": "failed"}]}), "200 MS  2 photos, 1 failed"),
        (answering({"results": [DONE]}), "200 MS  1 photo"),
        (answering({"code": "not_an_image"}, 415), "415 MS  not_an_image"),
        (answering("Too long.", 413), "413 MS"),
        (answering("[]"), "200 MS"),
        (answering(predictions("\x1b[31mcat")), "200 MS  \\x1b[31mcat 0.90"),
    ],
)
def test_a_request_is_logged_as_a_line(handler: Handler, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(exchange(handler, body(b"photo"), log=RequestLog().write))
    assert lines(capsys) == [f"POST /v1/classify {line}"]


@pytest.mark.parametrize("sent", ["secret-of-the-tests", "another-secret"])
def test_no_key_token_or_query_is_logged(sent: str, capsys: pytest.CaptureFixture[str]) -> None:
    headers = [(b"x-api-key", sent.encode()), (b"authorization", f"Bearer {sent}".encode())]
    options = {"api_key": "secret-of-the-tests", "log": RequestLog().write}
    scope = {"query_string": f"key={sent}".encode()}
    asyncio.run(exchange(answering({"code": "x"}, 400), body(sent.encode()), headers=headers, scope=scope, **options))
    captured = capsys.readouterr()
    assert captured.out.startswith("POST /v1/classify 40")
    assert "secret" not in captured.out + captured.err


def test_a_path_that_moves_the_cursor_or_is_long_is_logged_escaped_and_cut(capsys: pytest.CaptureFixture[str]) -> None:
    log = RequestLog().write
    for path in ("/v1/\n\x1b[2J", "/" + "a" * 10_000):
        asyncio.run(exchange(answering({}, 404), body(b""), path=path, log=log))
    escaped, cut = lines(capsys)
    assert escaped == "POST /v1/\\n\\x1b[2J 404 MS"
    assert len(cut) < 200


def test_the_files_of_the_page_and_its_reads_of_the_draft_are_not_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"log": RequestLog().write, "draft": tmp_path / ".draft", "headers": [(b"host", b"localhost")]}
    for method, path in (
        ("GET", "/main.js"),
        ("GET", "/v1/draft"),
        ("GET", "/v1/draft/x"),
        ("PUT", "/v1/draft/classes/a"),
    ):
        asyncio.run(exchange(no_handler, body(b""), method=method, path=path, **options))
    assert lines(capsys) == ["GET /v1/draft/x 404 MS  not_found", "PUT /v1/draft/classes/a 204 MS"]


@pytest.mark.parametrize(
    ("variables", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_the_status_is_coloured_on_a_terminal_that_has_colours(
    variables: dict[str, str], is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, text in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(sys, "stdout", Terminal())
    asyncio.run(exchange(answering({"code": "x"}, 415), body(b"photo"), log=RequestLog().write))
    assert ("\x1b[33m415\x1b[0m" in sys.stdout.getvalue()) is is_coloured


@contextlib.contextmanager
def lines_instead_of_json() -> Iterator[None]:
    """Replace the JSON lines until the block ends."""
    level = logger.registered_handler.level
    # Servers of other tests have added handlers.
    _remove_other_handlers()
    replace_json_lines()
    yield
    logger.registered_handler.setLevel(level)
    _remove_other_handlers()


def _remove_other_handlers() -> None:
    for handler in [*logger.handlers]:
        if handler is not logger.registered_handler:
            logger.removeHandler(handler)


def test_only_failures_of_the_handler_are_logged_each_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with lines_instead_of_json():
        record_problem(NotAnImage("secret"), "request-1")
        record_problem(InternalError("secret"), "request-1", reason="AccessDenied")
        try:
            raise ValueError("secret")
        except ValueError as error:
            record_failure(error, "request-1")
        logger.warning("The model a\nb cannot be loaded.")
    captured = capsys.readouterr()
    assert captured.out == ""
    problem, failure, warning = captured.err.splitlines()
    assert problem == "failed: internal_error, AccessDenied"
    assert re.fullmatch(rf"failed: internal_error, ValueError in {__name__}\.test_\w+:\d+", failure)
    assert warning == "The model a\\nb cannot be loaded."


def test_output_that_cannot_be_written_does_not_disturb_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    log = RequestLog().write
    monkeypatch.setattr(sys, "stdout", Closed())
    (start, _) = asyncio.run(exchange(answering(predictions("cat")), body(b"photo"), log=log))
    assert start["status"] == 200


def test_other_requests_are_answered_while_the_draft_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_load = threading.Event()

    def load(draft: Path) -> Any:
        assert may_load.wait(60)
        raise AssertionError

    monkeypatch.setattr("litelens_client.serve._teaching", load)
    app = create_app(lambda *_: {"statusCode": 200}, draft=tmp_path / ".draft")

    async def both() -> list[int]:
        first = asyncio.create_task(status_of(app, "/v1/draft"))
        # The first request runs until it waits.
        await asyncio.sleep(0)
        other = await status_of(app, "/v1/model")
        is_waiting = not first.done()
        may_load.set()
        return [await first, other, is_waiting]

    assert asyncio.run(both()) == [500, 200, True]


async def status_of(app: ASGIApp, path: str) -> int:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return body(b"")

    async def send(message: Any) -> None:
        sent.append(message)

    await app({**SCOPE, "path": path}, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize("limit", ["BODY_SECONDS", "SILENT_SECONDS"])
def test_a_body_that_does_not_arrive_in_time_ends_the_connection(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"litelens_client.serve.{limit}", 0)
    (start, _) = asyncio.run(exchange(no_handler, body(b"pho", more=True)))
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]


def test_few_bodies_are_in_memory_at_the_same_time() -> None:
    begun, release = [], threading.Event()

    def wait(*_: object) -> dict[str, Any]:
        assert release.wait(timeout=60)
        return {"statusCode": 200}

    app = create_app(wait)

    async def one(number: int) -> int:
        sent: list[dict[str, Any]] = []
        messages = iter([body(bytes(FIRST_BYTES + 1), more=True), body(b"photo")])

        async def receive() -> dict[str, Any]:
            for message in messages:
                if not message["more_body"]:
                    begun.append(number)
                return message
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(SCOPE, receive, send)
        return int(sent[0]["status"])

    async def many() -> list[int]:
        tasks = [asyncio.create_task(one(number)) for number in range(3 * MAX_BODIES)]
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(begun) == MAX_BODIES
        release.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(many()) == [200] * (3 * MAX_BODIES)
    assert begun == list(range(3 * MAX_BODIES))


@dataclass(frozen=True)
class Served:
    """A server's address, and the connections that it has."""

    address: tuple[str, int]
    connections: set[Any]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=60)


@contextlib.contextmanager
def serving(handler: Handler, **options: Any) -> Iterator[Served]:
    """Serve over HTTP until the block ends."""
    config = uvicorn.Config(create_app(handler), http=Connection, lifespan="off", log_level="critical", **options)
    server = uvicorn.Server(config)
    with listen(0) as listener, ThreadPoolExecutor(1) as thread:
        running = thread.submit(server.run, sockets=[listener])
        try:
            yield Served(listener.getsockname(), server.server_state.connections)
        finally:
            server.should_exit = True
            running.result(timeout=60)


def request_of(content: bytes, version: str = "1.1", path: str = "/v1/classify") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def received(connection: socket.socket) -> bytes:
    """Return all bytes until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("size", [5, 300_000])
def test_a_client_that_has_closed_its_side_gets_its_answer(version: str, size: int) -> None:
    with serving(echo) as serve, serve.connect() as connection:
        connection.sendall(request_of(bytes(size), version))
        connection.shutdown(socket.SHUT_WR)
        *interim, last = received(connection).split(b"HTTP/1.1 ")[1:]
    assert last.startswith(b"200 ")
    assert last.endswith(bytes(size))
    assert all(response == b"100 Continue\r\n\r\n" for response in interim)
    assert version == "1.1" or not interim


def test_requests_that_were_sent_before_the_client_closed_its_side_are_all_answered() -> None:
    with serving(echo) as serve, serve.connect() as connection:
        connection.sendall(b"".join(request_of(b"photo %d" % number) for number in range(3)))
        connection.shutdown(socket.SHUT_WR)
        answered = received(connection)
    assert [b"photo %d" % number in answered for number in range(3)] == [True] * 3


def test_clients_that_are_gone_do_not_delay_the_others() -> None:
    served, first, release = [], threading.Event(), threading.Event()

    def note(event: dict[str, Any], _: object) -> dict[str, Any]:
        served.append(event["path"])
        first.set()
        assert release.wait(timeout=60)
        return {"statusCode": 200}

    with serving(note) as serve, serve.connect() as waiting, serve.connect() as last:
        waiting.sendall(request_of(b"photo", path="/v1/first"))
        assert first.wait(timeout=60)
        for _ in range(5):
            with serve.connect() as gone:
                gone.sendall(request_of(b"photo", path="/v1/gone"))
        # The answer to this one comes after the server has accepted the others.
        with serve.connect() as other:
            other.sendall(b"GET /index.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert received(other)
        deadline = time.monotonic() + 60
        while len(serve.connections) > 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        last.sendall(request_of(b"photo", path="/v1/last"))
        last.shutdown(socket.SHUT_WR)
        release.set()
        assert b"HTTP/1.1 200 " in received(last)
    assert served == ["/v1/first", "/v1/last"]


@pytest.mark.parametrize(("sent", "seconds"), [(10, 60.0), (3 * FIRST_BYTES, 0.5)])
def test_bodies_that_do_not_arrive_do_not_block_the_others(
    sent: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litelens_client.serve.SILENT_SECONDS", seconds)
    begun = time.monotonic()
    with serving(echo) as serve, contextlib.ExitStack() as stack:
        incomplete = [stack.enter_context(serve.connect()) for _ in range(2 * MAX_BODIES)]
        for connection in incomplete:
            connection.sendall(request_of(bytes(5 * FIRST_BYTES))[: sent + 100])
        with serve.connect() as other:
            other.sendall(request_of(bytes(2 * FIRST_BYTES)))
            other.shutdown(socket.SHUT_WR)
            assert b"HTTP/1.1 200 " in received(other)
        assert time.monotonic() - begun < 30
        for connection in incomplete:
            connection.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_connection_without_a_whole_request_ends(sent: bytes) -> None:
    with serving(no_handler, timeout_keep_alive=0) as serve, serve.connect() as connection:
        connection.sendall(sent)
        assert received(connection) == b""


def test_a_connection_is_not_idle_while_its_request_is_served() -> None:
    begun, release = threading.Event(), threading.Event()

    def wait(*_: object) -> dict[str, Any]:
        begun.set()
        assert release.wait(timeout=60)
        return {"statusCode": 200}

    with serving(wait, timeout_keep_alive=1) as serve, serve.connect() as connection, serve.connect() as idle:
        connection.sendall(request_of(b"photo"))
        assert begun.wait(timeout=60)
        assert received(idle) == b""
        release.set()
        assert received(connection).startswith(b"HTTP/1.1 200 ")


def test_events_are_handled_one_at_a_time() -> None:
    meeting = threading.Barrier(2)

    def meet(*_: object) -> dict[str, Any]:
        with pytest.raises(threading.BrokenBarrierError):
            meeting.wait(timeout=0.2)
        return {"statusCode": 200}

    app = create_app(meet)

    async def one() -> int:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return body(b"")

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(SCOPE, receive, send)
        return int(sent[0]["status"])

    async def two() -> list[int]:
        return await asyncio.gather(one(), one())

    assert asyncio.run(two()) == [200, 200]
