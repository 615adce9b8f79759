"""API Gateway and Lambda on a laptop: HTTP requests become REST proxy events for the very handler that is deployed.

Run with `make run`; the page in web/ is at the root. One event is handled at a time, as in one Lambda execution
environment. Neither Lambda's timeout nor its limit of 6 MB on an event is imposed, nor what only a deployed API has:
throttling, and the models that bound JSON before the handler sees it. A key is asked for where one is given at the
start.
"""

import argparse
import asyncio
import base64
import contextlib
import functools
import gzip
import logging
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from handlers.bodies import BINARY_TYPES
from handlers.problems import FORBIDDEN, INTERNAL, KINDS, Kind, RequestTooLarge, problem
from litelens.errors import LitelensError
from local import site
from settings import SettingsError, read_settings

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# What API Gateway's ANY stands for.
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

OPEN = re.compile(r"/v1/health|/openapi\.json|/docs(/[^/]+)?")

MAX_PAYLOAD = 10_000_000

# The template's MinimumCompressionSize, and the least that CloudFront compresses, too (1,000 there).
LEAST_COMPRESSED = 1024

TIMEOUT_MS = 29_000
SAMPLE = "web/samples/cat.jpg"


@dataclass(frozen=True)
class LocalContext:
    """The parts of Lambda's context object that handlers read."""

    aws_request_id: str
    function_name: str = "litelens-local"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 1769
    invoked_function_arn: str = "arn:aws:lambda:local:000000000000:function:litelens-local"

    def get_remaining_time_in_millis(self) -> int:
        return TIMEOUT_MS


def create_app(handler: Handler, api_key: str | None = None, cors_origin: str | None = None) -> Application:
    """An ASGI application that answers what this Lambda handler answers, to whoever has the key if there is one.

    The page in web/ is for all. Pages of `cors_origin` may read the refusals that are not the handler's, too.
    """
    refuse = functools.partial(_refuse, cors_origin=cors_origin)
    one_at_a_time = ThreadPoolExecutor(max_workers=1)

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        request_id = str(uuid.uuid4())
        if scope["method"] == "GET" and (file := site.read_site_file(scope["path"])):
            await _send_file(send, file, scope)
            return
        if scope["method"] not in METHODS:
            await refuse(send, FORBIDDEN, "API Gateway knows no such path or method.", request_id)
            return
        if api_key is not None and not _is_open(scope) and not _has_key(scope, api_key):
            await refuse(send, FORBIDDEN, "Send a valid API key in the header x-api-key.", request_id)
            return
        try:
            body = await _read_body(receive)
        except ConnectionResetError:
            return
        except RequestTooLarge as error:
            await refuse(send, KINDS[RequestTooLarge], str(error), request_id)
            return
        event = to_event(scope, body, request_id)
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(one_at_a_time, handler, event, LocalContext(request_id))
        except Exception:
            logging.exception("the handler raised")
            await refuse(send, INTERNAL, "The request could not be completed; it may be sent again.", request_id)
            return
        body, headers = _response_body(result), _response_headers(result)
        await _send(send, result["statusCode"], *_compressed(headers, body, scope))

    return app


def to_event(scope: MutableMapping[str, Any], body: bytes, request_id: str) -> dict[str, Any]:
    """The REST proxy event that API Gateway makes of this ASGI request, its body as base64 for the binary types."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    query: dict[str, list[str]] = {}
    for key, text in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        query.setdefault(key, []).append(text)
    media_type = headers.get("content-type", [""])[-1].partition(";")[0].strip().lower()
    is_binary = bool(body) and media_type in BINARY_TYPES
    return {
        "resource": "/{proxy+}",
        "path": scope["path"],
        "httpMethod": scope["method"],
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {key: values[-1] for key, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": scope["path"].lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": "127.0.0.1",
            "extendedRequestId": request_id,
            "requestId": request_id,
            "resourceId": "local",
            "stage": "local",
            "path": scope["path"],
            "resourcePath": "/{proxy+}",
            "httpMethod": scope["method"],
            "protocol": f"HTTP/{scope['http_version']}",
            "requestTimeEpoch": int(time.time() * 1000),
            "identity": {"sourceIp": scope["client"][0], "userAgent": headers.get("user-agent", [None])[-1]},
        },
        "body": (base64.b64encode(body).decode() if is_binary else body.decode(errors="replace")) or None,
        "isBase64Encoded": is_binary,
    }


async def _read_body(receive: Receive) -> bytes:
    """The whole body.

    Raises RequestTooLarge once it is larger than API Gateway takes, ConnectionResetError when the client hangs up.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += message.get("body", b"")
        if len(body) > MAX_PAYLOAD:
            raise RequestTooLarge(
                f"API Gateway takes at most {MAX_PAYLOAD:,} bytes; send a larger image by POST /v1/uploads."
            )
        if not message.get("more_body"):
            return bytes(body)


def _response_headers(result: dict[str, Any]) -> dict[str, str]:
    several = {name: ", ".join(values) for name, values in (result.get("multiValueHeaders") or {}).items()}
    return {**(result.get("headers") or {}), **several}


def _response_body(result: dict[str, Any]) -> bytes:
    body = result.get("body") or ""
    return base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()


def _is_open(scope: MutableMapping[str, Any]) -> bool:
    """Whether the template opens this route to all."""
    return scope["method"] == "OPTIONS" or (scope["method"] == "GET" and OPEN.fullmatch(scope["path"]) is not None)


def _has_key(scope: MutableMapping[str, Any], api_key: str) -> bool:
    return (b"x-api-key", api_key.encode()) in scope["headers"]


async def _refuse(send: Send, kind: Kind, detail: str, request_id: str, cors_origin: str | None) -> None:
    """What the template makes API Gateway answer itself."""
    answer = problem(kind, detail, request_id)
    headers = {"content-type": str(answer.content_type), "x-request-id": request_id}
    if cors_origin:
        headers["access-control-allow-origin"] = cors_origin
    await _send(send, answer.status_code, headers, str(answer.body).encode())


async def _send_file(send: Send, file: site.SiteFile, scope: MutableMapping[str, Any]) -> None:
    headers = {**site.HEADERS, "content-type": file.content_type, "cache-control": "no-cache", "etag": file.tag}
    if (b"if-none-match", file.tag.encode()) in scope["headers"]:
        await _send(send, 304, headers, b"")
    elif file.content_type.startswith(site.COMPRESSIBLE):
        await _send(send, 200, *_compressed(headers, file.body, scope))
    else:
        await _send(send, 200, headers, file.body)


def _compressed(headers: dict[str, str], body: bytes, scope: MutableMapping[str, Any]) -> tuple[dict[str, str], bytes]:
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
    if len(body) < LEAST_COMPRESSED or b"gzip" not in accepted:
        return headers, body
    return {**headers, "content-encoding": "gzip"}, gzip.compress(body)


async def _send(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def listen(port: int, verb: str = "run") -> socket.socket:
    """A socket that listens on this port, for that verb of make; ends the process with a sentence when none can."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        sys.exit(f"Port {port} cannot be used ({reason}); choose another: make {verb} PORT=8081")
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the API on this machine, without Docker or an AWS account.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument(
        "--api-key",
        default=os.environ.get("API_KEY") or None,
        help="ask for this key as a deployed API does (default: API_KEY, where others on this machine do not see it)",
    )
    given = parser.parse_args()
    # They are for CloudWatch.
    os.environ.setdefault("POWERTOOLS_METRICS_DISABLED", "true")
    listener = listen(given.port)
    try:
        from handlers.api import handler
    except (LitelensError, SettingsError) as error:
        sys.exit(str(error))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(f"litelens is listening on {address} (Ctrl-C ends it). Open that and drop a photo, or try:\n")
    print(f"  curl -H 'Content-Type: image/jpeg' --data-binary @{SAMPLE} {address}/v1/classify\n", flush=True)
    app = create_app(handler, given.api_key, read_settings().cors_origin)
    config = uvicorn.Config(app, lifespan="off", log_level="warning", server_header=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
