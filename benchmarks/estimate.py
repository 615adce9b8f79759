"""Estimate the cost of an image by path, front door, engine and memory, from the results of `make bench`.

The time of a request is measured in a container with the memory's share of a CPU. An image of a batch (bulk, backfill)
takes longer by the measured difference in throughput, divided by the share of a CPU.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks import photos
from benchmarks.bill import (
    DOORS,
    MONTH_SECONDS,
    SNAPSTART_CACHE,
    Compute,
    Line,
    image_lines,
    photo_lines,
)
from benchmarks.bulk import Measured
from benchmarks.usage import API, API_BATCH, BACKFILL, BULK, IMAGES, Usage

RESULTS = photos.RESULTS / "results.json"

PATHS = (API, API_BATCH, BULK, BACKFILL)

# The paths whose throughput is measured, in the order of the tables.
RATED_PATHS = (BULK, BACKFILL, API)

# The ratio of the minimum recommended memory to the measured peak: other photos may need more.
HEADROOM = 1.25

# Costs that differ by at most this share count as equal.
NEAR = 0.02


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
    event. `batch_ms` is for a request with 16 photos, None if it was not measured.
    """

    engine: str
    memory_mb: int
    cpus: float
    handler_ms: Times
    cold_ms: Times
    init_ms: float
    peak_rss_mb: float
    batch_ms: Times | None = None

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
    usage: tuple[Usage, ...]

    @property
    def serving(self) -> list[Serving]:
        return sorted(self.container.serving, key=lambda serving: (serving.engine, serving.memory_mb))

    def rates(self) -> dict[str, float]:
        """Return the images per second of one function by path; raises ResultsError if a path is missing."""
        rates = {each.setting.path: round(each.median, 1) for each in self.bulk}
        if missing := [path for path in RATED_PATHS if path not in rates]:
            raise ResultsError(f"The results of bulk lack {', '.join(missing)}. Run: make bench")
        return {path: rates[path] for path in RATED_PATHS}

    def usage_of(self, path: str) -> Usage:
        """Return what an invocation of the path uses; raises ResultsError if it was not counted."""
        for usage in self.usage:
            if usage.path == path:
                return usage
        raise ResultsError(f"The results of usage lack {path}. Run: make bench ARGS='--only usage'")

    def extra_seconds(self) -> dict[str, float]:
        """Return how much longer an image takes on each path than in a request, with one CPU; raises ResultsError."""
        rates = self.rates()
        return {path: 1 / rate - 1 / rates[API] for path, rate in rates.items()}


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
    """The cost of an image on a path: milliseconds without a cold start, and the lines of the bill.

    `photo` has the lines of storing the image in the upload bucket, which are not part of `lines` and the total.
    """

    path: str
    door: str
    serving: Serving
    milliseconds: float
    lines: tuple[Line, ...]
    photo: tuple[Line, ...] = ()

    @property
    def total(self) -> float:
        return sum(line.dollars for line in self.lines)


def read_results(path: Path) -> Results:
    """Read the results; raises ResultsError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except FileNotFoundError as error:
        raise ResultsError(f"{path.name} does not exist. Run: make bench") from error
    except msgspec.DecodeError as error:
        raise ResultsError(f"{path.name} lacks results: {error}. Run: make bench") from error


def milliseconds_per_image(path: str, serving: Serving, extra: Mapping[str, float]) -> float:
    """Return the time of an image in a function, including a batch's AWS calls for it.

    For a request with many images that was not measured, it is that of a request with one image, which is longer.
    """
    if path == API_BATCH:
        return serving.batch_ms.mean / IMAGES[path] if serving.batch_ms else serving.handler_ms.mean
    return serving.handler_ms.mean + 1000 * extra[path] / min(serving.cpus, 1.0)


def cost_of(path: str, serving: Serving, results: Results, assumed: Assumptions, door: str = DOORS[0]) -> Cost:
    """Compute the cost of an image, including cold starts; raises ResultsError."""
    usage = results.usage_of(path)
    milliseconds = milliseconds_per_image(path, serving, results.extra_seconds())
    # Lambda rounds up to whole milliseconds; less than a microsecond is a rounding error here.
    billed = math.ceil(round(milliseconds * usage.images, 3)) / usage.images
    cold_share = assumed.cold_share / usage.images
    compute = Compute(
        billed / 1000,
        serving.gigabytes,
        cold_share * cold_start_seconds(serving, snapstart=assumed.snapstart) * serving.gigabytes,
        cold_share * serving.gigabytes if assumed.snapstart else 0.0,
    )
    lines = image_lines(usage, door, compute)
    if assumed.snapstart:
        cached = serving.gigabytes * MONTH_SECONDS / assumed.images_a_month
        lines.append(Line("SnapStart's snapshot", cached, SNAPSTART_CACHE))
    return Cost(path, door, serving, milliseconds, tuple(lines), tuple(photo_lines(usage)))


def cold_start_seconds(serving: Serving, *, snapstart: bool) -> float:
    """Return the extra seconds of an answer with a cold start that are billed."""
    longer = serving.cold_ms.median - serving.handler_ms.mean
    # SnapStart initializes when a version is published.
    return max(longer - serving.init_ms, 0.0) / 1000 if snapstart else longer / 1000


def costs_of(results: Results, assumed: Assumptions) -> list[Cost]:
    """Compute the cost of an image on each path with each function; raises ResultsError."""
    return [cost_of(path, serving, results, assumed) for path in PATHS for serving in results.serving]


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
        path: recommend([cost for cost in costs if cost.path == path], latency_ms if path == API else None)
        for path in PATHS
    }
