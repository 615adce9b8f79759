"""`litelens serve`: API Gateway, Lambda and the page on this machine.

HTTP requests become REST proxy events for the handler that is deployed to Lambda, one event at a time, as in one Lambda
execution environment. The limits of sizes are those of API Gateway and Lambda, and compressed bodies are decompressed.
Lambda's timeout, throttling, and API Gateway's validation of JSON are not imitated. An API key is required only if one
is set. The page in web/ is at the root.
"""

import asyncio
import base64
import contextlib
import functools
import hashlib
import importlib
import logging
import os
import re
import shlex
import socket
import sys
import time
import uuid
import zlib
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h11
import msgspec
import uvicorn
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from litelens.api.problems import Forbidden, RequestTooLarge, UnsupportedMediaType, problem_response
from litelens.api.requests import BINARY_TYPES
from litelens.core.errors import InternalError, LitelensError, ReportedError
from litelens.settings import DEFAULT_MODEL, SettingsError, read_settings
from litelens_client.api import MAX_PAYLOAD_BYTES
from litelens_client.page import PAGE_HEADERS, PageFile, PageFiles
from litelens_client.request_log import Logged, RequestLog, replace_json_lines
from litelens_client.settings import bundle_folder, models_folder, page_folder

if TYPE_CHECKING:
    from litelens_client.teaching import Teaching

Handler = Callable[[dict[str, Any], Any], dict[str, Any]]
Log = Callable[[Logged], None]

# The methods that API Gateway's ANY includes.
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

# The paths that template.yaml serves without a key.
OPEN_PATHS = re.compile(r"/v1/health|/openapi\.json|/docs(/[^/]+)?")

# MinimumCompressionSize in template.yaml; CloudFront's limit is similar, 1,000 bytes.
MIN_COMPRESSED_BYTES = 1024

TIMEOUT_MS = 29_000

# Lambda's limit for an event: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_EVENT_BYTES = 6 * 1024 * 1024

# The number of requests whose whole bodies are in memory. Others wait after this many bytes, with the rest of their
# bodies in the buffers of the server and the system, so that bodies which do not arrive do not block them.
MAX_BODIES = 8
FIRST_BYTES = 64 * 1024

# The time for a body to arrive, and the time without any byte of it, in seconds.
BODY_SECONDS = 60.0
SILENT_SECONDS = 5.0

# The number of gzip streams, one after the other, in a body. Files of several have one for each 64 kB or so.
_MAX_STREAMS = 1000
_PIECE_BYTES = 4096

# Seconds after which a client that has closed its side of the connection is known to be gone.
_PROBE_SECONDS = 0.1

# The value of Content-Encoding, and the window of zlib that decompresses it; 32 recognizes gzip and zlib.
_ENCODINGS: Mapping[str, int] = {"gzip": 32 + zlib.MAX_WBITS, "x-gzip": 32 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

# The folder of the draft in the folder of the models. It is hidden, so that it is not a model.
DRAFT = ".draft"
_DRAFT_PATH = re.compile(r"/v1/draft((?:/.*)?)", re.DOTALL)

_PLAIN_TEXT: Mapping[str, str] = {"content-type": "text/plain; charset=utf-8"}


@dataclass(frozen=True)
class LocalContext:
    """The part of Lambda's context object that handlers use."""

    aws_request_id: str
    function_name: str = "litelens-local"
    function_version: str = "$LATEST"
    memory_limit_in_mb: int = 1769
    invoked_function_arn: str = "arn:aws:lambda:local:000000000000:function:litelens-local"

    def get_remaining_time_in_millis(self) -> int:
        return TIMEOUT_MS


class Connection(H11Protocol):
    """A connection that ends if it is idle, from its first byte on, and of which only the client's side may be closed.

    Uvicorn drops the request of a client that has closed its side, which programs do at the end of a request.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._client_has_ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._end_if_idle()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_answering:
            self._end_if_idle()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for the answer, if a whole request waits for one."""
        if not self._is_answering or self.cycle.more_body:
            return False
        self._client_has_ended = True
        # A client that is gone has closed its side too. This response, which clients skip, tells them apart: the system
        # of a client that is gone refuses it.
        if not self.cycle.response_started and self.cycle.scope["http_version"] == "1.1":
            self.transport.write(
                self.conn.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")) or b""
            )
            self.loop.call_later(_PROBE_SECONDS, self._abort_if_refused)
        return True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._client_has_ended and not self._is_answering:
            self.transport.close()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_if_idle(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _abort_if_refused(self) -> None:
        if not self.transport.is_closing() and self.transport.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_ERROR
        ):
            self.transport.abort()


class Gateway:
    """An ASGI application that serves the page's files, and passes all other requests to a Lambda handler.

    Without an `api_key`, no key is required. Pages of `cors_origin` can read API Gateway's own errors. `log` receives
    each request, except those for the page's files, and successful ones that only read the draft, as its page does
    again and again.
    """

    def __init__(
        self,
        handler: Handler,
        api_key: str | None,
        cors_origin: str | None,
        page: Path,
        create_teaching: Callable[[], "Teaching"] | None = None,
        log: Log | None = None,
    ) -> None:
        self._handler = handler
        self._create_teaching = create_teaching
        self._log = log
        # Headers are bytes, and the key need not be ASCII.
        self._api_key = os.fsencode(api_key) if api_key is not None else None
        self._cors_origin = cors_origin
        self._page = PageFiles(page)
        self._thread = ThreadPoolExecutor(max_workers=1)
        # One thread, so that the draft is created once.
        self._creation = ThreadPoolExecutor(max_workers=1)
        self._bodies = asyncio.Semaphore(MAX_BODIES)
        self._turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = self._find_file(request) or await self._logged(request)
        if response:
            await response(scope, receive, send)

    async def _logged(self, request: Request) -> Response | None:
        """Return the API's response, or None if the client is gone; log the request."""
        started, response = time.perf_counter(), None
        with contextlib.suppress(ClientDisconnect):
            response = await self._call_api(request)
        if self._log and not (response and _is_reading_draft(request, response)):
            path = request.scope["path"]
            self._log(Logged(request.method, path, response, time.perf_counter() - started))
        return response

    def _find_file(self, request: Request) -> Response | None:
        file = self._page.find(request.scope["path"]) if request.method in ("GET", "HEAD") else None
        return _file_response(request, file) if file else None

    async def _call_api(self, request: Request) -> Response:
        request_id = str(uuid.uuid4())
        try:
            self._authorize(request)
            if self._create_teaching and (found := _DRAFT_PATH.fullmatch(request.scope["path"])):
                with _internal_errors():
                    loop = asyncio.get_running_loop()
                    teaching = await loop.run_in_executor(self._creation, self._create_teaching)
                    return await teaching.respond(request, found[1], functools.partial(read_body, request), request_id)
            try:
                return await self._receive(request, request_id)
            except TimeoutError:
                return _too_late()
        except ReportedError as error:
            return self._problem(error, request_id)

    async def _receive(self, request: Request, request_id: str) -> Response:
        """Read the body and return the handler's response; raises ReportedError, ClientDisconnect or TimeoutError.

        Few requests at a time have more of their bodies in memory than the first bytes.
        """
        body, chunks = bytearray(), request.stream()
        await _read_more(chunks, body, FIRST_BYTES)
        async with self._bodies if body else contextlib.nullcontext():
            await _read_more(chunks, body, MAX_PAYLOAD_BYTES)
            if len(body) > MAX_PAYLOAD_BYTES:
                return _too_long()
            try:
                content = _decoded(bytes(body), request.headers.get("content-encoding", ""))
            except RequestTooLarge:
                return _too_long()
            return _to_response(await self._invoke(request, content, request_id))

    def _authorize(self, request: Request) -> None:
        if request.method not in METHODS:
            raise Forbidden("API Gateway has no such path or method.")
        if self._api_key is None or _is_open(request):
            return
        if (b"x-api-key", self._api_key) not in request.headers.raw:
            raise Forbidden("Send a valid API key in the header x-api-key.")

    async def _invoke(self, request: Request, body: bytes, request_id: str) -> dict[str, Any]:
        """Invoke the handler when it is this request's turn; raises ClientDisconnect if nobody waits for the answer."""
        # The server notices that a client is gone only while it reads from the connection, which this call resumes.
        await request.is_disconnected()
        async with self._turn:
            if await request.is_disconnected():
                raise ClientDisconnect
            with _internal_errors():
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._handle, request, body, request_id)

    def _handle(self, request: Request, body: bytes, request_id: str) -> dict[str, Any]:
        event = to_event(request, body, request_id)
        if _event_size(event) > MAX_EVENT_BYTES:
            raise RequestTooLarge(
                "A request can have 6 MB with the image in base64; for a larger image, use POST /v1/uploads."
            )
        return self._handler(event, LocalContext(request_id))

    def _problem(self, error: ReportedError, request_id: str) -> Response:
        """Return an error in the form that template.yaml defines for API Gateway."""
        answer = problem_response(error, request_id)
        headers = {name: str(text) for name, text in answer.headers.items()}
        response = Response(answer.body, answer.status_code, headers, answer.content_type)
        response.headers["x-request-id"] = request_id
        if self._cors_origin:
            response.headers["access-control-allow-origin"] = self._cors_origin
        return response


def create_app(
    handler: Handler,
    api_key: str | None = None,
    cors_origin: str | None = None,
    draft: Path | None = None,
    log: Log | None = None,
) -> ASGIApp:
    """Return an ASGI application with the page and with the API that this Lambda handler implements.

    With a `draft`, the folder of one, it also has the routes for teaching a model, which a deployed API does not have.
    `log` receives the requests, as in Gateway.
    """
    create_teaching = functools.cache(lambda: _teaching(draft)) if draft else None
    gateway = Gateway(handler, api_key, cors_origin, page_folder(), create_teaching, log)
    return GZipMiddleware(gateway, minimum_size=MIN_COMPRESSED_BYTES)


def _teaching(draft: Path) -> "Teaching":
    # Imported with the first request for the draft, because it takes as long as the rest of the start.
    from litelens_client.learning.draft import Draft
    from litelens_client.teaching import Teaching

    return Teaching(Draft(draft, bundle_folder(DEFAULT_MODEL), draft.parent))


def to_event(request: Request, body: bytes, request_id: str) -> dict[str, Any]:
    """Convert a request into API Gateway's REST proxy event; bodies of binary types are in base64."""
    scope = request.scope
    headers = _group(request.headers.items())
    query = _group(request.query_params.multi_items())
    # A client that has reset the connection has no address any more.
    address, _ = scope.get("client") or ("127.0.0.1", 0)
    media_type = headers.get("content-type", [""])[-1].partition(";")[0].strip().lower()
    is_binary = bool(body) and media_type in BINARY_TYPES
    return {
        "resource": "/{proxy+}",
        "path": scope["path"],
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
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
            "httpMethod": request.method,
            "protocol": f"HTTP/{scope['http_version']}",
            "requestTimeEpoch": int(time.time() * 1000),
            "identity": {"sourceIp": address, "userAgent": headers.get("user-agent", [None])[-1]},
        },
        "body": (base64.b64encode(body).decode() if is_binary else body.decode(errors="replace")) or None,
        "isBase64Encoded": is_binary,
    }


@contextlib.contextmanager
def _internal_errors() -> Iterator[None]:
    """Turn unexpected errors into InternalError, and log them."""
    try:
        yield
    except (ReportedError, ClientDisconnect):
        raise
    except Exception as error:
        logging.exception("the handler raised")
        raise InternalError("The request could not be completed; you can send it again.") from error


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this port of 127.0.0.1; ends the process if the port cannot be used."""
    listener = socket.socket()
    if os.name == "posix":
        # On Windows, this option would allow two processes on one port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        sys.exit(f"Port {port} cannot be used ({reason}); choose another one with --port, or with make run PORT=8081.")
    return listener


def run(arguments: Namespace) -> int:
    """Run the command until Ctrl-C and return its exit code; ends the process if the bundle cannot be served."""
    os.environ["LITELENS_BUNDLE"] = str(bundle_folder(arguments.model))
    os.environ["LITELENS_MODELS"] = str(models_folder())
    # The metrics are for CloudWatch; without it, they would only be printed.
    os.environ.setdefault("POWERTOOLS_METRICS_DISABLED", "true")
    with listen(arguments.port) as listener:
        try:
            # Imported here, because the import loads the bundle that the environment names.
            handler = importlib.import_module("litelens.api.handler").handler
        except (LitelensError, SettingsError) as error:
            sys.exit(str(error))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(_greeting(url, wants_key=arguments.api_key is not None), flush=True)
        log = None if arguments.log_json else RequestLog().write
        if log:
            replace_json_lines()
        app = create_app(handler, arguments.api_key, read_settings().cors_origin, models_folder() / DRAFT, log)
        config = uvicorn.Config(app, http=Connection, lifespan="off", log_level="warning", server_header=False)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    return 0


def _greeting(url: str, *, wants_key: bool) -> str:
    """Return what to try first; the key itself is not printed, because output can be recorded."""
    sample, here = page_folder() / "samples" / "cat.jpg", Path.cwd()
    path = shlex.quote(str(sample.relative_to(here) if sample.is_relative_to(here) else sample))
    hint, header = (", with the API key in KEY", '-H "x-api-key: $KEY" ') if wants_key else ("", "")
    return f"""\
litelens is listening on {url} (Ctrl-C stops it). Open the page there and drop a photo on it, or try{hint}:

  curl {header}-H 'Content-Type: image/jpeg' --data-binary @{path} {url}/v1/classify
"""


def _group(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped


async def read_body(request: Request, max_bytes: int, advice: str) -> bytes:
    """Read the body; raises RequestTooLarge, with advice, as soon as it exceeds the limit, or ClientDisconnect."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise RequestTooLarge(f"This path accepts at most {max_bytes:,} bytes; {advice}.")
    return bytes(body)


async def _read_more(chunks: AsyncIterator[bytes], body: bytearray, enough: int) -> None:
    """Add chunks to the body until it has more than `enough` bytes, or ends.

    Raises ClientDisconnect, or TimeoutError if the chunks do not arrive in time.
    """
    async with asyncio.timeout(BODY_SECONDS):
        while len(body) <= enough:
            async with asyncio.timeout(SILENT_SECONDS):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            body += chunk


def _decoded(body: bytes, content_encoding: str) -> bytes:
    """Return the body without this Content-Encoding, which does not matter if there is no body.

    Raises RequestTooLarge or UnsupportedMediaType.
    """
    encoding = content_encoding.strip().lower()
    return body if not body or encoding in ("", "identity") else decompress(body, encoding)


def decompress(body: bytes, encoding: str) -> bytes:
    """Decompress a body as API Gateway does; raises RequestTooLarge, or UnsupportedMediaType if that is not possible.

    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-make-request-with-compressed-payload.html
    """
    if encoding not in _ENCODINGS:
        raise UnsupportedMediaType("The header Content-Encoding must be gzip, deflate or identity.")
    most = 1 if encoding == "deflate" else _MAX_STREAMS
    # RFC 9110 means zlib by deflate, but some programs send the bare stream.
    for window in (_ENCODINGS[encoding], -zlib.MAX_WBITS) if encoding == "deflate" else (_ENCODINGS[encoding],):
        with contextlib.suppress(zlib.error, EOFError):
            return _decompress_streams(body, window, most)
    raise UnsupportedMediaType(f"The body is not compressed with {encoding}, as the header Content-Encoding says.")


def _decompress_streams(body: bytes, window: int, most: int) -> bytes:
    """Decompress up to `most` streams, of which a body of gzip can have several, as `cat a.gz b.gz` writes them.

    Raises RequestTooLarge, zlib.error, or EOFError if the last stream is incomplete or others follow.
    """
    content, rest = bytearray(), memoryview(body)
    for _ in range(most):
        stream = zlib.decompressobj(window)
        # In pieces, because the bytes after the stream are copied.
        while not stream.eof:
            if not rest:
                raise EOFError
            content += stream.decompress(rest[:_PIECE_BYTES], MAX_PAYLOAD_BYTES + 1 - len(content))
            if len(content) > MAX_PAYLOAD_BYTES:
                raise RequestTooLarge(f"The body has more than {MAX_PAYLOAD_BYTES:,} bytes when it is decompressed.")
            used = min(len(rest), _PIECE_BYTES) - len(stream.unused_data)
            rest = rest[used:]
        if not rest:
            return bytes(content)
    raise EOFError


def _event_size(event: Mapping[str, Any]) -> int:
    """Return the number of bytes of an event as JSON, without encoding a body in base64 once more."""
    if event["isBase64Encoded"]:
        return len(event["body"]) + len(msgspec.json.encode({**event, "body": ""}))
    return len(msgspec.json.encode(event))


def _too_long() -> Response:
    """Return API Gateway's own response to a body of more than 10 MB."""
    return Response("HTTP content length exceeded 10485760 bytes.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _PLAIN_TEXT)


def _too_late() -> Response:
    headers = {**_PLAIN_TEXT, "connection": "close"}
    return Response("The body did not arrive in time.", HTTPStatus.REQUEST_TIMEOUT, headers)


def _to_response(result: Mapping[str, Any]) -> Response:
    """Return the HTTP response for a handler's result."""
    body = result.get("body") or ""
    content = base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()
    joined = {name: ", ".join(values) for name, values in (result.get("multiValueHeaders") or {}).items()}
    return Response(content, result["statusCode"], {**(result.get("headers") or {}), **joined})


def _file_response(request: Request, file: PageFile) -> Response:
    """Return the response with a file of the page; without its content, if the client has it already."""
    tag = f'"{hashlib.sha256(file.content).hexdigest()}"'
    headers = {**PAGE_HEADERS, "cache-control": file.cache_control, "etag": tag}
    if _has_tag(request, tag):
        return Response(None, HTTPStatus.NOT_MODIFIED, headers)
    return Response(file.content, headers={**headers, "content-type": file.media_type})


def _has_tag(request: Request, tag: str) -> bool:
    """Return whether the client already has the content with this ETag."""
    known = request.headers.get("if-none-match", "").split(",")
    return any(each.strip().removeprefix("W/") in ("*", tag) for each in known)


def _is_reading_draft(request: Request, response: Response) -> bool:
    """Return whether a request for the draft was successful and changed nothing."""
    is_draft = _DRAFT_PATH.fullmatch(request.scope["path"]) is not None
    return is_draft and request.method == "GET" and response.status_code < HTTPStatus.BAD_REQUEST


def _is_open(request: Request) -> bool:
    """Return whether template.yaml serves this route without a key."""
    if request.method == "OPTIONS":
        return True
    return request.method == "GET" and OPEN_PATHS.fullmatch(request.scope["path"]) is not None
