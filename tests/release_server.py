"""Lambda and CodeDeploy for boto3, over real HTTP: a version that is a handler here, and a deployment that waits.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_PutLifecycleEventHookExecutionStatus.html
"""

import json
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from aws import AWS_TEXT, aws_answering
from support import LambdaContext

VERSION = "arn:aws:lambda:us-east-1:123456789012:function:litelens-api:7"


@dataclass(frozen=True)
class Reply:
    """An answer over HTTP."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Any], Reply]


@dataclass
class Release:
    """What the version was sent, and what CodeDeploy was told."""

    events: list[Any] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        """What CodeDeploy was told, once, of this deployment's hook."""
        (told,) = self.told
        assert (told["deploymentId"], told["lifecycleEventHookExecutionId"]) == ("d-7", "hook-7")
        return str(told["status"])


def running(handle: Callable[..., Any]) -> Respond:
    """A version that runs this handler, whose errors are Lambda's function errors."""

    def respond(event: Any) -> Reply:
        try:
            return Reply(200, json.dumps(handle(event, LambdaContext())).encode())
        except Exception as error:
            said = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": traceback.format_exc()}
            return Reply(200, json.dumps(said).encode(), {"X-Amz-Function-Error": "Unhandled"})

    return respond


def refusing(status: int, code: str) -> Respond:
    """What Lambda says when it does not invoke the version."""
    document = {"Type": "User", "Message": AWS_TEXT}
    return lambda _: Reply(status, json.dumps(document).encode(), {"X-Amzn-ErrorType": code})


def codedeploy_error(code: str) -> Reply:
    return Reply(400, json.dumps({"__type": code, "message": AWS_TEXT}).encode())


@contextmanager
def release_of(respond: Respond, *refusals: Reply) -> Iterator[Release]:
    """The version, and a CodeDeploy that gives these refusals before it takes what it is told."""
    release, left = Release(), list(refusals)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "X-Amz-Target" in self.headers:
                self.answer(self.hear(body))
            else:
                assert unquote(self.path) == f"/2015-03-31/functions/{VERSION}/invocations"
                release.events.append(body)
                self.answer(respond(body))

        def hear(self, told: dict[str, Any]) -> Reply:
            assert self.headers["X-Amz-Target"] == "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus"
            if left:
                return left.pop(0)
            release.told.append(told)
            return Reply(200, b'{"lifecycleEventHookExecutionId": "hook-7"}')

        def answer(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            """Tests print no requests."""

    with aws_answering(Handler):
        yield release
