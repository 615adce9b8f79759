"""S3 for tests: moto's server, a server that fails as it is told to, and a clock that no test has to wait for.

Endpoints are IP addresses, for which boto3 puts the bucket into the path; with a name it would go before the name.
"""

import itertools
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

REGION = "us-east-1"

# Of an account that does not exist, and with nothing from whoever runs the tests.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_SESSION_TOKEN": "token-of-the-tests",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}

# In every error that the failing server sends, to be looked for where it must not be.
AWS_TEXT = "text-that-aws-supplied"

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def aws_at(url: str) -> Iterator[None]:
    """boto3, and the clients that the adapters keep, speak to this server."""
    from adapters.calls import aws_client

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        aws_client.cache_clear()
        try:
            yield
        finally:
            aws_client.cache_clear()


def new_bucket() -> str:
    """The name of a bucket made for one test."""
    from adapters.objects import s3_client

    name = f"bucket-{uuid.uuid4()}"
    s3_client().create_bucket(Bucket=name)
    return name


@contextmanager
def aws_answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[None]:
    """AWS is where this handler answers, until the block ends; what it has not answered then is not waited for."""
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
def failing_aws(*answers: Answer) -> Iterator[list[str]]:
    """An AWS that gives these answers, the last one again and again; yields the requests as it gets them."""
    requests: list[str] = []
    given = itertools.chain(answers, itertools.repeat(answers[-1]))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            # Clients that have waited long enough hang up.
            with suppress(ConnectionError):
                super().handle()

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append(f"{self.command} {self.path}")
            next(given)(self)

        do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with aws_answering(Handler):
        yield requests


def found(body: bytes) -> Answer:
    return lambda handler: _send(handler, 200, body)


def error(status: int, code: str) -> Answer:
    """S3's XML for this code."""
    document = f"<Error><Code>{code}</Code><Message>{AWS_TEXT}</Message><HostId>{AWS_TEXT}</HostId></Error>"
    return lambda handler: _send(handler, status, document.encode())


def in_another_region(handler: BaseHTTPRequestHandler) -> None:
    """What S3 says where the bucket is not: boto3 follows, and here arrives at the same place."""
    document = b"<Error><Code>PermanentRedirect</Code></Error>"
    _send(handler, 301, document, headers={"x-amz-bucket-region": "eu-west-1"})


def json_error(code: str) -> Answer:
    """DynamoDB's JSON for this code."""
    document = f'{{"__type": "com.amazonaws.dynamodb.v20120810#{code}", "message": "{AWS_TEXT}"}}'
    return lambda handler: _send(handler, 400, document.encode())


def announced(length: int, body: bytes) -> Answer:
    """A body after which the connection ends, though another length was announced."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _send(handler, 200, body, length)
        handler.close_connection = True

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Not a byte, and the connection ends."""
    handler.close_connection = True


def say_nothing(handler: BaseHTTPRequestHandler) -> None:
    """Not a byte, until the client hangs up."""
    handler.rfile.read(1)
    handler.close_connection = True


def drip(body: bytes, pause: float) -> Answer:
    """A body of which one byte comes after each pause, until the client hangs up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        _send(handler, 200, b"", len(body))
        for byte in body:
            time.sleep(pause)
            handler.wfile.write(bytes([byte]))

    return answer


@dataclass
class Clock:
    """Stands in for the module `time`: sleeping takes no time, but is told."""

    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def still_clock(patch: pytest.MonkeyPatch) -> Clock:
    """The clock of deadlines and retries from now on, which goes on only by their pauses."""
    clock = Clock()
    patch.setattr("adapters.deadline.time", clock)
    patch.setattr("adapters.retries.time", clock)
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
