"""Load test over HTTP: send requests at fixed rates, whether or not earlier ones have been answered.

A request's time starts when it is due, so that the time includes waiting for slow responses or a busy client. The
default URL is that of `make run`, which handles one request at a time, like one execution environment.
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import urllib3
from urllib3.exceptions import HTTPError

from benchmarks.photos import SAMPLE
from benchmarks.report import table

LOCAL_URL = "http://127.0.0.1:8080"

# The maximum number of requests in flight. Others wait, and their time includes the wait.
MAX_IN_FLIGHT = 1000

# Seconds. API Gateway answers within 29.
TIMEOUT = 35

OK, NO_ANSWER = "200", "no answer"

# A function that sends a request and returns the answer's HTTP status, or NO_ANSWER.
Send = Callable[[], str]


@dataclass(frozen=True)
class Outcome:
    """When a request was due and when it was answered, in seconds from the start, and its status."""

    due: float
    ended: float
    status: str


@dataclass(frozen=True)
class Step:
    """The results at one rate. The times are milliseconds of answers with status 200."""

    rate: float
    requests: int
    answered: int
    answered_per_second: float
    errors: Mapping[str, int]
    p50: float | None
    p95: float | None
    p99: float | None
    longest: float | None


def arrivals(rate: float, seconds: float, seed: int = 0) -> list[float]:
    """Return the seconds at which requests are due: a Poisson process, the same one for the same seed."""
    generator = random.Random(seed)
    times = itertools.accumulate(generator.expovariate(each) for each in itertools.repeat(rate))
    return list(itertools.takewhile(lambda time: time < seconds, times))


def send_all(
    due: Sequence[float],
    send: Send,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome]:
    """Send a request at each of these seconds, whether or not earlier ones have been answered."""
    started = clock()

    def send_one(at: float) -> Outcome:
        status = send()
        return Outcome(at, clock() - started, status)

    threads = ThreadPoolExecutor(MAX_IN_FLIGHT)
    try:
        sent = []
        for at in due:
            sleep(max(0.0, started + at - clock()))
            sent.append(threads.submit(send_one, at))
        return [each.result() for each in sent]
    finally:
        # Do not wait for responses after Ctrl-C.
        threads.shutdown(wait=False, cancel_futures=True)


def summarize(rate: float, outcomes: Sequence[Outcome]) -> Step:
    """Summarize the outcomes of one rate; the achieved rate counts good answers until the last answer of all."""
    good = [each for each in outcomes if each.status == OK]
    errors = Counter(each.status for each in outcomes if each.status != OK)
    ended = max((each.ended for each in outcomes), default=0.0)
    times = [1000 * (each.ended - each.due) for each in good]
    percentiles = np.percentile(times, [50, 95, 99, 100]).tolist() if times else [None] * 4
    per_second = len(good) / ended if ended else 0.0
    return Step(rate, len(outcomes), len(good), per_second, dict(sorted(errors.items())), *percentiles)


def sender(url: str, api_key: str | None) -> Send:
    """Return a function that sends the sample photo to the API, without retries; threads may share it."""
    http = urllib3.PoolManager(maxsize=MAX_IN_FLIGHT, retries=False, timeout=TIMEOUT)
    headers = {"Content-Type": "image/jpeg", "User-Agent": "litelens-load"}
    if api_key:
        headers["x-api-key"] = api_key
    photo = SAMPLE.read_bytes()

    def send() -> str:
        try:
            return str(http.request("POST", f"{url.rstrip('/')}/v1/classify", body=photo, headers=headers).status)
        except HTTPError:
            return NO_ANSWER

    return send


def steps_table(steps: Sequence[Step]) -> str:
    """Format the results as Markdown."""
    rows = []
    for step in steps:
        cells = ["" if each is None else f"{each:,.0f} ms" for each in (step.p50, step.p95, step.p99, step.longest)]
        errors = ", ".join(f"{status}: {count:,}" for status, count in step.errors.items()) or "none"
        rows.append([f"{step.rate:g}", f"{step.requests:,}", f"{step.answered_per_second:.1f}", *cells, errors])
    return table(["requests/s", "sent", "answered/s", "p50", "p95", "p99", "longest", "errors"], rows)


def whole_numbers(text: str) -> list[int]:
    """Parse whole numbers above 0, separated by commas, for argparse."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError("give whole numbers above 0, separated by commas, such as 5,10,20")
    return [int(part) for part in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=whole_numbers, default=[10], help="requests per second, such as 5,10,20")
    parser.add_argument("--seconds", type=float, default=30, help="duration of each rate (default: 30)")
    parser.add_argument("--url", default=LOCAL_URL, help=f"URL of the API (default: {LOCAL_URL})")
    parser.add_argument("--api-key", default=os.environ.get("API_KEY"), help="API key (default: $API_KEY)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    if not given.seconds > 0:
        parser.error("--seconds must be above 0")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        steps = _measure(given.url, given.api_key, given.rates, given.seconds)
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps([asdict(step) for step in steps], indent=1) if given.json else steps_table(steps))


def _measure(url: str, api_key: str | None, rates: Sequence[int], seconds: float) -> list[Step]:
    send = sender(url, api_key)
    status = send()
    if status == NO_ANSWER:
        start = "start it with make run" if url == LOCAL_URL else "give the API's URL, without /v1/classify"
        sys.exit(f"Nothing answers at {url}; {start}.")
    if status != OK:
        sys.exit(f"The API answers the first request with {status}; check the URL and the key.")
    steps = []
    for rate in rates:
        print(f"Sending {rate} requests per second for {seconds:g} seconds ...", file=sys.stderr)
        steps.append(summarize(rate, send_all(arrivals(rate, seconds), send)))
    return steps


if __name__ == "__main__":
    main()
