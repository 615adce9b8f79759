"""The simulation of bursts keeps to AWS's rules, and to what holds for every queue."""

import json
import math
import subprocess
import sys
from argparse import ArgumentTypeError
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from measured import results, serving
from support import ROOT

from benchmarks import bursts
from benchmarks.simulation import Burst, Drain, Function, Quotas, function_of, simulate_requests, simulate_uploads
from client import prices

# A tenth of a second for an image, and a second more for a cold start.
QUICK = Function(1.0, [0.1], [1.0])
VARIED = Function(1.0, [0.05, 0.1, 0.3], [0.8, 1.2])


def requests(
    function: Function = QUICK,
    rate: float = 100,
    seconds: float = 20,
    quotas: Quotas | None = None,
    retries: int = 5,
    seed: int = 0,
) -> Burst:
    return simulate_requests(function, rate, seconds, quotas or Quotas(), retries=retries, seed=seed)


def uploads(function: Function = QUICK, rate: float = 100, seconds: float = 20, limit: int = 1000) -> Drain:
    return simulate_uploads(function, rate, seconds, concurrency=limit, seed=0)


def test_requests_in_flight_are_the_rate_times_the_time_that_each_takes() -> None:
    burst = requests(VARIED, rate=200, seconds=300)
    # Little's law. The mean time is 150 ms, and 2 in 1,000 begin with a second more.
    in_function = (0.05 + 0.1 + 0.3) / 3 + burst.cold_starts / burst.requests
    assert burst.mean_concurrency == pytest.approx(burst.requests / 300 * in_function, rel=0.02)


@pytest.mark.parametrize("rate", [1, 100, 500])
def test_below_the_limits_nothing_is_refused(rate: float) -> None:
    burst = requests(rate=rate)
    assert burst.gateway_throttles == burst.lambda_throttles == burst.delayed == burst.failed == 0
    assert burst.answered == burst.requests


def test_requests_come_at_the_rate() -> None:
    assert requests(rate=500, seconds=20).requests == pytest.approx(10_000, rel=0.04)


@pytest.mark.parametrize("retries", [0, 1, 5])
@pytest.mark.parametrize("rate", [50, 500, 5000])
def test_every_request_is_answered_or_fails(rate: float, retries: int) -> None:
    burst = requests(VARIED, rate=rate, seconds=3, quotas=Quotas(invocations=100), retries=retries)
    assert burst.answered + burst.failed == burst.requests
    assert burst.failed <= burst.delayed <= burst.requests
    assert burst.peak_concurrency <= 100


def test_the_same_seed_gives_the_same_burst_and_another_one_another() -> None:
    assert requests(VARIED, rate=2000, seconds=5, seed=1) == requests(VARIED, rate=2000, seconds=5, seed=1)
    assert requests(VARIED, rate=2000, seconds=5, seed=1) != requests(VARIED, rate=2000, seconds=5, seed=2)


def test_an_environment_begins_where_none_is_idle_and_is_used_again() -> None:
    burst = requests(rate=100)
    # Nothing ends in so short a time, so that all environments that were begun were once busy together.
    assert burst.cold_starts == burst.peak_concurrency
    assert burst.cold_starts < burst.requests / 10


def test_cold_starts_are_what_is_billed_beyond_the_images() -> None:
    burst = requests(rate=100)
    free = replace(QUICK, start=[0.0])
    assert requests(free, rate=100).cold_starts < burst.cold_starts
    images = burst.answered * 0.1
    compute = burst.dollars - burst.answered * (prices.LAMBDA_REQUEST + prices.API_REQUEST + 1900 * prices.LOG_GB / 1e9)
    assert compute / prices.LAMBDA_GB_SECOND == pytest.approx(images + burst.cold_starts * 1.0, rel=1e-6)


def test_idle_environments_end_after_minutes() -> None:
    # Some 60 requests, one after the other: a minute apart, and half an hour apart.
    assert requests(rate=1 / 60, seconds=3600).cold_starts <= 3
    rare = requests(rate=1 / 1800, seconds=60 * 1800)
    assert rare.cold_starts > 0.7 * rare.requests
    assert rare.peak_concurrency == 1


def test_a_function_begins_a_thousand_environments_and_a_hundred_more_a_second() -> None:
    endless = Function(1.0, [60.0], [1.0])
    burst = requests(endless, rate=1000, seconds=5, quotas=Quotas().times(10), retries=0)
    assert burst.cold_starts == pytest.approx(1000 + 5 * 100, abs=2)
    assert burst.lambda_throttles == burst.requests - burst.cold_starts


def test_the_account_has_ten_requests_a_second_for_each_invocation() -> None:
    instant = Function(1.0, [0.001], [0.0])
    burst = requests(instant, rate=2000, seconds=10, quotas=Quotas(invocations=100), retries=0)
    # A thousand a second, and as many at first.
    assert burst.answered == pytest.approx(11_000, rel=0.01)


def test_the_api_has_so_many_requests_a_second_and_some_saved_up() -> None:
    quotas = Quotas(invocations=10_000, gateway_rate=1000, gateway_burst=500)
    burst = requests(Function(1.0, [0.1], [0.0]), rate=2000, seconds=10, quotas=quotas, retries=0)
    assert burst.requests - burst.gateway_throttles == pytest.approx(10_500, rel=0.01)
    assert burst.lambda_throttles == 0


def test_quotas_may_be_raised() -> None:
    assert Quotas().times(2) == Quotas(2000, 20_000, 10_000)


def test_trying_again_helps_through_a_burst_and_not_beyond_what_there_is() -> None:
    few = Quotas(invocations=100)
    assert requests(rate=500, quotas=few, retries=0).failed == requests(rate=500, quotas=few, retries=0).delayed > 0
    assert requests(rate=500, quotas=few, retries=8).failed == 0
    # A hundred environments answer a thousand a second.
    assert requests(rate=2000, quotas=few, retries=5).failed > 0.2 * 2000 * 20


def test_a_burst_is_steady_when_hardly_anything_is_cold_or_refused_any_more() -> None:
    assert requests(rate=100).steady_after in (1.0, 2.0)
    assert requests(rate=2000, quotas=Quotas(invocations=100), retries=0).steady_after is None


def test_snapstart_begins_faster_and_costs_more() -> None:
    extra = results().extra_seconds()
    begun = requests(function_of(serving(), "api", extra))
    restored = requests(function_of(serving(), "api", extra, restore_ms=200))
    assert restored.p99
    assert begun.p99
    assert restored.p99 < begun.p99
    assert restored.dollars > begun.dollars


def test_restoring_takes_time_that_is_not_billed() -> None:
    function = function_of(serving(), "api", results().extra_seconds(), restore_ms=200)
    # Of the second that a cold start takes, 900 ms are initialization.
    assert function.start == pytest.approx([0.3])
    assert function.unbilled == 0.2
    assert function.start_dollars == prices.SNAPSTART_RESTORE_GB


def test_an_image_of_a_batch_takes_longer_as_it_was_measured() -> None:
    extra = results().extra_seconds()
    assert function_of(serving(), "api", extra).image == pytest.approx([0.1])
    assert function_of(serving(), "bulk", extra).image == pytest.approx([0.13])


def test_no_upload_is_lost_and_batches_are_full_when_there_is_much() -> None:
    drain = uploads(rate=2000)
    assert drain.uploads == pytest.approx(40_000, rel=0.03)
    assert drain.batches == math.ceil(drain.uploads / 10)


def test_an_upload_that_comes_alone_waits_for_others_as_long_as_a_batch_may() -> None:
    drain = uploads(rate=0.01, seconds=2000)
    assert drain.batches == drain.uploads
    assert drain.p50 == pytest.approx(1 + 0.1)


def test_batches_at_a_time_become_five_more_each_second_while_uploads_wait() -> None:
    slow = Function(1.0, [2.0], [0.0])
    assert uploads(slow, rate=20, seconds=10).peak_concurrency == pytest.approx(20, abs=4)
    # No batch is done before 20 seconds, in which 100 more have begun beside the first five.
    drain = uploads(slow, rate=1000, seconds=10)
    assert 5 + 5 * 20 < drain.peak_concurrency <= 5 + 5 * drain.drained_after


def test_batches_at_a_time_stay_below_their_limit() -> None:
    drain = uploads(rate=1000, seconds=20, limit=10)
    assert drain.peak_concurrency == drain.cold_starts == 10
    # Ten at a time do a hundred uploads a second.
    assert drain.drained_after == pytest.approx(drain.uploads / 100, rel=0.02)


def test_uploads_cost_as_much_however_long_they_wait() -> None:
    assert uploads(rate=500, limit=10).dollars == pytest.approx(uploads(rate=500, limit=1000).dollars, rel=0.02)


def command(tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode(results(serving(), serving(engine="openvino", peak_rss_mb=1000.0))))
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bursts", "--results", str(path), "--seconds", "2", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command_renews_the_page_for_the_recommended_function(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bursts -->\n<!-- /bursts -->\n")
    done = command(tmp_path, "--rates", "10,50", "--write", str(page))
    assert done.returncode == 0
    assert page.read_text() == f"<!-- bursts -->\n{done.stdout}<!-- /bursts -->\n"
    assert "of requests to litert with 1,024 MB" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith(("| 10 |", "| 50 |"))]) == 8


def test_the_command_prints_json(tmp_path: Path) -> None:
    printed: dict[str, Any] = json.loads(command(tmp_path, "--rates", "10", "--quotas", "3", "--json").stdout)
    (burst,) = printed["requests"]
    assert burst["quotas"] == {"invocations": 3000, "gateway_rate": 30_000, "gateway_burst": 15_000}
    assert [drain["concurrency"] for drain in printed["uploads"]] == [10, 1000]


def test_a_function_without_memory_to_spare_is_not_simulated(tmp_path: Path) -> None:
    done = command(tmp_path, "--engine", "openvino")
    assert done.returncode == 1
    assert done.stderr.startswith("No such function that answers in time and has memory to spare was measured")


@pytest.mark.parametrize("text", ["", "0", "10,", "-1", "ten", "1.5"])
def test_rates_are_whole_numbers_above_0(text: str) -> None:
    assert bursts.numbers("10,1000") == [10, 1000]
    with pytest.raises(ArgumentTypeError, match="give whole numbers above 0, separated by commas"):
        bursts.numbers(text)


def test_a_burst_in_which_nothing_comes_has_a_row_too() -> None:
    nothing = simulate_requests(QUICK, 0.001, 1, Quotas(), retries=0, seed=0)
    assert nothing.requests == 0
    assert (
        bursts.requests_table([nothing])
        .splitlines()[2]
        .startswith("| 0 | 10,000/s | 1,000 | 0 | 0 | 0.0% | 0.0% |  |  |  |")
    )
