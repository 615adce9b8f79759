"""Tests of the tables in docs/scale.md."""

import json

from step_functions import backfill_definition
from template import parameters, synthesize_nested

from benchmarks import scale
from benchmarks.bulk import TEMPLATE_SETTINGS
from litelens.bulk.worker import THREADS
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
    states = json.loads(backfill_definition())["States"]
    assert {setting.path: (setting.batch, setting.threads) for setting in TEMPLATE_SETTINGS} == {
        "bulk": (source["BatchSize"], THREADS),
        "backfill": (states["Listing"]["ItemBatcher"]["MaxItemsPerBatch"], THREADS),
        "api": (1, 1),
    }
