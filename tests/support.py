"""Helpers for all tests: paths, events, images, servers, and skipping tests whose tools are missing."""

import base64
import copy
import json
import os
import re
import shlex
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

# These imports define the errors that reported_errors() returns.
import litelens.api.problems
import litelens.aws.errors  # noqa: F401
from litelens.core.errors import ReportedError
from litelens.settings import DEFAULT_MODEL

ROOT = Path(__file__).parent.parent
# The default bundle, and the other bundled one, which has 100 labels and a measured accuracy.
DEFAULT_BUNDLE = ROOT / "models" / DEFAULT_MODEL
CIFAR_BUNDLE = ROOT / "models" / "cifar100-resnet50"
EVENTS = ROOT / "tests" / "events"
ROCKET = ROOT / "tests" / "images" / "rocket.jpg"
SAMPLES = ROOT / "web" / "samples"
CAT = SAMPLES / "cat.jpg"
# All pages of documentation.
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
DATA = Path(os.environ.get("LITELENS_DATA", ROOT.parent / "shared" / "data"))


class LambdaContext:
    """The part of Lambda's context object that handlers read."""

    function_name = "litelens-test"
    function_version = "$LATEST"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:litelens-test"
    aws_request_id = "52fdfc07-2182-454f-963f-5f0f9a621d72"

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


def require(present: object, reason: str) -> None:
    """Skip the test with this reason unless something is present; in CI, fail it."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"this must not be missing in CI: {reason}")
    pytest.skip(reason)


def anchors(page: Path) -> set[str]:
    """Return GitHub's anchors of a page's headings: letters, digits, - and _ in lower case, a - for each space."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_blocks(page: Path) -> list[str]:
    """Return the shell blocks of a page."""
    return re.findall(r"^ *```sh\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)


def command_lines(program: str) -> list[tuple[str, list[str]]]:
    """Return the calls of a program in all shell blocks: the page's name and the arguments."""
    return [
        (page.name, shlex.split(call[1], comments=True))
        for page in PAGES
        for block in shell_blocks(page)
        for line in block.replace("\\\n", " ").splitlines()
        if (call := re.search(rf"(?:^|/){program} ([^|>]*)", line.strip()))
    ]


def recorded_event(name: str) -> dict[str, Any]:
    """Return a recorded API Gateway event from tests/events."""
    return json.loads((EVENTS / f"{name}.json").read_text())


def event(
    method: str,
    path: str,
    body: bytes | str | None = None,
    content_type: str | None = None,
    query: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return an API Gateway event like the recorded ones: bytes are sent as base64, text as it is."""
    made = copy.deepcopy(recorded_event("health"))
    made |= {"httpMethod": method, "path": path, "queryStringParameters": query}
    made["multiValueQueryStringParameters"] = {name: [value] for name, value in query.items()} if query else None
    if content_type is not None:
        made["headers"]["Content-Type"] = content_type
        made["multiValueHeaders"]["Content-Type"] = [content_type]
    made["isBase64Encoded"] = isinstance(body, bytes)
    made["body"] = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    return made


def classify_bytes(image: bytes, content_type: str = "image/jpeg", **query: str) -> dict[str, Any]:
    return event("POST", "/v1/classify", image, content_type, query or None)


def classify_json(document: Any) -> dict[str, Any]:
    text = document if isinstance(document, str) else json.dumps(document)
    return event("POST", "/v1/classify", text, "application/json")


def answer_of(response: dict[str, Any]) -> Any:
    """Return the JSON in a handler's response."""
    return json.loads(response["body"])


def content_type_of(response: dict[str, Any]) -> str:
    return response["multiValueHeaders"]["Content-Type"][0]


def reported_errors() -> list[type[ReportedError]]:
    """Return the errors that a client of a deployed API can receive, one class for each code."""
    classes: list[type[ReportedError]] = [ReportedError]
    for each in classes:
        classes += each.__subclasses__()
    return [each for each in classes if "code" in vars(each) and each.__module__.startswith("litelens.")]


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Encode an image as a file."""
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], *, ready: str, within: float = 60, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends, starting when the URL `ready` accepts connections.

    Its child processes are killed too.
    """
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            _wait_for(ready, process, within)
            yield process
        finally:
            _end(process)


def post_json(url: str, document: Any, timeout: float = 60) -> Any:
    request = urllib.request.Request(url, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return json.load(response)


def _wait_for(url: str, process: subprocess.Popen[bytes], within: float) -> None:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"{process.args} exited with {process.returncode} before it answered")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"{process.args} did not listen on {url} within {within} seconds")


def _end(process: subprocess.Popen[bytes]) -> None:
    import signal

    for sign in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(timeout=20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
