"""Estimate the cost per million images by path, engine and memory, from the results of `make bench`.

The time of a request is measured in a container with the memory's share of a CPU. An image of a batch (bulk, backfill)
takes longer by the measured difference in throughput, divided by the share of a CPU. Prints Markdown tables; --write
replaces the tables of pages, each between its markers such as <!-- cost --> and <!-- /cost -->.
"""

import argparse
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import scale
from benchmarks.bulk import Measured
from benchmarks.report import table
from litelens_client import prices

RESULTS = Path(__file__).with_name("results.json")

PATHS = ("bulk", "backfill", "api")

# Images per invocation; template.yaml sets the first two.
MESSAGES, BATCH = 10, 100
IMAGES = {"bulk": MESSAGES, "backfill": BATCH, "api": 1}

# Bytes of an image's log line, and of the metrics that each invocation logs.
LOG_LINE, LOG_METRICS = 800, 1100

# A result is some 900 bytes of JSON: with its keys two write units, in the table and in its index.
RESULT_UNITS = 2

# The ratio of the minimum recommended memory to the measured peak: other photos may need more.
HEADROOM = 1.25

# Costs that differ by at most this share count as equal.
NEAR = 0.02

MONTH_SECONDS = 30 * 86_400
COLD_SHARES = (0.001, 0.01, 0.1)


class ResultsError(Exception):
    """The results lack values that the costs depend on; the message says what to do."""


@dataclass(frozen=True)
class Times:
    """Repeated measurements in milliseconds."""

    median: float
    samples: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """The mean, which determines the bill: with a share of a CPU, some requests wait for it and most do not."""
        return statistics.fmean(self.samples)


@dataclass(frozen=True)
class Serving:
    """A function with one engine and memory, measured in a container with this many CPUs.

    `cold_ms` is from the start of the environment to the first answer. It includes `init_ms`, the part before the
    event.
    """

    engine: str
    memory_mb: int
    cpus: float
    handler_ms: Times
    cold_ms: Times
    init_ms: float
    peak_rss_mb: float

    @property
    def gigabytes(self) -> float:
        return self.memory_mb / 1024


@dataclass(frozen=True)
class Container:
    """The functions measured in containers, and their model with the width of its input in pixels."""

    model: str
    input: int
    serving: tuple[Serving, ...]


@dataclass(frozen=True)
class Results:
    """The parts of results.json that costs are computed from."""

    container: Container
    bulk: tuple[Measured, ...]

    @property
    def serving(self) -> list[Serving]:
        return sorted(self.container.serving, key=lambda serving: (serving.engine, serving.memory_mb))

    def rates(self) -> dict[str, float]:
        """Return the images per second of one function by path; raises ResultsError if a path is missing."""
        rates = {each.setting.path: round(each.median, 1) for each in self.bulk}
        if missing := [path for path in PATHS if path not in rates]:
            raise ResultsError(f"The results of bulk lack {', '.join(missing)}. Run: make bench")
        return {path: rates[path] for path in PATHS}

    def extra_seconds(self) -> dict[str, float]:
        """Return how much longer an image takes on each path than in a request, with one CPU; raises ResultsError."""
        rates = self.rates()
        return {path: 1 / rate - 1 / rates["api"] for path, rate in rates.items()}


@dataclass(frozen=True)
class Assumptions:
    """Assumptions about use: the share of invocations with a cold start, SnapStart, and the images per month.

    SnapStart's cache costs the same whether there are images or not, so the cost per image depends on their number.
    """

    # AWS says "under 1%": https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
    cold_share: float = 0.01
    snapstart: bool = False
    images_a_month: int = 1_000_000


@dataclass(frozen=True)
class Cost:
    """The cost of an image on a path: milliseconds without a cold start, and dollars by service."""

    path: str
    serving: Serving
    milliseconds: float
    dollars: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.dollars.values())


def read_results(path: Path) -> Results:
    """Read the results; raises ResultsError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except FileNotFoundError as error:
        raise ResultsError(f"{path.name} does not exist. Run: make bench") from error
    except msgspec.DecodeError as error:
        raise ResultsError(f"{path.name} lacks results: {error}. Run: make bench") from error


def dollars_per_image(path: str, seconds: float, gigabytes: float) -> dict[str, float]:
    """Return the cost of an image by service, if a function with this memory takes this many seconds for it.

    Storage, data transfer, cold starts and the requests that upload images are left out.
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
        # S3 sends each message; Lambda receives and deletes them in batches.
        "SQS": prices.SQS_REQUEST * (1 + 2 / MESSAGES),
        # One consistent read of the result, its writes to the table and the index, and two of the idempotency record.
        "DynamoDB": prices.TABLE_READ + prices.TABLE_WRITE * (2 * RESULT_UNITS + 2),
        "logs": logs,
    }


def milliseconds_per_image(path: str, serving: Serving, extra: Mapping[str, float]) -> float:
    """Return the time of an image in a function, including a batch's AWS calls for it."""
    return serving.handler_ms.mean + 1000 * extra[path] / min(serving.cpus, 1.0)


def cost_of(path: str, serving: Serving, extra: Mapping[str, float], assumed: Assumptions) -> Cost:
    """Compute the cost of an image, including cold starts."""
    milliseconds, images = milliseconds_per_image(path, serving, extra), IMAGES[path]
    # Lambda rounds up to whole milliseconds; less than a microsecond is a rounding error here.
    billed = math.ceil(round(milliseconds * images, 3)) / images
    dollars = {
        **dollars_per_image(path, billed / 1000, serving.gigabytes),
        "cold starts": assumed.cold_share / images * cold_start_dollars(serving, snapstart=assumed.snapstart),
    }
    if assumed.snapstart:
        cache = serving.gigabytes * prices.SNAPSTART_CACHE_GB_SECOND * MONTH_SECONDS
        dollars["SnapStart's cache"] = cache / assumed.images_a_month
    return Cost(path, serving, milliseconds, dollars)


def cold_start_dollars(serving: Serving, *, snapstart: bool) -> float:
    """Return the extra cost of an answer with a cold start."""
    longer = serving.cold_ms.median - serving.handler_ms.mean
    if not snapstart:
        return longer / 1000 * serving.gigabytes * prices.LAMBDA_GB_SECOND
    # SnapStart initializes when a version is published.
    longer = max(longer - serving.init_ms, 0.0)
    return serving.gigabytes * (longer / 1000 * prices.LAMBDA_GB_SECOND + prices.SNAPSTART_RESTORE_GB)


def costs_of(results: Results, assumed: Assumptions) -> list[Cost]:
    """Compute the cost of an image on each path with each function; raises ResultsError."""
    extra = results.extra_seconds()
    return [cost_of(path, serving, extra, assumed) for path in PATHS for serving in results.serving]


def recommend(costs: Iterable[Cost], latency_ms: float | None = None) -> Cost | None:
    """Return the lowest cost; of those near it, the one with the most unused memory.

    Functions with too little memory, or that take longer than `latency_ms` for an image, do not count.
    """
    fitting = [
        cost
        for cost in costs
        if cost.serving.memory_mb >= HEADROOM * cost.serving.peak_rss_mb
        and (latency_ms is None or cost.milliseconds <= latency_ms)
    ]
    least = min((cost.total for cost in fitting), default=0)
    near = [cost for cost in fitting if cost.total <= least * (1 + NEAR)]
    return max(near, key=lambda cost: (cost.serving.memory_mb - cost.serving.peak_rss_mb, -cost.total), default=None)


def recommendations(costs: Sequence[Cost], latency_ms: float) -> dict[str, Cost | None]:
    """Recommend a function for each path; the latency matters to requests only."""
    return {
        path: recommend([cost for cost in costs if cost.path == path], latency_ms if path == "api" else None)
        for path in PATHS
    }


def cost_table(costs: Sequence[Cost], recommended: Mapping[str, Cost | None]) -> str:
    """Format the cost per million images as Markdown, recommended functions in bold."""
    rows = []
    for serving in dict.fromkeys(cost.serving for cost in costs):
        by_path = {cost.path: cost for cost in costs if cost.serving == serving}
        cells = [
            f"**{_per_million(by_path[path].total)}**"
            if by_path[path] == recommended[path]
            else _per_million(by_path[path].total)
            for path in ("api", "bulk", "backfill")
        ]
        time = f"{serving.handler_ms.mean:.0f} ms"
        rows.append([serving.engine, f"{serving.memory_mb:,} MB", f"{serving.cpus:.2g}", time, *cells])
    heads = ["engine", "memory", "CPUs", "time per request", "API", "bulk", "backfill"]
    return table(heads, rows)


def _assumptions(container: Container, assumed: Assumptions) -> str:
    cache = ""
    if assumed.snapstart:
        cache = f" SnapStart restores them; {assumed.images_a_month:,} images per month share the cost of its cache."
    side = container.input
    return (
        f"Prices: {prices.ABOUT}. Model: {container.model}, {side}x{side} pixels. "
        f"{_percent(assumed.cold_share)} of the invocations have a cold start.{cache}"
    )


def _per_million(dollars: float) -> str:
    return f"${dollars * 1e6:.2f}"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def advice(recommended: Mapping[str, Cost | None], latency_ms: float) -> str:
    """List the recommended functions as Markdown."""
    names = {"api": "requests", "bulk": "uploads (bulk)", "backfill": "backfills"}
    lines = []
    for path, name in names.items():
        if cost := recommended[path]:
            function = f"{cost.serving.engine} with {cost.serving.memory_mb:,} MB"
            lines.append(f"- For {name}: {function} (measured peak: {cost.serving.peak_rss_mb:,.0f} MB).")
        else:
            bound = f" and answers within {latency_ms:,.0f} ms" if path == "api" else ""
            lines.append(f"- For {name}: no measured function has enough memory{bound}.")
    return "\n".join(lines)


def services_table(recommended: Mapping[str, Cost | None]) -> str:
    """Format the cost per million images of the recommended functions by service, as Markdown."""
    costs = [cost for cost in recommended.values() if cost]
    heads = [f"{cost.path}, {cost.serving.engine}, {cost.serving.memory_mb:,} MB" for cost in costs]
    services = dict.fromkeys(service for cost in costs for service in cost.dollars)
    rows = [
        [service, *(_per_million(cost.dollars[service]) if service in cost.dollars else "" for cost in costs)]
        for service in services
    ]
    return table(["service", *heads], rows)


def cold_starts_table(results: Results, assumed: Assumptions, latency_ms: float) -> str:
    """Format the cost per million requests by the share of cold starts, with and without SnapStart, as Markdown.

    Each engine has the memory that is recommended for it.
    """
    costs = [cost for cost in costs_of(results, assumed) if cost.path == "api"]
    extra, rows = results.extra_seconds(), []
    for engine in dict.fromkeys(cost.serving.engine for cost in costs):
        best = recommend([cost for cost in costs if cost.serving.engine == engine], latency_ms)
        if best is None:
            continue
        serving = best.serving
        cells = [
            _per_million(cost_of("api", serving, extra, Assumptions(share, snapstart, assumed.images_a_month)).total)
            for snapstart in (False, True)
            for share in COLD_SHARES
        ]
        start = [f"{serving.cold_ms.median:,.0f} ms", f"{serving.init_ms:,.0f} ms"]
        rows.append([engine, f"{serving.memory_mb:,} MB", *start, *cells])
    heads = [f"{_percent(share)} cold{suffix}" for suffix in ("", ", SnapStart") for share in COLD_SHARES]
    return table(["engine", "memory", "cold start", "of which init", *heads], rows)


def tables(results: Results, assumed: Assumptions, latency_ms: float) -> dict[str, str]:
    """Return the pages' tables as Markdown, by the names of their markers."""
    costs = costs_of(results, assumed)
    recommended = recommendations(costs, latency_ms)
    cost = [cost_table(costs, recommended), _assumptions(results.container, assumed), advice(recommended, latency_ms)]
    blocks = {
        "cost": "\n\n".join(cost),
        "cost-services": services_table(recommended),
        "cost-cold": cold_starts_table(results, assumed, latency_ms),
        "scale": scale.times_table(results.rates()),
    }
    if api := recommended["api"]:
        blocks["bursts"] = scale.burst_table(api.milliseconds / 1000, api.serving.cold_ms.median / 1000)
    return blocks


def write_blocks(page: Path, blocks: Mapping[str, str]) -> None:
    """Replace the text between the markers of each block on a page; raises ResultsError if it has no marker."""
    text, found = page.read_text(), False
    for name, block in blocks.items():
        place = re.search(f"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
        if place:
            text = f"{text[: place.start(1)]}{block}\n{text[place.end(1) :]}"
            found = True
    if not found:
        markers = " or ".join(f"<!-- {name} --> and <!-- /{name} -->" for name in blocks)
        raise ResultsError(f"{page} has no markers for the tables; add {markers}.")
    page.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=1000, help="longest time of a request (default: 1000)")
    parser.add_argument("--cold-share", type=float, default=0.01, help="share of cold invocations (default: 0.01)")
    parser.add_argument("--snapstart", action="store_true", help="restore environments with SnapStart")
    parser.add_argument("--images-a-month", type=int, default=1_000_000, help="images that share SnapStart's cache")
    parser.add_argument("--write", type=Path, nargs="+", default=[], metavar="PAGE", help="replace the pages' tables")
    given = parser.parse_args()
    assumed = Assumptions(given.cold_share, given.snapstart, given.images_a_month)
    try:
        blocks = tables(read_results(RESULTS), assumed, given.latency_ms)
        for page in given.write:
            write_blocks(page, blocks)
    except ResultsError as error:
        sys.exit(str(error))
    print("\n\n".join(blocks.values()))


if __name__ == "__main__":
    main()
