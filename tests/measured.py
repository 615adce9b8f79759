"""What `make bench` might have measured, for the tests of what follows from it."""

from dataclasses import replace
from typing import Any

from benchmarks.cost import Container, Results, Serving, Spread

ONE_GB = 1024


def spread(milliseconds: float) -> Spread:
    return Spread(milliseconds, milliseconds, milliseconds, (milliseconds,))


def serving(**changes: Any) -> Serving:
    """A function of 1 GB that takes 100 ms."""
    usual = Serving("everyday", "litert", 240, ONE_GB, 1.0, 1, spread(100), spread(1100), 900.0, 300.0)
    return replace(usual, **changes)


def rate_of(path: str, images: float) -> dict[str, Any]:
    """What benchmarks/bulk.py prints of one of the usual settings."""
    batch = {"api": 1, "bulk": 10, "backfill": 100}[path]
    threads = 1 if path == "api" else 10
    setting = {"path": path, "megapixels": 0.3, "latency": 0.02, "batch": batch, "threads": threads, "workers": 1}
    return {"setting": setting, "median": images, "least": images, "most": images}


def results(*servings: Serving) -> Results:
    """Of images that take 20 ms in a request, 50 ms in a batch of uploads, and 25 ms in a backfill's."""
    bulk = (rate_of("api", 50), rate_of("bulk", 20), rate_of("backfill", 40))
    return Results(Container("everyday", servings or (serving(),)), bulk)
