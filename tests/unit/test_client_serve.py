"""The ASGI application of `litelens serve`, with handlers made for each test."""

import asyncio
import base64
import gzip
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from starlette.requests import Request
from support import recorded_event
from template import gateway_responses

from litelens.api.requests import BINARY_TYPES
from litelens_client.api import MAX_PAYLOAD_BYTES
from litelens_client.serve import METHODS, MIN_COMPRESSED_BYTES, create_app, to_event

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
    headers: Sequence[tuple[bytes, bytes]] = (),
    **options: str,
) -> list[dict[str, Any]]:
    """Return the messages that the application sends when it receives these."""
    messages, sent = iter(received), []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {**SCOPE, "method": method, "headers": [*SCOPE["headers"], *headers]}
    await create_app(handler, **options)(scope, receive, send)
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
    def accept(*_: object) -> dict[str, Any]:
        return {"statusCode": 200}

    (start, _) = asyncio.run(exchange(accept, body(b"\0" * MAX_PAYLOAD_BYTES)))
    assert start["status"] == 200
    beyond = asyncio.run(exchange(no_handler, body(b"\0" * (MAX_PAYLOAD_BYTES + 1), more=True)))
    assert_same_as_gateway("REQUEST_TOO_LARGE", *beyond)


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
