"""docs/scale.md: what it computes follows from what it says was measured."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from support import DEFAULT_BUNDLE, ROCKET, ROOT
from template import parameters, synthesize_nested

from adapters.results import ResultId
from benchmarks import scale, simulation
from handlers.answers import BulkResult, Model, classification_of
from handlers.batches import PARALLEL
from litelens.bundle import load_bundle
from litelens.classifier import Classifier
from litelens.images import Limits

PAGE = (ROOT / "docs" / "scale.md").read_text()
ROW = re.compile(
    r"^\| (bulk|backfill|api) \| ([\d.]+) \| (\d+) ms \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \([\d.]+ to [\d.]+\) ",
    re.MULTILINE,
)


def measured() -> list[dict[str, Any]]:
    """The table of what was measured, as the benchmark prints it."""
    return [
        {
            "setting": {
                "path": path,
                "megapixels": float(megapixels),
                "latency": int(latency) / 1000,
                "batch": int(batch),
                "threads": int(threads),
                "workers": int(workers),
            },
            "median": float(images),
        }
        for path, megapixels, latency, batch, threads, workers, images in ROW.findall(PAGE)
    ]


def test_times_and_costs_follow_from_what_was_measured() -> None:
    rates = scale.rates_of(measured())
    assert [(rate.path, rate.megapixels) for rate in rates] == [
        (path, size) for path in scale.PATHS for size in (0.3, 12)
    ]
    assert scale.totals(rates) in PAGE
    assert scale.breakdown(rates) in PAGE


def test_the_defaults_are_the_templates() -> None:
    declared = parameters()
    assert declared["BulkConcurrency"]["Default"] == scale.BULK_CONCURRENCY
    assert declared["BackfillConcurrency"]["Default"] == scale.BACKFILL_CONCURRENCY
    assert declared["RateLimit"]["Default"] == scale.API_RATE
    assert declared["MemorySize"]["Default"] / 1024 == scale.FUNCTION_GB
    source = synthesize_nested("Bulk")["Resources"]["BulkSource"]["Properties"]
    assert source["BatchSize"] == scale.MESSAGES == PARALLEL
    assert source["MaximumBatchingWindowInSeconds"] == simulation.BATCH_WINDOW


def test_a_result_has_the_size_that_is_counted_on() -> None:
    shown = classification_of(
        Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1).classify(ROCKET.read_bytes())
    )
    model = Model("everyday", "1.0.0")
    key, revision = "uploads/2026/11/21/photo-0001.jpg", "9b2cf535f27731c974343645a3985328"
    result = BulkResult("litelens-storage-uploads", key, revision, model, datetime.now(UTC).isoformat(), shown)
    result_id = ResultId(result.bucket, key, revision, "everyday/1.0.0")
    keys = sum(map(len, (result_id.bucket, key, key, revision, result_id.model, result.time)))
    assert (scale.RESULT_UNITS - 1) * 1024 < len(msgspec.json.encode(result)) + keys < scale.RESULT_UNITS * 1024
