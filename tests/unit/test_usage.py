"""Tests that the costs are computed from what the deployed handlers use."""

import pytest

from benchmarks import estimate, usage
from benchmarks.bill import Compute, image_lines
from benchmarks.usage import IMAGES


@pytest.mark.parametrize("path", IMAGES)
def test_the_handlers_use_what_the_costs_are_computed_from(path: str) -> None:
    counted = usage.count(path)
    recorded = estimate.read_results(estimate.RESULTS).usage_of(path)
    assert (counted.images, counted.calls, counted.write_units, counted.metrics) == (
        recorded.images,
        recorded.calls,
        recorded.write_units,
        recorded.metrics,
    )
    # Numbers such as confidences and times have different lengths.
    for name in ("log_bytes", "answer_bytes", "table_bytes", "request_bytes"):
        assert getattr(counted, name) == pytest.approx(getattr(recorded, name), rel=0.05)
    # Every call has a price.
    assert image_lines(counted, "rest", Compute(0, 0))


def test_an_item_has_the_size_of_its_names_and_values() -> None:
    assert usage.item_bytes({"image": {"S": "bücket"}, "time": {"N": "1234567"}, "document": {"B": "AAAA"}}) == (
        5 + 7 + 4 + 5 + 8 + 3
    )
