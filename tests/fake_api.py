"""A fake of the API over HTTP, which sends scripted responses."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from litelens.api.requests import FORM_TYPE, parse_form
from litelens.settings import MAX_IMAGES

MODEL = {"name": "pets", "version": "1.0.0"}


@dataclass(frozen=True)
class Request:
    """A request as received; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


# None closes the connection without sending a byte.
Respond = Callable[[Request], Response | None]


@contextmanager
def api_server(respond: Respond) -> Iterator[tuple[str, list[Request]]]:
    """Run the server until the block ends; yields its URL and the list of its requests."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            requests.append(Request(self.command, self.path, headers, body))
            response = respond(requests[-1])
            if response is None:
                self.close_connection = True
                return
            self.send_response(response.status)
            for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(response.body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Ignore clients that hang up, as some tests do."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


def in_turn(*responses: Response | None) -> Respond:
    """These responses in turn, repeating the last one."""
    left = list(responses)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def sent(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, json.dumps(document).encode(), {"Content-Type": "application/json", **(headers or {})})


def images_of(request: Request) -> list[bytes]:
    """Return the images in a request, which are a form's parts or the body."""
    content_type = request.headers["content-type"]
    if not content_type.startswith(FORM_TYPE):
        return [request.body]
    return list(parse_form(request.body, content_type, images=MAX_IMAGES, fields=()).images)


def each_image(result_of: Callable[[bytes], dict[str, Any]]) -> Callable[[Request], Response]:
    """Answer requests with one image or several; `result_of` returns an image's result, as in a list."""

    def respond(request: Request) -> Response:
        results = [result_of(image) for image in images_of(request)]
        if len(results) > 1:
            return sent({"model": MODEL, "results": results, "request_id": "request-1"})
        (result,) = results
        if result["status"] == "failed":
            return sent(result["problem"], result["problem"]["status"])
        return sent({"model": MODEL, **result, "request_id": "request-1"})

    return respond


def failed(status: int, code: str) -> dict[str, Any]:
    """Return the result of an image that failed, as in a list."""
    return {"status": "failed", "problem": problem(status, code)}


def labelled(*labels: str, confidence: float = 0.9) -> Response:
    """A response to a classification with these labels, the first with this confidence."""
    return sent({"model": MODEL, **classification(*labels, confidence=confidence), "request_id": "request-1"})


def classification(*labels: str, confidence: float = 0.9) -> dict[str, Any]:
    return {
        "image": {"format": "JPEG", "width": 640, "height": 427},
        "predictions": [
            {"label": label, "index": index, "confidence": confidence / (index + 1)}
            for index, label in enumerate(labels)
        ],
        "uncertain": False,
        "timing_ms": {"decode": 1, "inference": 2, "total": 3},
    }


def problem(status: int, code: str, detail: str = "It cannot be done.") -> dict[str, Any]:
    """A problem document of the API."""
    kind = f"urn:litelens:problem:{code}"
    return {"type": kind, "title": code, "status": status, "detail": detail, "code": code, "request_id": "request-1"}


def refused(status: int, code: str, detail: str = "It cannot be done.", **headers: str) -> Response:
    return sent(problem(status, code, detail), status, headers)
