"""How many images a second one function classifies: by its way in, batch size, threads, and workers.

The ways in are those of the stack: messages about uploads (bulk), a backfill's batches, and requests with an image
(api). Each worker is a process on one core, as a function with the template's memory is, and calls its handler again
and again. S3, DynamoDB and EventBridge answer after a fixed time, and always agree. The figures hold for this machine;
the ratios are what carries over.
"""

import argparse
import base64
import contextlib
import itertools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from io import BytesIO
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.photos import BUNDLE, SAMPLE

# Seconds that workers may take to start.
_PATIENCE = 60

# Classifies as many images as it is given numbers.
Take = Callable[[Sequence[int]], None]


@dataclass(frozen=True)
class Setting:
    """What is measured: photos of so many megapixels, and the seconds that every call of AWS takes."""

    path: str
    megapixels: float
    latency: float
    batch: int
    threads: int
    workers: int = 1


@dataclass(frozen=True)
class Measured:
    """Images a second, all workers together."""

    setting: Setting
    median: float
    least: float
    most: float


class Context:
    """What Lambda passes beside the event."""

    function_name = "benchmark"
    memory_limit_in_mb = 1769
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:benchmark"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def photo(megapixels: float) -> bytes:
    """The sample as a JPEG of that size."""
    with Image.open(SAMPLE) as sample:
        scale = (megapixels * 1e6 / (sample.width * sample.height)) ** 0.5
        made = sample.resize((round(sample.width * scale), round(sample.height * scale)), Image.Resampling.BICUBIC)
    file = BytesIO()
    made.save(file, "JPEG", quality=85)
    return file.getvalue()


def messages(numbers: Sequence[int]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": str(number),
                "receiptHandle": "handle",
                "body": json.dumps({"Records": [_record(number)]}),
                "attributes": {},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:images",
                "awsRegion": "us-east-1",
            }
            for number in numbers
        ]
    }


def _record(number: int) -> dict[str, Any]:
    described = {"key": f"uploads/{number}.jpg", "eTag": f"{number:032x}", "size": 1}
    return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "uploads"}, "object": described}}


@contextlib.contextmanager
def slow_aws(image: bytes, latency: float) -> Iterator[str]:
    """The URL of an AWS with this image wherever one is asked for."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(image)
        file.flush()
        command = [sys.executable, str(Path(__file__).with_name("slow_aws.py")), file.name, str(latency)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with process, contextlib.closing(process.stdout or sys.stdin) as printed:
            try:
                yield f"http://127.0.0.1:{printed.readline().strip()}"
            finally:
                process.kill()


def work(url: str, setting: Setting, core: int, seconds: float, repetitions: int, barrier: Barrier, rates: Any) -> None:
    """One worker: its images a second, as many times as there are repetitions, all workers at once."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    _set_up(url)
    take = _PATHS[setting.path](setting)
    numbers = itertools.count(core * 10_000_000)
    take([next(numbers)])
    found = []
    for _ in range(repetitions):
        barrier.wait()
        started, images = time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            take(list(itertools.islice(numbers, setting.batch)))
            images += setting.batch
        found.append(images / (time.perf_counter() - started))
    rates.put(found)


def _set_up(url: str) -> None:
    os.environ.update(
        AWS_ENDPOINT_URL=url,
        AWS_ACCESS_KEY_ID="none",
        AWS_SECRET_ACCESS_KEY="none",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        POWERTOOLS_LOG_LEVEL="CRITICAL",
    )
    # Metrics are lines on standard output.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bulk(setting: Setting) -> Take:
    handle = _batches(setting)

    def take(numbers: Sequence[int]) -> None:
        answer = handle(messages(numbers), Context())
        assert answer == {"batchItemFailures": []}

    return take


def _backfill(setting: Setting) -> Take:
    handle = _batches(setting)

    def take(numbers: Sequence[int]) -> None:
        items = [{"Key": f"{number}.jpg", "Etag": '"etag"'} for number in numbers]
        answers = handle({"BatchInput": {"bucket": "uploads"}, "Items": items}, Context())
        assert [answer["result"]["status"] for answer in answers] == ["done"] * len(numbers)

    return take


def _api(setting: Setting) -> Take:
    os.environ["LITELENS_BUNDLE"] = str(BUNDLE)
    from handlers.api import handler

    event = {
        "path": "/v1/classify",
        "httpMethod": "POST",
        "headers": {"Content-Type": "image/jpeg"},
        "multiValueHeaders": {"Content-Type": ["image/jpeg"]},
        "requestContext": {"requestId": "benchmark"},
        "body": base64.b64encode(photo(setting.megapixels)).decode(),
        "isBase64Encoded": True,
    }

    def take(numbers: Sequence[int]) -> None:
        for _ in numbers:
            assert handler(event, Context())["statusCode"] == 200  # type: ignore[arg-type]

    return take


_PATHS = {"bulk": _bulk, "backfill": _backfill, "api": _api}


def _batches(setting: Setting) -> Any:
    from handlers import batches
    from litelens.images import Limits
    from settings import Settings

    vars(batches)["PARALLEL"] = setting.threads
    names = {
        "upload_bucket": "uploads",
        "results_table": "results",
        "idempotency_table": "done",
        "event_bus": "default",
    }
    return batches.create_handler(Settings(BUNDLE, Limits(), 1, **names))  # type: ignore[arg-type]


def measure(setting: Setting, seconds: float, repetitions: int) -> Measured:
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(setting.workers), context.Queue()
    with slow_aws(photo(setting.megapixels), setting.latency) as url:
        workers = [
            context.Process(target=work, args=(url, setting, core, seconds, repetitions, barrier, rates))
            for core in range(setting.workers)
        ]
        for worker in workers:
            worker.start()
        try:
            each = [rates.get(timeout=_PATIENCE + 2 * seconds * repetitions) for _ in workers]
        finally:
            for worker in workers:
                worker.terminate()
        together = [sum(rate) for rate in zip(*each, strict=True)]
    return Measured(setting, statistics.median(together), min(together), max(together))


def settings(latency: float) -> list[Setting]:
    """What is measured; the first is what the others are compared with."""
    small, large = 0.3, 12
    usual = Setting("bulk", small, latency, 10, 10)
    return [
        usual,
        *(Setting("bulk", small, latency, 10, threads) for threads in (1, 2, 4, 8)),
        *(Setting("bulk", small, latency, batch, 10) for batch in (1, 50)),
        Setting("bulk", small, latency, 10, 10, workers=2),
        *(Setting("bulk", small, 0.0, 10, threads) for threads in (10, 1)),
        *(Setting("bulk", large, latency, 10, threads) for threads in (10, 1)),
        *(Setting("backfill", size, latency, 100, 10) for size in (small, large)),
        *(Setting("api", size, latency, 1, 1) for size in (small, large)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds that each call takes (default: 0.02)")
    parser.add_argument("--seconds", type=float, default=3, help="of each repetition (default: 3)")
    parser.add_argument("--repetitions", type=int, default=5, help="(default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    measured = []
    for setting in settings(given.latency):
        print(f"Measuring {setting} ...", file=sys.stderr)
        measured.append(measure(setting, given.seconds, given.repetitions))
    if given.json:
        print(json.dumps([asdict(each) for each in measured], indent=1))
        return
    print("| path | megapixels | latency | batch | threads | workers | images/s (least to most) | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for each in measured:
        print(_row(each, each.median / measured[0].median))


def _row(measured: Measured, ratio: float) -> str:
    path, megapixels, latency, *others = astuple(measured.setting)
    rate = f"{measured.median:.1f} ({measured.least:.1f} to {measured.most:.1f})"
    return f"| {' | '.join(map(str, [path, megapixels, f'{latency * 1000:.0f} ms', *others, rate, f'{ratio:.2f}']))} |"


if __name__ == "__main__":
    main()
