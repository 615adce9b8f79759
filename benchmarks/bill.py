"""The lines of the bill: what an image uses on each path, what a stack uses in a month, and what AWS charges for it."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-untyped]

from benchmarks.usage import API, API_BATCH, BACKFILL, BULK, Usage
from litelens_client import prices

INFRA = Path(__file__).parent.parent / "infra"
MONTH_SECONDS = 30 * 86_400

# The values of the parameter FrontDoor.
DOORS = ("rest", "http", "url")


@dataclass(frozen=True)
class Meter:
    """A unit that AWS counts, its price in dollars, and the number of units that are free in each month for ever."""

    service: str
    unit: str
    price: float
    free: float = 0


LAMBDA_DURATION = Meter("Lambda", "GB-second", prices.LAMBDA_GB_SECOND, prices.FREE_LAMBDA_GB_SECONDS)
LAMBDA_REQUEST = Meter("Lambda", "request", prices.LAMBDA_REQUEST, prices.FREE_LAMBDA_REQUESTS)
SNAPSTART_RESTORE = Meter("Lambda", "restored GB", prices.SNAPSTART_RESTORE_GB)
SNAPSTART_CACHE = Meter("Lambda", "cached GB-second", prices.SNAPSTART_CACHE_GB_SECOND)
DATA_OUT = Meter("data transfer", "GB", prices.DATA_OUT_GB, prices.FREE_DATA_OUT_GB)
LOGS = Meter("CloudWatch", "GB", prices.LOG_GB, prices.FREE_LOG_GB)
LOGS_KEPT = Meter("CloudWatch", "GB-month", prices.LOG_GB_MONTH)
ALARMS = Meter("CloudWatch", "alarm metric", prices.ALARM_METRIC, prices.FREE_ALARM_METRICS)
ANOMALY_ALARMS = Meter("CloudWatch", "alarm", prices.ANOMALY_ALARM)
METRICS = Meter("CloudWatch", "custom metric", prices.METRIC, prices.FREE_METRICS)
DASHBOARDS = Meter("CloudWatch", "dashboard", prices.DASHBOARD, prices.FREE_DASHBOARDS)
S3_GET = Meter("S3", "GET", prices.S3_GET)
S3_PUT = Meter("S3", "PUT", prices.S3_PUT)
S3_LIST = Meter("S3", "LIST", prices.S3_LIST)
S3_STORAGE = Meter("S3", "GB-month", prices.S3_GB_MONTH)
SQS = Meter("SQS", "request", prices.SQS_REQUEST, prices.FREE_SQS_REQUESTS)
TABLE_WRITES = Meter("DynamoDB", "write unit", prices.TABLE_WRITE)
TABLE_READS = Meter("DynamoDB", "read unit", prices.TABLE_READ)
TABLE_STORAGE = Meter("DynamoDB", "GB-month", prices.TABLE_GB_MONTH, prices.FREE_TABLE_GB)
TRANSITIONS = Meter("Step Functions", "state transition", prices.STATE_TRANSITION, prices.FREE_STATE_TRANSITIONS)
EXPRESS_REQUESTS = Meter("Step Functions", "execution", prices.EXPRESS_REQUEST)
EXPRESS_DURATION = Meter("Step Functions", "GB-second", prices.EXPRESS_GB_SECOND)
EVENTS = Meter("EventBridge", "event", prices.EVENT)
TRACES = Meter("X-Ray", "trace", prices.TRACE, prices.FREE_TRACES)
ECR = Meter("ECR", "GB-month", prices.ECR_GB_MONTH)
KMS_KEYS = Meter("KMS", "key", prices.KMS_KEY_MONTH)
WAF_ACLS = Meter("WAF", "ACL", prices.WAF_ACL_MONTH)
WAF_RULES = Meter("WAF", "rule", prices.WAF_RULE_MONTH)
WAF_REQUESTS = Meter("WAF", "request", prices.WAF_REQUEST)
CLOUDFRONT_REQUESTS = Meter("CloudFront", "request", prices.CLOUDFRONT_REQUEST, prices.FREE_CLOUDFRONT_REQUESTS)
CLOUDFRONT_OUT = Meter("CloudFront", "GB", prices.CLOUDFRONT_OUT_GB, prices.FREE_CLOUDFRONT_OUT_GB)
CLOUDFRONT_ORIGIN = Meter("CloudFront", "GB", prices.CLOUDFRONT_ORIGIN_GB)
REQUESTS = {
    "rest": Meter("API Gateway", "request", prices.API_REQUEST),
    "http": Meter("API Gateway", "512 KB of a request", prices.HTTP_API_REQUEST),
    "url": Meter("Lambda", "request", 0.0),
}

# The meters of calls that usage counts. The cost of PutItem depends on the write units, which are counted too.
_CALLS = {
    "dynamodb:GetItem": TABLE_READS,
    "dynamodb:Query": TABLE_READS,
    "events:PutEvents": EVENTS,
    "s3:GetObject": S3_GET,
    "s3:HeadObject": S3_GET,
    "s3:PutObject": S3_PUT,
}
_COUNTED_OTHERWISE = {"dynamodb:PutItem"}

# S3 lists up to 1,000 objects per request.
_LISTED = 1000

# A queue has at least this many pollers, each of which waits 20 seconds for a message:
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
_POLLERS, _POLL_SECONDS = 5, 20

# infra/images.yaml keeps this many images. Each adds a layer of 48 MB (compressed) to the base image.
_ECR_GB = 1.1


@dataclass(frozen=True)
class Line:
    """A line of the bill: a quantity per image or per month, and its meter."""

    name: str
    quantity: float
    meter: Meter

    @property
    def dollars(self) -> float:
        return self.quantity * self.meter.price


@dataclass(frozen=True)
class Compute:
    """The compute time that an image costs.

    A function with `gigabytes` of memory runs for `seconds`. Cold starts add `cold_gb_seconds` of initialization, and
    with SnapStart `restored_gigabytes`; both are averages over all images.
    """

    seconds: float
    gigabytes: float
    cold_gb_seconds: float = 0.0
    restored_gigabytes: float = 0.0


def image_lines(usage: Usage, door: str, compute: Compute) -> list[Line]:
    """Return the lines of an image, without those of storing it in a bucket; the door matters to requests only."""
    return [
        *_compute_lines(usage, compute),
        *(Line(name.partition(":")[2], number / usage.images, _meter(name)) for name, number in _paid_calls(usage)),
        *_path_lines(usage, door, compute),
        Line("logs and metrics", usage.log_bytes / usage.images / 1e9, LOGS),
        Line("logs, kept 30 days", _kept_bytes(usage) / usage.images / 1e9, LOGS_KEPT),
    ]


def photo_lines(usage: Usage) -> list[Line]:
    """Return the lines of storing an image in the upload bucket; other paths receive it or find it stored."""
    if usage.path != BULK:
        return []
    return [
        Line("upload", 1, S3_PUT),
        Line(f"photo of {usage.photo_bytes / 1000:.0f} KB, kept 30 days", usage.photo_bytes / 1e9, S3_STORAGE),
    ]


def request_line(usage: Usage, door: str) -> Line:
    """Return the line of an API request, as a share for each of its images."""
    units = math.ceil(usage.request_bytes / prices.HTTP_API_METER_BYTES) if door == "http" else 1
    return Line("request", units / usage.images, REQUESTS[door])


def _compute_lines(usage: Usage, compute: Compute) -> list[Line]:
    lines = [
        Line("duration", compute.seconds * compute.gigabytes, LAMBDA_DURATION),
        Line("cold starts", compute.cold_gb_seconds, LAMBDA_DURATION),
        Line("invocation", 1 / usage.images, LAMBDA_REQUEST),
    ]
    if compute.restored_gigabytes:
        lines.append(Line("SnapStart's restores", compute.restored_gigabytes, SNAPSTART_RESTORE))
    return lines


def _path_lines(usage: Usage, door: str, compute: Compute) -> list[Line]:
    if usage.path in (API, API_BATCH):
        return [request_line(usage, door), Line("answer", usage.answer_bytes / usage.images / 1e9, DATA_OUT)]
    if usage.path == BACKFILL:
        return [
            Line("listing", 1 / _LISTED, S3_LIST),
            Line("start of a batch", 1 / usage.images, TRANSITIONS),
            Line("batch", 1 / usage.images, EXPRESS_REQUESTS),
            Line("duration of a batch", compute.seconds * prices.EXPRESS_GB, EXPRESS_DURATION),
            Line("result, kept 30 days", usage.answer_bytes / usage.images / 1e9, S3_STORAGE),
        ]
    return [
        # S3 sends each message; Lambda receives and deletes them in batches.
        Line("message: send, receive, delete", 1 + 2 / usage.images, SQS),
        Line("result, with its index", usage.write_units / usage.images, TABLE_WRITES),
        Line("result, kept 30 days", usage.table_bytes / usage.images / 1e9, TABLE_STORAGE),
    ]


def _paid_calls(usage: Usage) -> list[tuple[str, int]]:
    return [(name, number) for name, number in usage.calls.items() if name not in _COUNTED_OTHERWISE]


def _meter(call: str) -> Meter:
    if call not in _CALLS:
        raise KeyError(f"{call} has no price; add one to benchmarks/bill.py")
    return _CALLS[call]


def _kept_bytes(usage: Usage) -> float:
    return prices.LOG_COMPRESSED * usage.log_bytes + prices.LOG_LINE_BYTES * usage.log_lines


def fixed_lines(usages: Iterable[Usage]) -> list[Line]:
    """Return the lines of a stack in a month, however many images it classifies."""
    functions: dict[bool, set[str]] = defaultdict(set)
    for usage in usages:
        functions[usage.path in (API, API_BATCH)].update(usage.metrics)
    metrics, anomalies = alarm_counts(with_options=False)
    return [
        Line("metrics of the functions", sum(map(len, functions.values())), METRICS),
        Line("metrics that alarms watch", metrics, ALARMS),
        Line("alarms with anomaly detection", anomalies, ANOMALY_ALARMS),
        Line("dashboard", 1, DASHBOARDS),
        Line("polls of the queue", _POLLERS * MONTH_SECONDS / _POLL_SECONDS, SQS),
        Line("20 container images", _ECR_GB, ECR),
    ]


def option_lines(usages: Mapping[str, Usage]) -> dict[str, list[Line]]:
    """Return how options change the costs of an image, by their settings."""
    one, many, bulk = usages[API], usages[API_BATCH], usages[BULK]
    result_bytes = usages[BACKFILL].answer_bytes / usages[BACKFILL].images
    object_lines = [
        Line("object", 1 / bulk.images, S3_PUT),
        Line("object, kept 30 days", result_bytes / 1e9, S3_STORAGE),
    ]
    return {
        "LogResults=none, no line for each of several images of a request": [
            Line("logs", -many.result_log_bytes / many.images / 1e9, LOGS)
        ],
        "LogResults=all, also a line for each image of an upload or a backfill": [
            Line("logs", bulk.result_log_bytes / bulk.images / 1e9, LOGS)
        ],
        "EventBus, an event per batch of uploads": [Line("event", 1 / bulk.images, EVENTS)],
        "Results=both, an object per batch of uploads": object_lines,
        "Results=objects, an object per batch instead of the table": [
            *object_lines,
            Line("result, with its index", -bulk.write_units / bulk.images, TABLE_WRITES),
            Line("result, kept 30 days", -bulk.table_bytes / bulk.images / 1e9, TABLE_STORAGE),
        ],
        "an upload form for each photo, and one request for its result": [
            Line("requests", 2, REQUESTS["rest"]),
            Line("invocations", 2, LAMBDA_REQUEST),
            Line("lookup of the result", 1, TABLE_READS),
        ],
        "Waf=true, each request": [Line("request", 1, WAF_REQUESTS)],
        "Page=true, each image through CloudFront": [
            Line("request", 1, CLOUDFRONT_REQUESTS),
            Line("photo to the API", one.request_bytes / 1e9, CLOUDFRONT_ORIGIN),
            Line("answer", one.answer_bytes / 1e9, CLOUDFRONT_OUT),
        ],
    }


def monthly_option_lines(gigabytes: float) -> dict[str, list[Line]]:
    """Return what options add in a month, for functions with this memory."""
    acl = yaml_parse((INFRA / "firewall.yaml").read_text())["Resources"]["WebAcl"]["Properties"]
    always, with_options = alarm_counts(with_options=False), alarm_counts(with_options=True)
    return {
        "ImageBuckets, an alarm for backfills": [Line("metrics", with_options[0] - always[0], ALARMS)],
        "KmsKeyArn, a key": [Line("key", 1, KMS_KEYS)],
        "Waf=true": [Line("ACL", 1, WAF_ACLS), Line("rules", len(acl["Rules"]), WAF_RULES)],
        "SnapStart=true, two versions": [Line("snapshots", 2 * gigabytes * MONTH_SECONDS, SNAPSTART_CACHE)],
    }


def traces(invocations: float) -> float:
    """Return how many of a month's evenly spread invocations X-Ray records with Tracing=Active."""
    first = min(invocations, prices.TRACED_A_SECOND * MONTH_SECONDS)
    return first + prices.TRACED_SHARE * (invocations - first)


def month_dollars(lines: Iterable[Line], images: float, *, free: bool = False) -> float:
    """Return the cost of this many images; with `free`, less the units that are free in each month."""
    quantities: dict[Meter, float] = defaultdict(float)
    for line in lines:
        quantities[line.meter] += line.quantity * images
    return sum(max(0.0, units - (meter.free if free else 0)) * meter.price for meter, units in quantities.items())


def rekognition_dollars(images: float) -> float:
    """Return the price of this many images a month in Amazon Rekognition's DetectLabels."""
    dollars = 0.0
    for size, price in prices.REKOGNITION_TIERS:
        taken = images if size is None else min(images, size)
        dollars, images = dollars + taken * price, images - taken
    return dollars


@cache
def alarm_counts(*, with_options: bool) -> tuple[int, int]:
    """Return the number of metrics in the templates' alarms, and of alarms with anomaly detection.

    Alarms that have a condition are counted only if `with_options` is true.
    """
    metrics = anomalies = 0
    for path in sorted(INFRA.glob("*.yaml")):
        for resource in yaml_parse(path.read_text())["Resources"].values():
            if resource["Type"] == "AWS::CloudWatch::Alarm" and (with_options or "Condition" not in resource):
                if "ThresholdMetricId" in resource["Properties"]:
                    anomalies += 1
                else:
                    metrics += sum("MetricStat" in each for each in resource["Properties"].get("Metrics", [])) or 1
    return metrics, anomalies
