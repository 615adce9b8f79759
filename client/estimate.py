"""What a backfill will take: how many objects there are, and the time and the money that they take."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from client import prices
from client.aws import AwsError, client, explained

# What is assumed of an image: a photo of 12 megapixels, decoded and classified on one core.
IMAGE_SECONDS = 0.2
# MemorySize's default in template.yaml.
FUNCTION_GB = 1769 / 1024

_PAGE = 1000
_COUNTED_PAGES = 20

# Bytes of an inventory's first file that tell how many lines its files have.
_SAMPLE = 1_000_000
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True)
class Location:
    """A bucket, and in it a key or a prefix, which may be empty."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Count:
    """A number of objects; `bound` says what it is: "" the number itself, else "about", "at least" or "at most"."""

    objects: int
    bound: str = ""


@dataclass(frozen=True)
class Estimate:
    """The seconds that a backfill takes, and its costs in US dollars by the service."""

    seconds: float
    dollars: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.dollars.values())


def estimate(objects: int, batch_size: int, concurrency: int) -> Estimate:
    """What these objects take in batches of this size, so many at a time; storing the results is left out."""
    batches = math.ceil(objects / batch_size)
    image_seconds = objects * IMAGE_SECONDS
    transitions = batches * (prices.STATE_TRANSITION + prices.EXPRESS_REQUEST)
    return Estimate(
        seconds=math.ceil(batches / concurrency) * min(batch_size, objects) * IMAGE_SECONDS,
        dollars={
            "Lambda": image_seconds * FUNCTION_GB * prices.LAMBDA_GB_SECOND + batches * prices.LAMBDA_REQUEST,
            "Step Functions": transitions + image_seconds * prices.EXPRESS_GB * prices.EXPRESS_GB_SECOND,
            "S3": objects * prices.S3_GET + math.ceil(objects / _PAGE) * prices.S3_LIST,
        },
    )


def count_listed(images: Location) -> Count:
    """The objects below a prefix.

    Up to 20,000 are counted. Of more, S3's daily metric says how many the bucket has at the most, old versions
    included; where it may not be read, they are at least as many as were counted. Raises AwsError.
    """
    at_most = {"PageSize": _PAGE, "MaxItems": _COUNTED_PAGES * _PAGE}
    missing = {"NoSuchBucket": f"There is no bucket {images.bucket}."}
    with explained(f"{images} cannot be listed", "s3:ListBucket", missing):
        listing = client("s3").get_paginator("list_objects_v2")
        pages = listing.paginate(Bucket=images.bucket, Prefix=images.key, PaginationConfig=at_most)
        counted = sum(page["KeyCount"] for page in pages)
    if counted < _COUNTED_PAGES * _PAGE:
        return Count(counted)
    return max(_in_bucket(images.bucket), Count(counted, "at least"), key=lambda count: count.objects)


def _in_bucket(bucket: str) -> Count:
    """By https://docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html, 0 where there is no metric."""
    now = datetime.now(UTC)
    try:
        with explained("The metrics cannot be read", "cloudwatch:GetMetricStatistics", {}):
            found = client("cloudwatch").get_metric_statistics(
                Namespace="AWS/S3",
                MetricName="NumberOfObjects",
                Dimensions=[
                    {"Name": "BucketName", "Value": bucket},
                    {"Name": "StorageType", "Value": "AllStorageTypes"},
                ],
                # A day's metric may come a day late.
                StartTime=now - timedelta(days=3),
                EndTime=now,
                Period=86400,
                Statistics=["Maximum"],
            )
    except AwsError:
        return Count(0, "at most")
    newest = max(found["Datapoints"], key=lambda point: point["Timestamp"], default={"Maximum": 0})
    return Count(int(newest["Maximum"]), "at most")


class _File(msgspec.Struct):
    key: str
    size: int


class _Manifest(msgspec.Struct, rename="camel"):
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html"""

    source_bucket: str
    file_format: str
    files: list[_File]


def count_inventoried(manifest: Location, bucket: str) -> Count:
    """The objects that an S3 inventory of this bucket names, by what a part of it does.

    Raises AwsError, too, when it is none, or not as CSV, which is all that Step Functions reads.
    """
    s3 = client("s3")
    reasons = {"NoSuchBucket": f"There is no bucket {manifest.bucket}.", "NoSuchKey": f"There is no {manifest}."}
    with explained(f"{manifest} cannot be read", "s3:GetObject", reasons):
        document = s3.get_object(Bucket=manifest.bucket, Key=manifest.key)["Body"].read()
        inventory = _read_manifest(document, manifest, bucket)
        files = [file for file in inventory.files if file.size]
        if not files:
            return Count(0)
        sample = _sample(s3, manifest.bucket, files[0])
    lines, total = _lines(sample), sum(file.size for file in files)
    return Count(lines) if len(sample) == total else Count(round(lines * total / len(sample)), "about")


def _read_manifest(document: bytes, location: Location, bucket: str) -> _Manifest:
    try:
        manifest = msgspec.json.decode(document, type=_Manifest)
    except (ValueError, RecursionError) as error:
        raise AwsError(f"{location} is no manifest of an S3 inventory; name its manifest.json.") from error
    if manifest.file_format != "CSV":
        raise AwsError(f"{location} is of an inventory as {manifest.file_format}; Step Functions reads CSV only.")
    if manifest.source_bucket != bucket:
        raise AwsError(f"{location} is an inventory of the bucket {manifest.source_bucket}, not of {bucket}.")
    return manifest


def _sample(s3: Any, bucket: str, file: _File) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key=file.key, Range=f"bytes=0-{_SAMPLE - 1}")["Body"].read()
    return body


def _lines(compressed: bytes) -> int:
    try:
        return zlib.decompressobj(_GZIP).decompress(compressed).count(b"\n")
    except zlib.error as error:
        raise AwsError("The inventory's files are damaged: they are not compressed by gzip.") from error
