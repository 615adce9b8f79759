"""Estimate what images cost by path, front door and month, from the results of `make bench` and AWS's prices.

Prints Markdown tables, or JSON. --write replaces the tables of pages, each between its markers such as <!-- cost -->
and <!-- /cost -->.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import scale
from benchmarks.bill import (
    CLOUDFRONT_OUT,
    CLOUDFRONT_REQUESTS,
    DOORS,
    TRACES,
    Line,
    fixed_lines,
    month_dollars,
    monthly_option_lines,
    option_lines,
    rekognition_dollars,
    request_line,
    traces,
)
from benchmarks.estimate import (
    RESULTS,
    Assumptions,
    Cost,
    Results,
    ResultsError,
    Serving,
    cost_of,
    costs_of,
    read_results,
    recommend,
    recommendations,
)
from benchmarks.report import short, table
from benchmarks.usage import API, API_BATCH, BACKFILL, BULK, IMAGES
from litelens_client import prices

PATHS = {
    API: "API, one image per request",
    API_BATCH: f"API, {IMAGES[API_BATCH]} images per request",
    BULK: "upload to the bucket",
    BACKFILL: "backfill of a bucket",
}
_DOORS = {"rest": "REST API", "http": "HTTP API", "url": "function URL"}

_VOLUMES = {"10 thousand": 10_000, "1 million": 1_000_000, "100 million": 100_000_000}
_MILLION = 1_000_000
_CENT = 0.01
_COLD_SHARES = (0.001, 0.01, 0.1)


class Stack:
    """The costs of a stack whose functions are all `serving`, on each path with each front door."""

    def __init__(self, results: Results, serving: Serving, assumed: Assumptions) -> None:
        """Raises ResultsError."""
        self.results, self.serving, self.assumed = results, serving, assumed
        self.costs = {
            (path, door): cost_of(path, serving, results, assumed, door) for path in PATHS for door in self.doors(path)
        }
        self.fixed = fixed_lines(results.usage)

    @staticmethod
    def doors(path: str) -> Sequence[str]:
        """Return the front doors that images of a path may pass; other paths than the API's have none."""
        return DOORS if path in (API, API_BATCH) else DOORS[:1]

    def cost(self, path: str, door: str) -> Cost:
        return self.costs.get((path, door)) or self.costs[path, DOORS[0]]


def stack_of(results: Results, assumed: Assumptions, latency_ms: float) -> Stack:
    """Return the stack with the function that is recommended for requests; raises ResultsError if there is none."""
    recommended = recommendations(costs_of(results, assumed), latency_ms)[API]
    if recommended is None:
        raise ResultsError(
            f"No measured function has enough memory and answers within {latency_ms:,.0f} ms; raise --latency-ms."
        )
    return Stack(results, recommended.serving, assumed)


def short_table(stack: Stack) -> str:
    """Format the cost of a million images by path and front door as Markdown, with Amazon Rekognition's below."""
    rows = [
        [name, *(_dollars(stack.cost(path, door).total * _MILLION) for door in DOORS)] for path, name in PATHS.items()
    ]
    compared = _dollars(rekognition_dollars(_MILLION))
    rows.append(["for comparison: Amazon Rekognition, DetectLabels", *[compared] * len(DOORS)])
    return table(["a million images", *(_DOORS[door] for door in DOORS)], rows)


def short_text(stack: Stack) -> str:
    """Say what the table holds for, and what it leaves out."""
    photo = sum(line.dollars for line in stack.cost(BULK, DOORS[0]).photo) * _MILLION
    fixed = sum(line.dollars for line in stack.fixed)
    container, serving = stack.results.container, stack.serving
    side, cold = container.input, _percent(stack.assumed.cold_share)
    many = IMAGES[API_BATCH]
    bound = (
        f" The time of a request with {many} images is not measured yet; the table has an upper bound, {many} times "
        "the time of a request with one image."
    )
    computed = "" if serving.batch_ms else bound
    snapstart = ""
    if stack.assumed.snapstart:
        snapstart = f" SnapStart restores them; {stack.assumed.images_a_month:,} images a month share its snapshot."
    return (
        f"Prices: {prices.ABOUT}, before free tiers. Function: {serving.engine} with {serving.memory_mb:,} MB. Model: "
        f"{container.model}, {side}x{side} pixels. {cold} of the invocations have a cold start.{snapstart} Not in the "
        f"table: {_dollars(photo)} for uploading a million photos to the bucket and keeping them for 30 days, and "
        f"{_dollars(fixed)} a month for a stack.{computed}"
    )


def lines_table(cost: Cost) -> str:
    """Format the lines of an image's bill as Markdown."""
    rows = _line_rows(cost.lines)
    rows.append(["**together**", "", "", f"**{_dollars(cost.total * _MILLION)}**"])
    if cost.photo:
        rows += _line_rows(cost.photo)
    return table(["", "a million images take", "price", "and cost"], rows)


def _line_rows(lines: Iterable[Line]) -> list[list[str]]:
    return [
        [
            f"{line.meter.service}: {line.name}",
            f"{short(line.quantity * _MILLION)} {_plural(line.meter.unit)}",
            _price(line.meter.price, line.meter.unit),
            _dollars(line.dollars * _MILLION),
        ]
        for line in lines
    ]


def lines_text(stack: Stack) -> str:
    """Format the lines of each path, with the other front doors' lines of requests, as Markdown."""
    parts = []
    for path, name in PATHS.items():
        cost = stack.cost(path, DOORS[0])
        parts += [f"### {name[0].upper()}{name[1:]}", lines_table(cost)]
        if len(stack.doors(path)) > 1:
            usage = stack.results.usage_of(path)
            others = [
                f"{_dollars(request_line(usage, door).dollars * _MILLION)} for the {_DOORS[door]}" for door in DOORS[1:]
            ]
            parts.append(f"The request costs {' and '.join(others)}.")
    return "\n\n".join(parts)


def month_table(stack: Stack, *, free: bool) -> str:
    """Format the cost of a month by its number of images as Markdown; with `free`, less what is always free."""
    rows = []
    for (path, door), cost in stack.costs.items():
        suffix = f", {_DOORS[door]}" if len(stack.doors(path)) > 1 else ""
        rows.append([f"{PATHS[path]}{suffix}", *_month_cells(cost.lines, free)])
    rows.append(["storing the uploads", *_month_cells(stack.cost(BULK, DOORS[0]).photo, free)])
    fixed = month_dollars(stack.fixed, 1, free=free)
    rows.append(["the stack itself", *[_dollars(fixed)] * len(_VOLUMES)])
    if not free:
        rows.append(
            ["Amazon Rekognition, DetectLabels", *(_dollars(rekognition_dollars(n)) for n in _VOLUMES.values())]
        )
    return table(["images a month", *_VOLUMES], rows)


def _month_cells(lines: Sequence[Line], free: bool) -> list[str]:
    return [_dollars(month_dollars(lines, images, free=free)) for images in _VOLUMES.values()]


def fixed_table(stack: Stack) -> str:
    """Format what a stack costs in a month without images as Markdown."""
    rows = [
        [
            f"{line.meter.service}: {line.name}",
            f"{line.quantity:,.10g}",
            _price(line.meter.price, line.meter.unit),
            _dollars(line.dollars),
        ]
        for line in stack.fixed
    ]
    together = sum(line.dollars for line in stack.fixed)
    rows.append(["**together**", "", "", f"**{_dollars(together)}**"])
    return table(["", "number", "price", "a month"], rows)


def options_table(stack: Stack) -> str:
    """Format how options change the costs, for a million images or in a month, as Markdown."""
    usages = {usage.path: usage for usage in stack.results.usage}
    rows = [
        [name, f"{_dollars(sum(line.dollars for line in lines) * _MILLION)} for a million images"]
        for name, lines in option_lines(usages).items()
    ]
    rows += [
        [name, f"{_dollars(sum(line.dollars for line in lines))} a month"]
        for name, lines in monthly_option_lines(stack.serving.gigabytes).items()
    ]
    traced = ", ".join(_dollars(traces(images) * TRACES.price) for images in _VOLUMES.values())
    rows.append(["Tracing=Active (X-Ray)", f"at most {traced} a month for {', '.join(_VOLUMES)} requests"])
    return table(["option", "change"], rows)


def free_table(stack: Stack) -> str:
    """Format what AWS does not charge for in each month, for ever, as Markdown."""
    lines = [line for cost in stack.costs.values() for line in cost.lines]
    meters = dict.fromkeys(line.meter for line in [*lines, *stack.fixed] if line.meter.free)
    rows = [
        [meter.service, f"{meter.free:,.10g} {_plural(meter.unit)}", _dollars(meter.free * meter.price)]
        for meter in [*meters, TRACES, CLOUDFRONT_REQUESTS, CLOUDFRONT_OUT]
    ]
    return table(["service", "free in a month", "worth"], rows)


def memory_table(costs: Sequence[Cost], recommended: Mapping[str, Cost | None]) -> str:
    """Format the cost of a million images by engine and memory as Markdown, recommended functions in bold."""
    rows = []
    for serving in dict.fromkeys(cost.serving for cost in costs):
        by_path = {cost.path: cost for cost in costs if cost.serving == serving}
        cells = [
            f"**{_dollars(by_path[path].total * _MILLION)}**"
            if by_path[path] == recommended[path]
            else _dollars(by_path[path].total * _MILLION)
            for path in PATHS
        ]
        time = f"{serving.handler_ms.mean:.0f} ms"
        rows.append([serving.engine, f"{serving.memory_mb:,} MB", f"{serving.cpus:.2g}", time, *cells])
    return table(["engine", "memory", "CPUs", "time per request", *PATHS], rows)


def advice(recommended: Mapping[str, Cost | None], latency_ms: float) -> str:
    """List the recommended functions as Markdown."""
    lines = []
    for path, name in PATHS.items():
        if cost := recommended[path]:
            function = f"{cost.serving.engine} with {cost.serving.memory_mb:,} MB"
            lines.append(f"- {name}: {function} (measured peak: {cost.serving.peak_rss_mb:,.0f} MB).")
        else:
            bound = f" and answers within {latency_ms:,.0f} ms" if path == API else ""
            lines.append(f"- {name}: no measured function has enough memory{bound}.")
    return "\n".join(lines)


def cold_starts_table(results: Results, assumed: Assumptions, latency_ms: float) -> str:
    """Format the cost per million requests by the share of cold starts, with and without SnapStart, as Markdown.

    Each engine has the memory that is recommended for it.
    """
    costs = [cost for cost in costs_of(results, assumed) if cost.path == API]
    rows = []
    for engine in dict.fromkeys(cost.serving.engine for cost in costs):
        best = recommend([cost for cost in costs if cost.serving.engine == engine], latency_ms)
        if best is None:
            continue
        serving = best.serving
        cells = [
            cost_of(API, serving, results, Assumptions(share, snapstart, assumed.images_a_month)).total * _MILLION
            for snapstart in (False, True)
            for share in _COLD_SHARES
        ]
        start = [f"{serving.cold_ms.median:,.0f} ms", f"{serving.init_ms:,.0f} ms"]
        rows.append([engine, f"{serving.memory_mb:,} MB", *start, *map(_dollars, cells)])
    heads = [f"{_percent(share)} cold{suffix}" for suffix in ("", ", SnapStart") for share in _COLD_SHARES]
    return table(["engine", "memory", "cold start", "of which init", *heads], rows)


def tables(results: Results, assumed: Assumptions, latency_ms: float) -> dict[str, str]:
    """Return the pages' tables as Markdown, by the names of their markers; raises ResultsError."""
    costs = costs_of(results, assumed)
    recommended = recommendations(costs, latency_ms)
    stack = stack_of(results, assumed, latency_ms)
    api = stack.cost(API, DOORS[0])
    return {
        "cost": f"{short_table(stack)}\n\n{short_text(stack)}",
        "cost-lines": lines_text(stack),
        "cost-fixed": fixed_table(stack),
        "cost-month": month_table(stack, free=False),
        "cost-month-free": month_table(stack, free=True),
        "cost-free": free_table(stack),
        "cost-options": options_table(stack),
        "cost-memory": f"{memory_table(costs, recommended)}\n\n{advice(recommended, latency_ms)}",
        "cost-cold": cold_starts_table(results, assumed, latency_ms),
        "scale": scale.times_table(results.rates()),
        "bursts": scale.burst_table(api.milliseconds / 1000, api.serving.cold_ms.median / 1000),
    }


def document(stack: Stack) -> dict[str, Any]:
    """Return the costs as JSON values: dollars for an image by line, and for a month by its number of images."""
    return {
        "prices": prices.ABOUT,
        "function": {"engine": stack.serving.engine, "memory_mb": stack.serving.memory_mb},
        "paths": [
            {
                "path": cost.path,
                "front_door": cost.door if len(stack.doors(cost.path)) > 1 else None,
                "milliseconds": cost.milliseconds,
                "dollars": cost.total,
                "lines": _line_values(cost.lines),
                "photo_lines": _line_values(cost.photo),
                "month": {images: month_dollars(cost.lines, images) for images in _VOLUMES.values()},
                "month_with_free_tiers": {
                    images: month_dollars(cost.lines, images, free=True) for images in _VOLUMES.values()
                },
            }
            for cost in stack.costs.values()
        ],
        "fixed_lines": _line_values(stack.fixed),
    }


def _line_values(lines: Iterable[Line]) -> list[dict[str, Any]]:
    return [
        {
            "service": line.meter.service,
            "name": line.name,
            "quantity": line.quantity,
            "unit": line.meter.unit,
            "price": line.meter.price,
            "dollars": line.dollars,
        }
        for line in lines
    ]


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


def _dollars(dollars: float) -> str:
    return f"{'-' if dollars < 0 else ''}${abs(dollars):,.2f}"


def _price(price: float, unit: str) -> str:
    """Format a price for one unit, or for a million if one costs less than a cent."""
    if price >= _CENT:
        return f"${_decimals(price)} per {unit}"
    return f"${_decimals(price * _MILLION)} per million {_plural(unit)}" if price else "free"


def _decimals(number: float) -> str:
    """Format a number with two decimals, or three if it needs them."""
    text = f"{number:,.3f}"
    return text.removesuffix("0")


def _plural(unit: str) -> str:
    return unit if unit.endswith("GB") or unit.startswith("512 KB") else f"{unit}s"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=1000, help="longest time of a request (default: 1000)")
    parser.add_argument("--cold-share", type=float, default=0.01, help="share of cold invocations (default: 0.01)")
    parser.add_argument("--snapstart", action="store_true", help="restore environments with SnapStart")
    parser.add_argument("--images-a-month", type=int, default=_MILLION, help="images that share SnapStart's snapshot")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--write", type=Path, nargs="+", default=[], metavar="PAGE", help="replace the pages' tables")
    given = parser.parse_args()
    assumed = Assumptions(given.cold_share, given.snapstart, given.images_a_month)
    try:
        results = read_results(RESULTS)
        blocks = tables(results, assumed, given.latency_ms)
        for page in given.write:
            write_blocks(page, blocks)
        if given.json:
            print(json.dumps(document(stack_of(results, assumed, given.latency_ms)), indent=1))
        else:
            print("\n\n".join(blocks.values()))
    except ResultsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
