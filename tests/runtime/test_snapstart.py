"""The handler in Lambda's runtime client, with a fake Runtime API that restores it from a snapshot and invokes it.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support import DEFAULT_BUNDLE, ROOT, answer_of, recorded_event

_SECONDS = 120


class RuntimeApi:
    """The requests of a runtime to Lambda, in order, and its answer to one event."""

    def __init__(self, event: Any) -> None:
        self.requests: list[str] = []
        self.answers: queue.Queue[Any] = queue.Queue()
        self.event = event
        self.ended = threading.Event()

    @contextmanager
    def serving(self) -> Iterator[str]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.requests.append(self.path.rpartition("/runtime/")[2])
                if api.requests.count("invocation/next") > 1:
                    api.ended.wait(_SECONDS)
                body = json.dumps(api.event).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Lambda-Runtime-Aws-Request-Id", "1")
                self.send_header("Content-Type", "application/json")
                self.send_header("Lambda-Runtime-Trace-Id", "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700")
                self.send_header("Lambda-Runtime-Deadline-Ms", "4102444800000")
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:function:litelens")
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                api.requests.append(self.path.rpartition("/runtime/")[2])
                api.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Print no requests."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield f"127.0.0.1:{server.server_port}"
            finally:
                self.ended.set()
                server.shutdown()


def test_a_function_answers_after_a_restore_from_its_snapshot() -> None:
    api = RuntimeApi(recorded_event("classify_jpeg"))
    with api.serving() as address:
        environment = {
            **os.environ,
            "LITELENS_BUNDLE": str(DEFAULT_BUNDLE),
            "PYTHONPATH": "",
            "AWS_LAMBDA_RUNTIME_API": address,
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
        }
        command = [sys.executable, "-m", "awslambdaric", "litelens.api.handler.handler"]
        function = subprocess.Popen(command, cwd=ROOT / "lambda", env=environment)
        try:
            answer = api.answers.get(timeout=_SECONDS)
        finally:
            function.kill()
            function.wait()
    assert answer_of(answer)["predictions"][0]["label"]
    assert api.requests[:3] == ["restore/next", "invocation/next", "invocation/1/response"]
