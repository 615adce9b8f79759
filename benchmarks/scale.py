"""What a million and a hundred million images take and cost, by what was measured, AWS's prices and its limits.

Reads what `benchmarks/bulk.py --json` printed; prints the tables of docs/scale.md.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import prices
from client.estimate import FUNCTION_GB
from handlers.worker import PARALLEL

# An account's invocations at a time, before it asks for more:
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ACCOUNT_INVOCATIONS = 1000

# template.yaml's defaults.
BULK_CONCURRENCY, BACKFILL_CONCURRENCY, API_RATE = 10, 100, 10
MESSAGES, BATCH = 10, 100

# Bytes that an image's line in the log has, and those of the metrics that are logged with every invocation.
LOG_LINE, LOG_METRICS = 800, 1100

# A result has some 900 bytes of JSON, so that with its keys it is two units, in the table and in its index.
RESULT_UNITS = 2

COUNTS = {"a million": 1_000_000, "a hundred million": 100_000_000}
PATHS = ("bulk", "backfill", "api")

# Images that an invocation classifies.
IMAGES = {"bulk": MESSAGES, "backfill": BATCH, "api": 1}


@dataclass(frozen=True)
class Rate:
    """Images a second that one worker classifies."""

    path: str
    megapixels: float
    images: float


def dollars_per_image(path: str, seconds: float, gigabytes: float) -> Mapping[str, float]:
    """What an image costs that takes a function with this memory so many seconds, by the service.

    Storage, data transfer, cold starts and the putting of the images are left out.
    """
    function = seconds * gigabytes * prices.LAMBDA_GB_SECOND + prices.LAMBDA_REQUEST / IMAGES[path]
    logs = (LOG_LINE + LOG_METRICS / IMAGES[path]) * prices.LOG_GB / 1e9
    if path == "api":
        return {"Lambda": function, "API Gateway": prices.API_REQUEST, "logs": logs}
    if path == "backfill":
        return {
            "Lambda": function,
            "Step Functions": (prices.STATE_TRANSITION + prices.EXPRESS_REQUEST) / BATCH
            + seconds * prices.EXPRESS_GB * prices.EXPRESS_GB_SECOND,
            "S3": prices.S3_GET + prices.S3_LIST / 1000,
            "logs": logs,
        }
    return {
        "Lambda": function,
        "S3": prices.S3_GET + prices.S3_PUT,
        # S3 sends each message; they are received and deleted by the batch.
        "SQS": prices.SQS_REQUEST * (1 + 2 / MESSAGES),
        # A consistent look whether there is a result, the result in table and index, and twice the idempotency record.
        "DynamoDB": prices.TABLE_READ + prices.TABLE_WRITE * (2 * RESULT_UNITS + 2),
        "EventBridge": prices.EVENT,
        "logs": logs,
    }


def seconds_for(images: int, rate: Rate, workers: int) -> float:
    """How long so many workers take for these images."""
    return images / (rate.images * workers)


def default_seconds(images: int, rate: Rate) -> float:
    """The same with template.yaml's defaults."""
    if rate.path == "api":
        return images / API_RATE
    return seconds_for(images, rate, BULK_CONCURRENCY if rate.path == "bulk" else BACKFILL_CONCURRENCY)


def totals(rates: Iterable[Rate]) -> str:
    """The table of times and costs, as Markdown."""
    lines = [
        "| path | megapixels | images | with the defaults | with 1,000 invocations | cost |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for rate in rates:
        cost = sum(_dollars(rate).values())
        for name, count in COUNTS.items():
            fastest = seconds_for(count, rate, ACCOUNT_INVOCATIONS)
            lines.append(
                f"| {rate.path} | {rate.megapixels:g} | {name} | {_duration(default_seconds(count, rate))} "
                f"| {_duration(fastest)} | ${_rounded(cost * count):,.10g} |"
            )
    return "\n".join(lines)


def breakdown(rates: Iterable[Rate]) -> str:
    """The table of what a million images cost by the service, as Markdown."""
    return by_service({f"{rate.path}, {rate.megapixels:g} MP": _dollars(rate) for rate in rates})


def by_service(costs: Mapping[str, Mapping[str, float]]) -> str:
    """The table of what a million images cost by the service, as Markdown, of what one costs under these heads."""
    services = list(dict.fromkeys(service for cost in costs.values() for service in cost))
    lines = [f"| a million images | {' | '.join(costs)} |", "| --- |" + " --- |" * len(costs)]
    for service in services:
        cells = [f"${cost[service] * 1e6:.2f}" if service in cost else "" for cost in costs.values()]
        lines.append(f"| {service} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rates_of(measured: Sequence[Mapping[str, Any]]) -> list[Rate]:
    """The rate of each path and size, as the template sets them up."""
    usual = {("bulk", MESSAGES, PARALLEL, 1), ("backfill", BATCH, PARALLEL, 1), ("api", 1, 1, 1)}
    found = [
        Rate(setting["path"], setting["megapixels"], round(each["median"], 1))
        for each in measured
        if (setting := each["setting"])["latency"]
        and (setting["path"], setting["batch"], setting["threads"], setting["workers"]) in usual
    ]
    return sorted(found, key=lambda rate: (PATHS.index(rate.path), rate.megapixels))


def _dollars(rate: Rate) -> Mapping[str, float]:
    return dollars_per_image(rate.path, 1 / rate.images, FUNCTION_GB)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{_rounded(seconds / length):,.10g} {unit}"
    return f"{_rounded(seconds):g} seconds"


def _rounded(number: float) -> float:
    """To two digits, which is more than is known."""
    return round(number, 1 - math.floor(math.log10(number)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="the file of what benchmarks/bulk.py --json printed")
    rates = rates_of(json.loads(parser.parse_args().measured.read_text()))
    print(totals(rates), breakdown(rates), sep="\n\n")


if __name__ == "__main__":
    main()
