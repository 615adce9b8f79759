"""A fake of Lambda and CodeDeploy over HTTP, with a handler as the version under test and one waiting deployment.

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

from aws import AWS_TEXT, aws_server
from support import LambdaContext

VERSION = "arn:aws:lambda:us-east-1:123456789012:function:litelens-api:7"


@dataclass(frozen=True)
class Reply:
    """An HTTP response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Respond = Callable[[Any], Reply]


@dataclass
class Release:
    """The events that the version received, and the reports that CodeDeploy received."""

    events: list[Any] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The status in the only report; it must be about this deployment's hook."""
        (report,) = self.reports
        assert (report["deploymentId"], report["lifecycleEventHookExecutionId"]) == ("d-7", "hook-7")
        return str(report["status"])


def running(handle: Callable[..., Any]) -> Respond:
    """A version that runs this handler. Its exceptions become Lambda's function errors."""

    def respond(event: Any) -> Reply:
        try:
            return Reply(200, json.dumps(handle(event, LambdaContext())).encode())
        except Exception as error:
            document = {
                "errorMessage": str(error),
                "errorType": type(error).__name__,
                "stackTrace": traceback.format_exc(),
            }
            return Reply(200, json.dumps(document).encode(), {"X-Amz-Function-Error": "Unhandled"})

    return respond


def refusing(status: int, code: str) -> Respond:
    """A version that Lambda refuses to invoke."""
    document = {"Type": "User", "Message": AWS_TEXT}
    return lambda _: Reply(status, json.dumps(document).encode(), {"X-Amzn-ErrorType": code})


def codedeploy_error(code: str) -> Reply:
    return Reply(400, json.dumps({"__type": code, "message": AWS_TEXT}).encode())


@contextmanager
def release_of(respond: Respond, *refusals: Reply) -> Iterator[Release]:
    """Serve the version, and a CodeDeploy that first gives these refusals and then accepts reports."""
    release, left = Release(), list(refusals)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "X-Amz-Target" in self.headers:
                self.answer(self.accept_report(body))
            else:
                assert unquote(self.path) == f"/2015-03-31/functions/{VERSION}/invocations"
                release.events.append(body)
                self.answer(respond(body))

        def accept_report(self, report: dict[str, Any]) -> Reply:
            assert self.headers["X-Amz-Target"] == "CodeDeploy_20141006.PutLifecycleEventHookExecutionStatus"
            if left:
                return left.pop(0)
            release.reports.append(report)
            return Reply(200, b'{"lifecycleEventHookExecutionId": "hook-7"}')

        def answer(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            """Print no requests."""

    with aws_server(Handler):
        yield release
