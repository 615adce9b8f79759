"""Count what an invocation of each path uses: calls of AWS, write units, and bytes of logs, requests and answers.

The deployed handlers run with the template's defaults against an AWS that only counts. Counts do not depend on the
speed of the machine or on what else it does.
"""

import base64
import json
import math
import multiprocessing
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.bulk import TEMPLATE_SETTINGS, photo_of, use_aws
from benchmarks.events import Context, backfill_event, binary_request, form_request, queue_event
from benchmarks.report import Options, table
from litelens.settings import MAX_IMAGES

API, API_BATCH, BULK, BACKFILL = "api", "api-batch", "bulk", "backfill"

# Images per invocation; the template sets those of uploads and backfills.
IMAGES = {API: 1, API_BATCH: MAX_IMAGES, **{each.path: each.batch for each in TEMPLATE_SETTINGS}}

# The results table has one index, which has all attributes. DynamoDB writes in units of 1 KB to each of both:
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html
_COPIES, _WRITE_UNIT = 2, 1024

# DynamoDB stores this many more bytes for each item, in the table and in the index.
_ITEM_OVERHEAD = 100

# The lines that Lambda itself logs for an invocation: https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
_REQUEST_ID = "00000000-0000-0000-0000-000000000000"
PLATFORM_LINES = (
    f"START RequestId: {_REQUEST_ID} Version: 12\n",
    f"END RequestId: {_REQUEST_ID}\n",
    f"REPORT RequestId: {_REQUEST_ID}\tDuration: 12.34 ms\tBilled Duration: 13 ms\tMemory Size: 1769 MB\t"
    "Max Memory Used: 100 MB\t\n",
)


@dataclass(frozen=True)
class Usage:
    """The calls, bytes and metrics of one invocation with `images` images.

    `calls` has the number of calls of each AWS operation. `result_log_bytes` are those of the lines for single images
    of a batch; by default, only the API writes them, so `log_bytes` includes them for the API only. `metrics` are the
    names of the custom metrics that get a value. `photo_bytes` is the size of an image as a file, `table_bytes` what
    the results take in the table and its index, `request_bytes` and `answer_bytes` the sizes of the HTTP bodies, or of
    the events of the other paths.
    """

    path: str
    images: int
    calls: Mapping[str, int]
    write_units: int
    table_bytes: int
    log_lines: int
    log_bytes: int
    result_log_bytes: int
    metrics: tuple[str, ...]
    photo_bytes: int
    request_bytes: int
    answer_bytes: int


class _PatientContext(Context):
    """A context with so much time that a busy machine counts the same."""

    def get_remaining_time_in_millis(self) -> int:
        return 3_600_000


@dataclass
class _Counts:
    calls: Counter[str] = field(default_factory=Counter)
    write_units: int = 0
    table_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, operation: str, body: bytes) -> None:
        with self.lock:
            self.calls[operation] += 1
            if operation == "dynamodb:PutItem":
                size = item_bytes(json.loads(body)["Item"])
                self.write_units += _COPIES * math.ceil(size / _WRITE_UNIT)
                self.table_bytes += _COPIES * (size + _ITEM_OVERHEAD)


def count(path: str) -> Usage:
    """Invoke the path's handler twice, in a process of its own, and count the second time, which has a warm start."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_count, path).result()


def item_bytes(item: Mapping[str, Mapping[str, str]]) -> int:
    """Return the size of an item of strings, numbers and bytes, without overhead.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + _value_bytes(*value.items()) for name, value in item.items())


def _value_bytes(typed: tuple[str, str]) -> int:
    kind, value = typed
    if kind == "B":
        return len(value) // 4 * 3 - value.count("=")
    # A number takes a byte for each two digits, and one more.
    return math.ceil(len(value) / 2) + 1 if kind == "N" else len(value.encode())


def _count(path: str) -> Usage:
    setting = {each.path: each for each in TEMPLATE_SETTINGS}[API if path == API_BATCH else path]
    photo = photo_of(setting.megapixels)
    with _counting_aws(photo) as (url, counts), _captured_output() as output:
        _configure(url, path)
        invoke = _invocation(path, photo)
        invoke(0)
        counts.calls.clear()
        counts.write_units = counts.table_bytes = 0
        start = output()[0]
        request, answer = invoke(1)
        _, lines = output(start)
        # The first invocation has a cold start.
        metrics = _metrics(output()[1])
    results = [line for line in lines if json.loads(line).get("message") == "classified" and "_aws" not in line]
    others = [line for line in lines if line not in results]
    logged = [*others, *(results if path in (API, API_BATCH) else []), *PLATFORM_LINES]
    return Usage(
        path,
        IMAGES[path],
        dict(sorted(counts.calls.items())),
        counts.write_units,
        counts.table_bytes,
        len(logged),
        _bytes(logged),
        _bytes(results),
        tuple(sorted(metrics)),
        len(photo),
        request,
        answer,
    )


def _configure(url: str, path: str) -> None:
    use_aws(url)
    os.environ.update(
        POWERTOOLS_SERVICE_NAME="api" if path in (API, API_BATCH) else "bulk",
        POWERTOOLS_METRICS_NAMESPACE="litelens-prod",
        _X_AMZN_TRACE_ID="Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0",
        LITELENS_UPLOAD_BUCKET="uploads",
        LITELENS_RESULTS_TABLE="results",
        LITELENS_LOG_RESULTS="true",
    )


def _invocation(path: str, photo: bytes) -> Callable[[int], tuple[int, int]]:
    """Return a function that invokes the handler with new images and returns the bytes of its request and answer."""
    images = IMAGES[path]
    if path in (API, API_BATCH):
        from litelens.api.handler import handler as api_handler

        def request(_: int) -> tuple[int, int]:
            event = binary_request(photo) if path == API else form_request([photo] * images)
            answer: Any = api_handler(event, _PatientContext())  # type: ignore[arg-type]
            assert answer["statusCode"] == 200, answer
            headers = sum(len(f"{name}: {values[0]}\r\n") for name, values in answer["multiValueHeaders"].items())
            return len(base64.b64decode(event["body"])), headers + len(answer["body"].encode())

        return request
    from litelens.bulk.handler import handler as bulk_handler

    create_event = queue_event if path == BULK else backfill_event

    def process(number: int) -> tuple[int, int]:
        event = create_event(list(range(images * number, images * (number + 1))))
        answer: Any = bulk_handler(event, _PatientContext())  # type: ignore[arg-type]
        if path == BULK:
            assert answer == {"batchItemFailures": []}, answer
        else:
            assert [each["result"]["status"] for each in answer] == ["done"] * images
        return len(json.dumps(event)), len(json.dumps(answer))

    return process


@contextmanager
def _counting_aws(image: bytes) -> Iterator[tuple[str, _Counts]]:
    """Serve an AWS in which every S3 object is this image and every table is empty; yield its URL and its counts."""
    counts = _Counts()

    class Aws(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer("s3:GetObject", image)

        def do_PUT(self) -> None:
            self._answer("s3:PutObject", b"")

        def do_POST(self) -> None:
            service, _, operation = self.headers["X-Amz-Target"].partition(".")
            name = "dynamodb" if service.startswith("DynamoDB") else "events"
            self._answer(f"{name}:{operation}", b'{"FailedEntryCount": 0, "Entries": []}')

        def _answer(self, operation: str, body: bytes) -> None:
            counts.record(operation, self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Aws) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", counts
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _captured_output() -> Iterator[Callable[..., tuple[int, list[str]]]]:
    """Redirect standard output to a file; yield a function that returns the file's size and the lines after a position.

    Metrics and log lines are lines on standard output.
    """
    kept = os.dup(1)
    with tempfile.TemporaryFile("w+b") as file:
        os.dup2(file.fileno(), 1)

        def read(start: int = 0) -> tuple[int, list[str]]:
            sys.stdout.flush()
            size = os.fstat(file.fileno()).st_size
            return size, os.pread(file.fileno(), size - start, start).decode().splitlines(keepends=True)

        try:
            yield read
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)


def _bytes(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) for line in lines)


def _metrics(lines: list[str]) -> set[str]:
    """Return the names of the metrics in lines of CloudWatch's embedded metric format."""
    documents = [json.loads(line) for line in lines]
    described = [each["_aws"]["CloudWatchMetrics"] for each in documents if "_aws" in each]
    return {metric["Name"] for directives in described for directive in directives for metric in directive["Metrics"]}


def measure_part(options: Options) -> list[dict[str, Any]]:
    print("Counting calls and bytes ...", file=sys.stderr)
    return [asdict(count(path)) for path in IMAGES]


def render(results: Mapping[str, Any]) -> str:
    """Render the counts per image as Markdown."""
    rows = []
    for each in results["usage"]:
        calls = ", ".join(f"{number / each['images']:g} {name}" for name, number in each["calls"].items())
        rows.append(
            [
                each["path"],
                str(each["images"]),
                calls or "none",
                f"{each['write_units'] / each['images']:g}",
                f"{each['log_bytes'] / each['images']:,.0f}",
                f"{each['answer_bytes'] / each['images']:,.0f}",
            ]
        )
    return "\n\n".join(
        [
            "## Usage",
            "What an image uses on each path, counted with the deployed handlers and the template's defaults. The log "
            "bytes include the metrics and the lines that Lambda itself logs.",
            table(["path", "images per invocation", "calls of AWS", "write units", "log bytes", "answer bytes"], rows),
        ]
    )
