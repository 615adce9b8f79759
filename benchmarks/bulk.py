"""Measure how many images per second one CPU core classifies on each path.

The paths are those of the stack: SQS messages about uploads (bulk), batches of a backfill, requests with a photo (api).
The handler runs in one process on one core, like a function with the template's memory. A fake S3, DynamoDB and
EventBridge respond after a fixed latency.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import photos
from benchmarks.events import Context, backfill_event, binary_request, queue_event
from benchmarks.photos import BUNDLE
from benchmarks.report import Options, short, table

# A function that classifies images with these numbers.
Classify = Callable[[list[int]], None]


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement: megapixels of a photo, and seconds of latency of each AWS call."""

    path: str
    batch: int
    threads: int
    megapixels: float = 0.3
    latency: float = 0.02


@dataclass(frozen=True)
class Measured:
    """Images per second."""

    setting: Setting
    median: float
    least: float
    most: float


# The paths as the template sets them up.
TEMPLATE_SETTINGS = (Setting("bulk", 10, 10), Setting("backfill", 100, 10), Setting("api", 1, 1))


def measure(setting: Setting, seconds: float = 2.0, repetitions: int = 3) -> Measured:
    """Measure one setting, with this many repetitions of this many seconds each."""
    image = photo_of(setting.megapixels)
    context = multiprocessing.get_context("spawn")
    with (
        # As in the container image. The new process reads it when it imports NumPy.
        mock.patch.dict(os.environ, OPENBLAS_NUM_THREADS="1"),
        fake_aws(image, setting.latency) as url,
        ProcessPoolExecutor(1, mp_context=context) as process,
    ):
        rates = process.submit(_work, url, setting, image, seconds, repetitions).result()
    return Measured(setting, statistics.median(rates), min(rates), max(rates))


def photo_of(megapixels: float) -> bytes:
    """Return a JPEG of this size in the format 3:2."""
    height = (megapixels * 1e6 / 1.5) ** 0.5
    return photos.sample(round(1.5 * height), round(height))


@contextlib.contextmanager
def fake_aws(image: bytes, latency: float) -> Iterator[str]:
    """Run the fake AWS endpoint, in which every S3 object is this image; yield its URL."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(image)
        file.flush()
        command = [sys.executable, str(Path(__file__).with_name("fake_aws.py")), file.name, str(latency)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with process, contextlib.closing(process.stdout or sys.stdin) as output:
            try:
                yield f"http://127.0.0.1:{output.readline().strip()}"
            finally:
                process.kill()


def _work(url: str, setting: Setting, image: bytes, seconds: float, repetitions: int) -> list[float]:
    """Classify batches on one core; return the images per second of each repetition."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    _configure(url)
    classify = _api(image) if setting.path == "api" else _batches(setting)
    numbers = itertools.count()
    classify([next(numbers)])
    rates = []
    for _ in range(repetitions):
        started, images = time.perf_counter(), 0
        while time.perf_counter() < started + seconds:
            classify(list(itertools.islice(numbers, setting.batch)))
            images += setting.batch
        rates.append(images / (time.perf_counter() - started))
    return rates


def use_aws(url: str) -> None:
    """Set this process's environment for handlers that call AWS at this address, without other credentials or files."""
    os.environ.update(
        AWS_ENDPOINT_URL=url,
        AWS_ACCESS_KEY_ID="none",
        AWS_SECRET_ACCESS_KEY="none",
        AWS_DEFAULT_REGION="us-east-1",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        LITELENS_BUNDLE=str(BUNDLE),
        LITELENS_THREADS="1",
    )


def _configure(url: str) -> None:
    use_aws(url)
    os.environ["POWERTOOLS_LOG_LEVEL"] = "CRITICAL"
    # Metrics are lines on standard output.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _api(image: bytes) -> Classify:
    from litelens.api.handler import handler

    event = binary_request(image)

    def classify(numbers: list[int]) -> None:
        for _ in numbers:
            assert handler(event, Context())["statusCode"] == 200  # type: ignore[arg-type]

    return classify


def _batches(setting: Setting) -> Classify:
    os.environ.update(
        LITELENS_UPLOAD_BUCKET="uploads",
        LITELENS_RESULTS_TABLE="results",
        LITELENS_LOG_RESULTS="false",
    )
    from litelens.bulk import batches
    from litelens.settings import read_settings

    vars(batches)["THREADS"] = setting.threads
    handler: Any = batches.create_handler(read_settings())

    def classify_uploads(numbers: list[int]) -> None:
        assert handler(queue_event(numbers), Context()) == {"batchItemFailures": []}

    def classify_objects(numbers: list[int]) -> None:
        answers = handler(backfill_event(numbers), Context())
        assert [answer["result"]["status"] for answer in answers] == ["done"] * len(numbers)

    return classify_uploads if setting.path == "bulk" else classify_objects


def measure_part(options: Options) -> list[dict[str, Any]]:
    print("Measuring the paths ...", file=sys.stderr)
    return [asdict(measure(setting)) for setting in TEMPLATE_SETTINGS]


def render(results: Mapping[str, Any]) -> str:
    setting = results["bulk"][0]["setting"]
    rows = [
        [each["setting"]["path"], f"{short(each['median'])} ({short(each['least'])} to {short(each['most'])})"]
        for each in results["bulk"]
    ]
    return "\n\n".join(
        [
            "## Throughput",
            f"Images per second that one core classifies with the bundled model and LiteRT. Photos have "
            f"{setting['megapixels']} megapixels, and each AWS call takes {setting['latency'] * 1000:.0f} ms.",
            table(["path", "images/s"], rows),
        ]
    )


def main() -> None:
    defaults = {setting.path: setting for setting in TEMPLATE_SETTINGS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", choices=defaults)
    parser.add_argument("--batch", type=int, help="images per batch (default: as in the template)")
    parser.add_argument("--threads", type=int, help="threads per batch (default: as in the code)")
    parser.add_argument("--megapixels", type=float, help="size of a photo (default: 0.3)")
    parser.add_argument("--latency", type=float, help="seconds that each AWS call takes (default: 0.02)")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    measured = measure(Setting(**{**asdict(defaults[given["path"]]), **given}))
    print(f"{measured.median:.1f} images/s ({measured.least:.1f} to {measured.most:.1f})")


if __name__ == "__main__":
    main()
