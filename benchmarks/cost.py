"""What a million images cost: by the way in, the engine and the memory, from what `make bench` measured.

benchmarks/results.json has how long the handler takes for a request in a container with the memory's share of CPU, and
how much longer an image takes in a batch (bulk, backfill) than in a request, which is taken to grow as CPU shrinks.
Prints tables as Markdown; --write puts them into pages, each between its markers, as <!-- cost --> and <!-- /cost -->.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.container import RESNET50
from benchmarks.scale import IMAGES, PATHS, by_service, dollars_per_image, rates_of
from client import prices

RESULTS = Path(__file__).with_name("results.json")

# Memory that must be there for each MB of the peak that was measured: other photos may take more.
HEADROOM = 1.25

# Costs that differ by no more are taken for the same.
NEAR = 0.02

MONTH_SECONDS = 30 * 86_400
COLD_SHARES = (0.001, 0.01, 0.1)


class ResultsError(Exception):
    """There is nothing to compute with; the message says what to do."""


@dataclass(frozen=True)
class Spread:
    """Repetitions of what was measured, in milliseconds."""

    median: float
    min: float
    max: float
    samples: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean, by which Lambda bills: with part of a CPU most short requests are fast, and some wait for it."""
        return statistics.fmean(self.samples)


@dataclass(frozen=True)
class Serving:
    """A function of one engine and memory, as it was measured in a container with these CPUs, a request at a time.

    `input` is the side of the square that its model takes, in pixels.
    `cold_ms` is from the start of its environment to the first answer; the `init_ms` of it are over before the event.
    """

    model: str
    engine: str
    input: int
    memory_mb: int
    cpus: float
    threads: int
    handler_ms: Spread
    cold_ms: Spread
    init_ms: float
    peak_rss_mb: float

    @property
    def gigabytes(self) -> float:
        return self.memory_mb / 1024


@dataclass(frozen=True)
class Container:
    """Measurements in containers; `model` is the bundled one."""

    model: str
    serving: tuple[Serving, ...]


@dataclass(frozen=True)
class Results:
    """The parts of results.json that costs follow from; `bulk` is what `benchmarks/bulk.py --json` prints."""

    container: Container
    bulk: tuple[dict[str, Any], ...]

    def serving(self, model: str = "") -> list[Serving]:
        """The functions with this model, by default the bundled one; raises ResultsError if there are none."""
        model = model or self.container.model
        found = [serving for serving in self.container.serving if serving.model == model]
        if not found:
            known = ", ".join(sorted({serving.model for serving in self.container.serving}))
            raise ResultsError(f"No model {model} was measured, but: {known or 'none'}. Run: make bench")
        return sorted(found, key=lambda serving: (serving.engine, serving.memory_mb))

    def extra_seconds(self) -> dict[str, float]:
        """How much longer an image takes on each path than in a request, with one CPU; raises ResultsError."""
        rates = rates_of(self.bulk)
        smallest = min((rate.megapixels for rate in rates), default=0)
        seconds = {rate.path: 1 / rate.images for rate in rates if rate.megapixels == smallest}
        if seconds.keys() != set(PATHS):
            raise ResultsError(f"The part bulk has not all of {', '.join(PATHS)}. Run: make bench")
        return {path: seconds[path] - seconds["api"] for path in PATHS}


@dataclass(frozen=True)
class Assumptions:
    """What costs depend on beside what was measured.

    `cold_share` of the invocations begin their environment. With `snapstart` that is restored, from a snapshot whose
    cache is paid for whether there are images or not, here by so many a month.
    """

    # AWS says "under 1%": https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase/
    cold_share: float = 0.01
    snapstart: bool = False
    images_a_month: int = 1_000_000


@dataclass(frozen=True)
class Cost:
    """What an image takes on a path: milliseconds without a cold start, and dollars by the service."""

    path: str
    serving: Serving
    milliseconds: float
    dollars: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.dollars.values())


def read_results(path: Path) -> Results:
    """What was measured; raises ResultsError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Results)
    except FileNotFoundError as error:
        raise ResultsError(f"{path.name} is not there; nothing was measured yet. Run: make bench") from error
    except msgspec.DecodeError as error:
        raise ResultsError(f"{path.name} has not what costs follow from: {error}. Run: make bench") from error


def milliseconds_per_image(path: str, serving: Serving, extra: Mapping[str, float]) -> float:
    """What an image takes a function, the calls of AWS that a batch makes for it included."""
    return serving.handler_ms.mean + 1000 * extra[path] / min(serving.cpus, 1.0)


def cost_of(path: str, serving: Serving, extra: Mapping[str, float], assumed: Assumptions) -> Cost:
    """What an image costs, cold starts included."""
    milliseconds, images = milliseconds_per_image(path, serving, extra), IMAGES[path]
    # An invocation is billed by the millisecond that it begins; what is less than a microsecond is not measured.
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
    """What a cold start costs beyond an answer that is not cold."""
    longer = serving.cold_ms.median - serving.handler_ms.mean
    if not snapstart:
        return longer / 1000 * serving.gigabytes * prices.LAMBDA_GB_SECOND
    # The initialization was done when the version was published.
    longer = max(longer - serving.init_ms, 0.0)
    return serving.gigabytes * (longer / 1000 * prices.LAMBDA_GB_SECOND + prices.SNAPSTART_RESTORE_GB)


def costs_of(results: Results, assumed: Assumptions, model: str = "") -> list[Cost]:
    """The cost of an image on each path with each function; raises ResultsError."""
    extra = results.extra_seconds()
    return [cost_of(path, serving, extra, assumed) for path in PATHS for serving in results.serving(model)]


def recommend(costs: Iterable[Cost], latency_ms: float | None = None) -> Cost | None:
    """Of costs of one path the least, or of those near it the one with the most memory to spare.

    Only functions count whose memory is enough, and that take at most `latency_ms` for an image; None if none does.
    """
    fitting = [
        cost
        for cost in costs
        if cost.serving.memory_mb >= HEADROOM * cost.serving.peak_rss_mb
        and (latency_ms is None or cost.milliseconds <= latency_ms)
    ]
    least = min((cost.total for cost in fitting), default=0)
    near = [cost for cost in fitting if cost.total <= least * (1 + NEAR)]
    return max(near, key=lambda cost: (_spare(cost.serving), -cost.total), default=None)


def recommendations(costs: Sequence[Cost], latency_ms: float) -> dict[str, Cost | None]:
    """What is recommended for each path; only requests have somebody who waits for them."""
    return {
        path: recommend([cost for cost in costs if cost.path == path], latency_ms if path == "api" else None)
        for path in PATHS
    }


def _spare(serving: Serving) -> float:
    return serving.memory_mb - serving.peak_rss_mb


def table(costs: Sequence[Cost], recommended: Mapping[str, Cost | None], assumed: Assumptions) -> str:
    """What a million images cost, as Markdown."""
    lines = [
        "| engine | memory | CPUs | a request | API | bulk | backfill |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for serving in dict.fromkeys(cost.serving for cost in costs):
        by_path = {cost.path: cost for cost in costs if cost.serving == serving}
        cells = [_money(by_path[path], recommended[path]) for path in ("api", "bulk", "backfill")]
        lines.append(
            f"| {serving.engine} | {serving.memory_mb:,} MB | {serving.cpus:.2g} | {serving.handler_ms.mean:.0f} ms "
            f"| {' | '.join(cells)} |"
        )
    return "\n".join([*lines, "", _assumed(costs, assumed)])


def _money(cost: Cost, recommended: Cost | None) -> str:
    text = f"${cost.total * 1e6:.2f}"
    return f"**{text}**" if cost == recommended else text


def _assumed(costs: Sequence[Cost], assumed: Assumptions) -> str:
    side, kept = costs[0].serving.input, ""
    network = "a network" if costs[0].serving.model == RESNET50 else f"the model {costs[0].serving.model},"
    if assumed.snapstart:
        kept = f", restored by SnapStart from a cache that {assumed.images_a_month:,} images a month pay for"
    return (
        f"A million images, by {network} of {side}x{side} pixels, by the prices of {prices.ABOUT}; "
        f"{_percent(assumed.cold_share)} of the invocations are cold{kept}."
    )


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def advice(recommended: Mapping[str, Cost | None], latency_ms: float) -> str:
    """What is recommended, as a list in Markdown."""
    names = {"api": "requests", "bulk": "uploads (bulk)", "backfill": "backfills"}
    lines = []
    for path, name in names.items():
        cost = recommended[path]
        if cost is None:
            bound = f" and answers within {latency_ms:,.0f} ms" if path == "api" else ""
            lines.append(f"- For {name} nothing that was measured has memory to spare{bound}.")
            continue
        serving = cost.serving
        lines.append(
            f"- For {name}: {serving.engine} with {serving.memory_mb:,} MB; {serving.peak_rss_mb:,.0f} MB were used."
        )
    return "\n".join(lines)


def services_table(recommended: Mapping[str, Cost | None]) -> str:
    """What is recommended by the service, as Markdown."""
    return by_service(
        {
            f"{path}, {cost.serving.engine}, {cost.serving.memory_mb:,} MB": cost.dollars
            for path, cost in recommended.items()
            if cost
        }
    )


def cold_starts_table(results: Results, assumed: Assumptions, latency_ms: float, model: str = "") -> str:
    """What a million requests cost by the share of cold starts, with and without SnapStart, as Markdown.

    Each engine has the memory that is recommended for it.
    """
    costs = [cost for cost in costs_of(results, assumed, model) if cost.path == "api"]
    engines = dict.fromkeys(cost.serving.engine for cost in costs)
    best = [recommend([cost for cost in costs if cost.serving.engine == engine], latency_ms) for engine in engines]
    heads = [f"{_percent(share)} cold{kept}" for kept in ("", ", SnapStart") for share in COLD_SHARES]
    lines = [
        f"| engine | memory | cold start | of it init | {' | '.join(heads)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(heads),
    ]
    extra = results.extra_seconds()
    for serving in [cost.serving for cost in best if cost]:
        cells = [
            cost_of("api", serving, extra, Assumptions(share, snapstart, assumed.images_a_month)).total
            for snapstart in (False, True)
            for share in COLD_SHARES
        ]
        lines.append(
            f"| {serving.engine} | {serving.memory_mb:,} MB | {serving.cold_ms.median:,.0f} ms "
            f"| {serving.init_ms:,.0f} ms | {' | '.join(f'${cell * 1e6:.2f}' for cell in cells)} |"
        )
    return "\n".join(lines)


def tables(results: Results, assumed: Assumptions, latency_ms: float, model: str = "") -> dict[str, str]:
    """The tables of the pages, as Markdown, by the name of their markers."""
    costs = costs_of(results, assumed, model)
    recommended = recommendations(costs, latency_ms)
    return {
        "cost": f"{table(costs, recommended, assumed)}\n\n{advice(recommended, latency_ms)}",
        "cost-services": services_table(recommended),
        "cost-cold": cold_starts_table(results, assumed, latency_ms, model),
    }


def write_blocks(page: Path, blocks: Mapping[str, str]) -> None:
    """Put each of these texts between the markers of its name on a page; raises ResultsError when it has none."""
    text, places = page.read_text(), 0
    for name, block in blocks.items():
        begin, end = _markers(name)
        place = re.search(f"{begin}\n(.*?){end}", text, re.DOTALL)
        if place:
            text = f"{text[: place.start(1)]}{block}\n{text[place.end(1) :]}"
            places += 1
    if not places:
        markers = " or ".join(" and ".join(_markers(name)) for name in blocks)
        raise ResultsError(f"{page} has no place for what was computed; put {markers} there.")
    page.write_text(text)


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this and the simulation of bursts are asked alike."""
    parser.add_argument("--results", type=Path, default=RESULTS, help="what was measured (default: results.json here)")
    parser.add_argument("--model", default="", help="that was measured (default: the bundled one)")
    parser.add_argument("--latency-ms", type=float, default=1000, help="what a request may take (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", type=Path, nargs="+", default=[], metavar="PAGE", help="renew the tables there")


def _as_json(costs: Sequence[Cost], recommended: Mapping[str, Cost | None], assumed: Assumptions) -> str:
    listed = [
        {
            "path": cost.path,
            "engine": cost.serving.engine,
            "memory_mb": cost.serving.memory_mb,
            "ms_per_image": cost.milliseconds,
            "dollars_per_million": {service: dollars * 1e6 for service, dollars in cost.dollars.items()},
            "total": cost.total * 1e6,
            "recommended": cost == recommended[cost.path],
        }
        for cost in costs
    ]
    return json.dumps({"prices": prices.DATE, "assumed": asdict(assumed), "costs": listed}, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cold-share", type=float, default=0.01, help="of all invocations (default: 0.01)")
    parser.add_argument("--snapstart", action="store_true", help="restore environments instead of beginning them")
    parser.add_argument("--images-a-month", type=int, default=1_000_000, help="that pay for SnapStart's cache")
    given = parser.parse_args()
    assumed = Assumptions(given.cold_share, given.snapstart, given.images_a_month)
    try:
        results = read_results(given.results)
        costs = costs_of(results, assumed, given.model)
        recommended = recommendations(costs, given.latency_ms)
        blocks = tables(results, assumed, given.latency_ms, given.model)
        for page in given.write:
            write_blocks(page, blocks)
    except ResultsError as error:
        sys.exit(str(error))
    print(_as_json(costs, recommended, assumed) if given.json else "\n\n".join(blocks.values()))


if __name__ == "__main__":
    main()
