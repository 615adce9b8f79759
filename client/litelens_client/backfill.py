"""`litelens backfill`: classify every image in a bucket with the stack's state machine.

The command counts the objects, estimates time and cost, asks for confirmation, starts the backfill and follows it. Exit
codes: 0 if the backfill succeeded, 1 if it failed or was not started, 130 after Ctrl-C, which does not stop the
backfill.
"""

import json
import math
import sys
import zlib
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from litelens_client import prices
from litelens_client.aws import AwsError, S3Location, aws_errors, create_client
from litelens_client.output import counted, print_message, printable, progress_bar, spinner, write_output
from litelens_client.state_machine import (
    Backfill,
    BackfillProgress,
    StateMachine,
    Summary,
    find_state_machine,
    start,
    summarize,
    watch,
)

# The assumption for estimates: a photo of 12 megapixels, decoded and classified on one core.
IMAGE_SECONDS = 0.2
# The default of MemorySize in template.yaml.
FUNCTION_GB = 1769 / 1024

# S3 lists up to 1,000 objects per request. Counting stops after this many requests.
_PAGE_SIZE = 1000
_MAX_PAGES = 20

# Bytes that are read of an inventory's first file, to estimate the number of lines in all files.
_SAMPLE_BYTES = 1_000_000
# Makes zlib read the gzip format.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Count:
    """A number of objects; `bound` is "about", "at least" or "at most", or empty if the number is exact."""

    objects: int
    bound: str = ""


@dataclass(frozen=True)
class Estimate:
    """The duration of a backfill in seconds, and its price in US dollars for each AWS service."""

    seconds: float
    dollars: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.dollars.values())


class _File(msgspec.Struct):
    key: str
    size: int


class _Manifest(msgspec.Struct, rename="camel"):
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html"""

    source_bucket: str
    file_format: str
    files: list[_File]


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        execution = arguments.follow or _start(arguments)
        return _follow(execution, arguments.json) if execution else 1
    except AwsError as error:
        print_message(str(error))
        return 1


def estimate(objects: int, batch_size: int, concurrency: int) -> Estimate:
    """Estimate a backfill of this many objects; the price does not include storing the results."""
    batches, image_seconds = math.ceil(objects / batch_size), objects * IMAGE_SECONDS
    transitions = batches * (prices.STATE_TRANSITION + prices.EXPRESS_REQUEST)
    return Estimate(
        seconds=math.ceil(batches / concurrency) * min(batch_size, objects) * IMAGE_SECONDS,
        dollars={
            "Lambda": image_seconds * FUNCTION_GB * prices.LAMBDA_GB_SECOND + batches * prices.LAMBDA_REQUEST,
            "Step Functions": transitions + image_seconds * prices.EXPRESS_GB * prices.EXPRESS_GB_SECOND,
            "S3": objects * prices.S3_GET + math.ceil(objects / _PAGE_SIZE) * prices.S3_LIST,
        },
    )


def count_objects(images: S3Location) -> Count:
    """Count the objects below a prefix; raises AwsError.

    If there are more than 20,000 objects, they are not all counted. The result is then "at most" the number in S3's
    daily metric of the bucket, which includes old versions, or "at least" 20,000 if the metric cannot be read.
    """
    limits = {"PageSize": _PAGE_SIZE, "MaxItems": _MAX_PAGES * _PAGE_SIZE}
    missing = {"NoSuchBucket": f"The bucket {images.bucket} does not exist."}
    with aws_errors(f"{images} cannot be listed", "s3:ListBucket", missing):
        paginator = create_client("s3").get_paginator("list_objects_v2")
        pages = paginator.paginate(Bucket=images.bucket, Prefix=images.key, PaginationConfig=limits)
        listed = sum(page["KeyCount"] for page in pages)
    if listed < _MAX_PAGES * _PAGE_SIZE:
        return Count(listed)
    return max(_bucket_size(images.bucket), Count(listed, "at least"), key=lambda count: count.objects)


def count_inventory(manifest: S3Location, bucket: str) -> Count:
    """Count the objects in an S3 inventory of this bucket, estimated from the first part of a large inventory.

    Raises AwsError, including if the inventory is of another bucket or is not CSV, the only format that Step Functions
    reads.
    """
    s3 = create_client("s3")
    reasons = {
        "NoSuchBucket": f"The bucket {manifest.bucket} does not exist.",
        "NoSuchKey": f"The object {manifest} does not exist.",
    }
    with aws_errors(f"{manifest} cannot be read", "s3:GetObject", reasons):
        document = s3.get_object(Bucket=manifest.bucket, Key=manifest.key)["Body"].read()
        files = [file for file in _read_manifest(document, manifest, bucket).files if file.size]
        if not files:
            return Count(0)
        sample = _read_sample(s3, manifest.bucket, files[0])
    lines, total = _count_lines(sample), sum(file.size for file in files)
    return Count(lines) if len(sample) == total else Count(round(lines * total / len(sample)), "about")


def _bucket_size(bucket: str) -> Count:
    """Return the number of objects according to CloudWatch; 0 if the metric does not exist or cannot be read.

    See https://docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html
    """
    now = datetime.now(UTC)
    try:
        with aws_errors("The metrics cannot be read", "cloudwatch:GetMetricStatistics", {}):
            statistics = create_client("cloudwatch").get_metric_statistics(
                Namespace="AWS/S3",
                MetricName="NumberOfObjects",
                Dimensions=[
                    {"Name": "BucketName", "Value": bucket},
                    {"Name": "StorageType", "Value": "AllStorageTypes"},
                ],
                # The metric of a day can arrive a day late.
                StartTime=now - timedelta(days=3),
                EndTime=now,
                Period=86400,
                Statistics=["Maximum"],
            )
    except AwsError:
        return Count(0, "at most")
    newest = max(statistics["Datapoints"], key=lambda point: point["Timestamp"], default={"Maximum": 0})
    return Count(int(newest["Maximum"]), "at most")


def _read_manifest(document: bytes, location: S3Location, bucket: str) -> _Manifest:
    try:
        manifest = msgspec.json.decode(document, type=_Manifest)
    except (ValueError, RecursionError) as error:
        raise AwsError(f"{location} is not the manifest.json of an S3 inventory.") from error
    if manifest.file_format != "CSV":
        raise AwsError(f"{location} is an inventory as {manifest.file_format}; Step Functions reads only CSV.")
    if manifest.source_bucket != bucket:
        raise AwsError(f"{location} is an inventory of the bucket {manifest.source_bucket}, not of {bucket}.")
    return manifest


def _read_sample(s3: Any, bucket: str, file: _File) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=file.key, Range=f"bytes=0-{_SAMPLE_BYTES - 1}")["Body"].read()
    return body


def _count_lines(compressed: bytes) -> int:
    try:
        return zlib.decompressobj(_GZIP_WINDOW).decompress(compressed).count(b"\n")
    except zlib.error as error:
        raise AwsError("The inventory's files are damaged: they are not compressed by gzip.") from error


def _start(arguments: Namespace) -> str | None:
    """Start the backfill and return the ARN of its execution; None if there is nothing to do or the user declines."""
    backfill = Backfill(
        images=S3Location(*arguments.images),
        tolerate=arguments.tolerate,
        inventory=S3Location(*arguments.inventory) if arguments.inventory else None,
    )
    machine = find_state_machine(arguments.state_machine)
    with spinner("Counting"):
        count = _count(backfill)
    if not count.objects:
        print_message(f"There are no objects in {backfill.inventory or backfill.images}.")
        return None
    print_message(_announcement(backfill, count, machine))
    if not arguments.yes and not _confirm():
        print_message("Nothing was started.")
        return None
    execution = start(machine, backfill)
    print_message(f"Started {execution}")
    return execution


def _count(backfill: Backfill) -> Count:
    if backfill.inventory:
        return count_inventory(backfill.inventory, backfill.images.bucket)
    return count_objects(backfill.images)


def _announcement(backfill: Backfill, count: Count, machine: StateMachine) -> str:
    estimated = estimate(count.objects, machine.batch_size, machine.concurrency)
    bound = f"{count.bound} " if count.bound else ""
    objects = f"{backfill.inventory or backfill.images} has {bound}{counted(count.objects, 'object')}"
    services = ", ".join(f"{service} ${dollars:,.2f}" for service, dollars in estimated.dollars.items())
    price = f"{bound}{_duration(estimated.seconds)} and {bound}${estimated.total:,.2f} ({services})"
    assumptions = (
        f"prices in {prices.ABOUT}, {IMAGE_SECONDS} seconds of {FUNCTION_GB * 1024:,.0f} MB for each image, "
        f"{machine.batch_size} images in a batch and {machine.concurrency:,} batches at the same time"
    )
    return f"{objects}, which should take {price}. This assumes {assumptions}."


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return counted(round(seconds / size), unit)
    return counted(math.ceil(seconds), "second")


def _confirm() -> bool:
    # input() would print the question on standard output, which may be a file.
    print("Start? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _follow(execution: str, as_json: bool) -> int:
    """Show the progress of a backfill until it is over, print its summary and return the exit code."""
    try:
        progress = _watch(execution)
    except KeyboardInterrupt:
        print_message(f"The backfill continues without you. To follow it again: litelens backfill --follow {execution}")
        raise
    summary = summarize(execution, progress)
    printed = write_output([_json(summary) if as_json else _text(summary)])
    return 0 if printed and summary.succeeded else 1


def _watch(execution: str) -> BackfillProgress:
    """Show a progress bar until the backfill is over, and return its last progress."""
    with progress_bar() as bar:
        task = bar.add_task("Classifying", total=None)
        for progress in watch(execution):
            bar.update(task, total=progress.images or None, completed=progress.answered + progress.unanswered)
    return progress


def _text(summary: Summary) -> str:
    progress, lines = summary.progress, []
    if progress.images:
        images = counted(progress.images, "image")
        lines.append(f"{images}: {_outcome(summary)}, {progress.unanswered:,} without a result.")
    if summary.results:
        lines.append(f"The results are JSON lines in {printable(str(summary.results))}")
    if summary.cause:
        lines.append(f"The backfill failed: {printable(summary.cause)}.")
        lines.append(f"To retry the others: aws stepfunctions redrive-execution --execution-arn {summary.execution}")
    return "\n".join(lines) + "\n"


def _outcome(summary: Summary) -> str:
    answered, failed = summary.progress.answered, summary.failed
    if failed is None:
        return f"{answered:,} with a result (failures were not counted)"
    return f"{answered - failed:,} done, {failed:,} failed"


def _json(summary: Summary) -> str:
    progress, failed = summary.progress, summary.failed
    document: dict[str, Any] = {
        "execution": summary.execution,
        "status": progress.status,
        "images": progress.images,
        "done": None if failed is None else progress.answered - failed,
        "failed": failed,
        "unanswered": progress.unanswered,
        "results": str(summary.results) if summary.results else None,
        "cause": summary.cause,
    }
    return json.dumps(document) + "\n"
