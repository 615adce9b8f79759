"""What 10, 1,000 and 10,000 requests or uploads a second do to the stack, by what `make bench` measured.

Prints the tables of docs/scale.md, for the functions that are the cheapest; benchmarks/simulation.py has the rules.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.cost import (
    Assumptions,
    Cost,
    ResultsError,
    Serving,
    add_arguments,
    costs_of,
    read_results,
    recommend,
    write_blocks,
)
from benchmarks.report import table
from benchmarks.scale import ACCOUNT_INVOCATIONS, BULK_CONCURRENCY
from benchmarks.simulation import Burst, Drain, Quotas, function_of, simulate_requests, simulate_uploads


def requests_table(bursts: Sequence[Burst]) -> str:
    """What became of requests, as Markdown."""
    heads = ["requests/s", "API's limit", "Lambda's limit", "most at a time", "cold starts", "refused at first"]
    heads += ["failed", "p50", "p95", "p99", "steady after", "cost"]
    rows = [
        [
            f"{burst.rate:,.0f}",
            f"{burst.quotas.gateway_rate:,}/s",
            f"{burst.quotas.invocations:,}",
            f"{burst.peak_concurrency:,}",
            f"{burst.cold_starts:,}",
            f"{burst.delayed / max(burst.requests, 1):.1%}",
            f"{burst.failed / max(burst.requests, 1):.1%}",
            *(_duration(seconds) for seconds in (burst.p50, burst.p95, burst.p99)),
            "never" if burst.steady_after is None else f"{burst.steady_after:.0f} s",
            f"${burst.dollars:,.2f}",
        ]
        for burst in bursts
    ]
    return table(heads, rows)


def uploads_table(drains: Sequence[Drain]) -> str:
    """What became of uploads, as Markdown."""
    heads = ["uploads/s", "batches' limit", "most at a time", "cold starts"]
    heads += ["p50", "p95", "p99", "all done after", "cost"]
    rows = [
        [
            f"{drain.rate:,.0f}",
            f"{drain.concurrency:,}",
            f"{drain.peak_concurrency:,}",
            f"{drain.cold_starts:,}",
            *(_duration(seconds) for seconds in (drain.p50, drain.p95, drain.p99, drain.drained_after)),
            f"${drain.dollars:,.2f}",
        ]
        for drain in drains
    ]
    return table(heads, rows)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:,.0f} minutes"


def _chosen(costs: Sequence[Cost], path: str, given: argparse.Namespace) -> Serving:
    """What is recommended for the path, of the engine and with the memory that were asked for; raises ResultsError."""
    asked = [
        cost
        for cost in costs
        if cost.path == path
        and given.engine in (None, cost.serving.engine)
        and given.memory in (None, cost.serving.memory_mb)
    ]
    cost = recommend(asked, given.latency_ms if path == "api" else None)
    if cost is None:
        raise ResultsError("No such function that answers in time and has memory to spare was measured; try another.")
    return cost.serving


def _simulate(given: argparse.Namespace) -> tuple[str, list[Burst], list[Drain]]:
    """What was simulated, in a sentence, and what came of it; raises ResultsError."""
    results = read_results(given.results)
    extra, costs = results.extra_seconds(), costs_of(results, Assumptions(), given.model)
    servings = {path: _chosen(costs, path, given) for path in ("api", "bulk")}
    api, bulk = (function_of(serving, path, extra, given.restore_ms) for path, serving in servings.items())
    bursts, drains = [], []
    for rate in given.rates:
        print(f"Simulating {rate:,} a second for {given.seconds:g} seconds ...", file=sys.stderr)
        bursts += [
            simulate_requests(api, rate, given.seconds, Quotas().times(factor), retries=given.retries, seed=given.seed)
            for factor in given.quotas
        ]
        drains += [
            simulate_uploads(bulk, rate, given.seconds, concurrency=limit, seed=given.seed) for limit in given.batches
        ]
    names = {path: f"{serving.engine} with {serving.memory_mb:,} MB" for path, serving in servings.items()}
    told = (
        f"Bursts of {given.seconds:g} seconds: of requests to {names['api']}, which clients send again at most "
        f"{given.retries} times when they are refused, and of uploads to {names['bulk']}."
    )
    return told, bursts, drains


def numbers(text: str) -> list[int]:
    """Whole numbers above 0 that are separated by commas, for argparse."""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError("give whole numbers above 0, separated by commas, such as 10,1000")
    return [int(part) for part in parts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rates", type=numbers, default=[10, 1000, 10_000], help="a second (default: 10,1000,10000)")
    parser.add_argument("--seconds", type=float, default=60, help="that the burst lasts (default: 60)")
    parser.add_argument("--quotas", type=numbers, default=[1, 2], help="times the default ones (default: 1,2)")
    parser.add_argument(
        "--batches",
        type=numbers,
        default=[BULK_CONCURRENCY, ACCOUNT_INVOCATIONS],
        help="of uploads at a time, which is BulkConcurrency (default: 10,1000)",
    )
    parser.add_argument("--retries", type=int, default=5, help="of what is refused (default: 5)")
    parser.add_argument("--restore-ms", type=float, help="what SnapStart takes for an environment (default: it is off)")
    parser.add_argument("--engine", help="(default: the one that is recommended)")
    parser.add_argument("--memory", type=int, help="in MB (default: what is recommended)")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default: 0)")
    given = parser.parse_args()
    try:
        told, bursts, drains = _simulate(given)
        tables = f"{told}\n\n{requests_table(bursts)}\n\n{uploads_table(drains)}"
        for page in given.write:
            write_blocks(page, {"bursts": tables})
    except ResultsError as error:
        sys.exit(str(error))
    if given.json:
        print(json.dumps({"requests": [asdict(each) for each in bursts], "uploads": [asdict(each) for each in drains]}))
    else:
        print(tables)


if __name__ == "__main__":
    main()
