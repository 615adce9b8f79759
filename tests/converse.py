"""A fake of Amazon Bedrock's Converse API over HTTP, which sends scripted replies."""

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

# Longer than any test waits. The server then hangs up, and the test fails.
_HANGING_SECONDS = 30


@dataclass(frozen=True)
class Reply:
    """A reply. Without a status, nothing is sent and the connection stays open."""

    status: int | None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Received:
    """A request as received."""

    path: str
    headers: dict[str, str]
    document: Any


def answer(*texts: str, stop_reason: str = "end_turn", input_tokens: int = 900, output_tokens: int = 7) -> Reply:
    """A message with these texts, one block each."""
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
    """The canned message of a guardrail or a content filter."""
    return answer("Sorry, the canned message.", stop_reason=stop_reason)


def sent(document: Any) -> Reply:
    """A reply with this JSON document."""
    return Reply(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


def failure(code: str, about: str = "") -> Reply:
    """One of Bedrock's exceptions. Like AWS's, its text names an account."""
    text = f"{AWS_TEXT}: arn:aws:iam::{ACCOUNT}:role/litelens may not do this: {about}"
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": f"{code}:http://internal.amazon.com/coral/"}
    return Reply(STATUS[code], json.dumps({"message": text}).encode(), headers)


MALFORMED = Reply(200, b'{"output": {"message"', {"Content-Type": "application/json"})
HANGS = Reply(None)


class ConverseServer:
    """Records every request and sends scripted replies, repeating the last one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Received] = []
        self._script: list[Reply] = [answer("A rocket beside its tower.")]
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that point boto3 at this server."""
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
    """Run the server until the block ends."""
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
