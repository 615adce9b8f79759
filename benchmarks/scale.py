"""Compute the tables of docs/scale.md: the time for many images, and the start of a burst of requests."""

import math
from collections.abc import Mapping

from benchmarks.report import short, table

# The default limits of an account: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html. A function
# may also start 1,000 environments every 10 seconds: https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html
ACCOUNT_CONCURRENCY = 1000

# The default limit of an account's APIs: https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
ACCOUNT_REQUESTS_PER_SECOND = 10_000

# Defaults of template.yaml.
BULK_CONCURRENCY, BACKFILL_CONCURRENCY, API_RATE = 10, 100, 10
_DEFAULT_CONCURRENCY = {"bulk": BULK_CONCURRENCY, "backfill": BACKFILL_CONCURRENCY}

_COUNTS = {"a million images": 1_000_000, "100 million": 100_000_000}
_BURST_RATES = (10, 100, 1000, 10_000)


def times_table(rates: Mapping[str, float]) -> str:
    """Return the time for many images as Markdown; `rates` are the images per second of one function, by path."""
    limits = [f"{count}, {limit}" for count in _COUNTS for limit in ("defaults", f"{ACCOUNT_CONCURRENCY:,} functions")]
    rows = []
    for path, rate in rates.items():
        if path == "api":
            speeds = [API_RATE, min(rate * ACCOUNT_CONCURRENCY, ACCOUNT_REQUESTS_PER_SECOND)]
        else:
            speeds = [rate * _DEFAULT_CONCURRENCY[path], rate * ACCOUNT_CONCURRENCY]
        times = [_duration(count / speed) for count in _COUNTS.values() for speed in speeds]
        rows.append([path, short(rate), *times])
    return table(["path", "images/s", *limits], rows)


def burst_table(request_seconds: float, cold_seconds: float) -> str:
    """Return the environments that a burst needs, as Markdown.

    Requests that arrive while the first environments start need one each. Once they have started, rate x duration of
    them are busy (Little's law).
    """
    rows = []
    for rate in _BURST_RATES:
        needed = math.ceil(rate * cold_seconds)
        started = min(needed, ACCOUNT_CONCURRENCY)
        busy = math.ceil(rate * request_seconds)
        rows.append([f"{rate:,}", f"{busy:,}", f"{started:,}", f"{needed - started:,}"])
    return table(["requests/s", "busy environments", "cold starts", "throttled at first"], rows)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{_two_digits(seconds / length):,.10g} {unit}"
    return f"{_two_digits(seconds):g} seconds"


def _two_digits(number: float) -> float:
    return round(number, 1 - math.floor(math.log10(number)))
