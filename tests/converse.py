"""A server that speaks the wire format of Amazon Bedrock's Converse API, answering what a test scripts."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aws import AWS_TEXT, ENVIRONMENT

STATUS = {
    "AccessDeniedException": 403,
    "InternalServerException": 500,
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 400,
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "ValidationException": 400,
}
ACCOUNT = "123456789012"

# Far longer than any test waits; a client that waits even so is hung up on, and its test fails.
_HANGING_SECONDS = 30


@dataclass(frozen=True)
class Reply:
    """What is sent back; nothing at all without a status, while the connection stays open."""

    status: int | None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Received:
    """A request as it came over the wire."""

    path: str
    headers: dict[str, str]
    document: Any


def answer(*texts: str, stop_reason: str = "end_turn", input_tokens: int = 900, output_tokens: int = 7) -> Reply:
    """A message of these texts, one block each."""
    return sent(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": text} for text in texts]}},
            "stopReason": stop_reason,
            "usage": {
                "inputTokens": input_tokens,
                "outputTokens": output_tokens,
                "totalTokens": input_tokens + output_tokens,
            },
            "metrics": {"latencyMs": 800},
        }
    )


def refusal(stop_reason: str) -> Reply:
    """A guardrail's or a content filter's canned message."""
    return answer("Sorry, the canned message.", stop_reason=stop_reason)


def sent(document: Any) -> Reply:
    """This JSON as if it were an answer."""
    return Reply(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


def failure(code: str, about: str = "") -> Reply:
    """One of Bedrock's exceptions, whose text names an account, as AWS's does, and what it is about."""
    text = f"{AWS_TEXT}: arn:aws:iam::{ACCOUNT}:role/litelens may not do this: {about}"
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": f"{code}:http://internal.amazon.com/coral/"}
    return Reply(STATUS[code], json.dumps({"message": text}).encode(), headers)


MALFORMED = Reply(200, b'{"output": {"message"', {"Content-Type": "application/json"})
HANGS = Reply(None)


class ConverseServer:
    """Records every request and sends the replies of its script, the last one again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Received] = []
        self._script: list[Reply] = [answer("A rocket beside its tower.")]
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """What makes boto3 in any process ask this server instead of AWS."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": self.url}

    def script(self, *replies: Reply) -> None:
        with self._lock:
            self._script = list(replies)

    def receive(self, request: Received) -> Reply:
        with self._lock:
            self.requests.append(request)
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]


@contextmanager
def converse_server() -> Iterator[ConverseServer]:
    """The server, listening until the block ends."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reply = converse.receive(Received(self.path, dict(self.headers), json.loads(body)))
            if reply.status is None:
                ended.wait(_HANGING_SECONDS)
                return
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        converse = ConverseServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield converse
        finally:
            ended.set()
            server.shutdown()
            thread.join()
