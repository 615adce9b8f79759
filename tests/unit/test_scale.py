"""Tests of the tables in docs/scale.md, and of the facts that costs are computed from."""

from datetime import UTC, datetime

import msgspec
from support import DEFAULT_BUNDLE, ROCKET
from template import parameters, synthesize_nested

from benchmarks import cost, scale
from benchmarks.bulk import TEMPLATE_SETTINGS
from litelens.api.response_schemas import BulkResult, Model, classification_of
from litelens.aws.results_table import ResultId
from litelens.bulk.worker import THREADS
from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits
from litelens_client.backfill import FUNCTION_GB


def test_the_time_for_many_images_is_their_number_divided_by_the_rate_of_all_functions() -> None:
    rows = scale.times_table({"bulk": 20.0, "backfill": 50.0, "api": 100.0}).splitlines()[2:]
    assert rows == [
        "| bulk | 20 | 83 minutes | 50 seconds | 5.8 days | 83 minutes |",
        "| backfill | 50 | 3.3 minutes | 20 seconds | 5.6 hours | 33 minutes |",
        "| api | 100 | 28 hours | 100 seconds | 120 days | 2.8 hours |",
    ]


def test_a_burst_needs_an_environment_for_each_request_that_arrives_during_the_first_cold_start() -> None:
    rows = scale.burst_table(request_seconds=0.01, cold_seconds=0.25).splitlines()[2:]
    assert rows == [
        "| 10 | 1 | 3 | 0 |",
        "| 100 | 1 | 25 | 0 |",
        "| 1,000 | 10 | 250 | 0 |",
        "| 10,000 | 100 | 1,000 | 1,500 |",
    ]


def test_the_defaults_are_those_of_the_template() -> None:
    declared = parameters()
    assert declared["BulkConcurrency"]["Default"] == scale.BULK_CONCURRENCY
    assert declared["BackfillConcurrency"]["Default"] == scale.BACKFILL_CONCURRENCY
    assert declared["RateLimit"]["Default"] == scale.API_RATE
    assert declared["MemorySize"]["Default"] / 1024 == FUNCTION_GB
    source = synthesize_nested("Bulk")["Resources"]["BulkSource"]["Properties"]
    assert source["BatchSize"] == cost.MESSAGES
    assert {setting.path: (setting.batch, setting.threads) for setting in TEMPLATE_SETTINGS} == {
        "bulk": (cost.MESSAGES, THREADS),
        "backfill": (cost.BATCH, THREADS),
        "api": (1, 1),
    }


def test_a_result_has_the_size_that_costs_assume() -> None:
    shown = classification_of(
        Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1).classify(ROCKET.read_bytes())
    )
    model = Model("everyday", "1.0.0")
    key, revision = "uploads/2026/11/21/photo-0001.jpg", "9b2cf535f27731c974343645a3985328"
    result = BulkResult("litelens-storage-uploads", key, revision, model, datetime.now(UTC).isoformat(), shown)
    result_id = ResultId(result.bucket, key, revision, "everyday/1.0.0")
    keys = sum(map(len, (result_id.bucket, key, key, revision, result_id.model, result.time)))
    assert (cost.RESULT_UNITS - 1) * 1024 < len(msgspec.json.encode(result)) + keys < cost.RESULT_UNITS * 1024
