"""AWS for tests: boto3 pointed at a local server, servers with scripted responses, and a clock that only pauses
advance.

Endpoints are IP addresses, so that boto3 puts the bucket into the path and not into the host name.
"""

import itertools
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import pytest

from local.aws import client_at

REGION = "us-east-1"

# Credentials of an account that does not exist, and nothing from the user's own configuration.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_SESSION_TOKEN": "token-of-the-tests",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}

# The text of every error that these servers send. Tests check that it reaches no client and no log.
AWS_TEXT = "text-that-aws-supplied"

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def aws_at(url: str) -> Iterator[None]:
    """Point boto3 and litelens' cached clients at this server until the block ends."""
    from litelens.aws.clients import aws_client

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        aws_client.cache_clear()
        try:
            yield
        finally:
            aws_client.cache_clear()


def aws_client_of_tests(service: str) -> Any:
    """Return a client with boto3's default timeouts for the server that boto3 is pointed at.

    litelens' own clients wait two seconds only, and on a busy machine moto's first response may take longer.
    """
    return client_at(os.environ["AWS_ENDPOINT_URL"], service)


def new_bucket() -> str:
    """Create a bucket for one test and return its name."""
    name = f"bucket-{uuid.uuid4()}"
    aws_client_of_tests("s3").create_bucket(Bucket=name)
    return name


@contextmanager
def aws_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    """Point boto3 at a server with this handler until the block ends; does not wait for unanswered requests."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with aws_at(f"http://127.0.0.1:{server.server_port}"):
                yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def scripted_aws(*answers: Answer) -> Iterator[list[str]]:
    """Point boto3 at a server that sends these responses, repeating the last one; yields the list of its requests."""
    requests: list[str] = []
    given = itertools.chain(answers, itertools.repeat(answers[-1]))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            # Clients that time out close the connection.
            with suppress(ConnectionError):
                super().handle()

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append(f"{self.command} {self.path}")
            next(given)(self)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with aws_server(Handler):
        yield requests


def ok(body: bytes) -> Answer:
    return lambda handler: _send(handler, 200, body)


def s3_error(status: int, code: str) -> Answer:
    """Respond with S3's XML error document and this code."""
    document = f"<Error><Code>{code}</Code><Message>{AWS_TEXT}</Message><HostId>{AWS_TEXT}</HostId></Error>"
    return lambda handler: _send(handler, status, document.encode())


def region_redirect(handler: BaseHTTPRequestHandler) -> None:
    """Respond with S3's redirect to the bucket's region. boto3 follows it, here to the same server."""
    document = b"<Error><Code>PermanentRedirect</Code></Error>"
    _send(handler, 301, document, headers={"x-amz-bucket-region": "eu-west-1"})


def dynamodb_error(code: str) -> Answer:
    """Respond with DynamoDB's JSON error document and this code."""
    document = f'{{"__type": "com.amazonaws.dynamodb.v20120810#{code}", "message": "{AWS_TEXT}"}}'
    return lambda handler: _send(handler, 400, document.encode())


def wrong_length(length: int, body: bytes) -> Answer:
    """Send a body with a wrong Content-Length, then close the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _send(handler, 200, body, length)
        handler.close_connection = True

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without sending a byte."""
    handler.close_connection = True


def no_response(handler: BaseHTTPRequestHandler) -> None:
    """Send nothing until the client closes the connection."""
    handler.rfile.read(1)
    handler.close_connection = True


def slow_body(body: bytes, pause: float) -> Answer:
    """Send a body one byte at a time, with a pause before each, until the client closes the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _send(handler, 200, b"", len(body))
        for byte in body:
            time.sleep(pause)
            handler.wfile.write(bytes([byte]))

    return answer


@dataclass
class Clock:
    """A replacement for the module `time`: sleeping only advances the clock and is recorded."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def fake_clock(patch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of deadlines and retries with one that only their pauses advance."""
    clock = Clock()
    patch.setattr("litelens.aws.clients.time", clock)
    return clock


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    length: int | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
