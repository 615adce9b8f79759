"""Invented results of `make bench`, for the tests of cost estimates."""

from dataclasses import replace
from typing import Any

from benchmarks.bulk import TEMPLATE_SETTINGS, Measured
from benchmarks.estimate import Container, Results, Serving, Times
from benchmarks.usage import IMAGES, Usage

ONE_GB = 1024


def times(milliseconds: float) -> Times:
    return Times(milliseconds, (milliseconds,))


def serving(**changes: Any) -> Serving:
    """Return a function of 1 GB that takes 100 ms."""
    return replace(Serving("litert", ONE_GB, 1.0, times(100), times(1100), 900.0, 300.0), **changes)


def rate(path: str, images: float) -> Measured:
    (setting,) = [each for each in TEMPLATE_SETTINGS if each.path == path]
    return Measured(setting, images, images, images)


def usage(path: str, **changes: Any) -> Usage:
    """Return the usage of an invocation that calls nothing, logs 1,000 bytes and answers with 500 for each image."""
    images = IMAGES[path]
    counted = Usage(
        path,
        images,
        calls={},
        write_units=0,
        table_bytes=0,
        log_lines=4,
        log_bytes=1000 * images,
        result_log_bytes=600 * images,
        metrics=("Classified", "Duration"),
        photo_bytes=60_000,
        request_bytes=60_000 * images,
        answer_bytes=500 * images,
    )
    return replace(counted, **changes)


def results(*servings: Serving) -> Results:
    """Return results in which an image takes 20 ms in a request, 50 ms in bulk and 25 ms in a backfill."""
    rates = (rate("api", 50), rate("bulk", 20), rate("backfill", 40))
    return Results(Container("everyday", 240, servings or (serving(),)), rates, tuple(map(usage, IMAGES)))
