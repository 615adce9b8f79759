"""Tests of the cost estimates and of the recommended functions."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from measured import ONE_GB, rate, results, serving, times, usage
from support import ROOT
from template import parameters, synthesize, synthesize_nested

from benchmarks import bill, cost, estimate
from benchmarks.bill import Compute, Line, Meter, image_lines
from benchmarks.estimate import Assumptions, Results, Serving
from benchmarks.usage import API, API_BATCH, BACKFILL, BULK, IMAGES
from litelens_client import prices

NO_COLD_STARTS = Assumptions(cold_share=0)
NO_TIME = Compute(0, 0)


def without_extra(*servings: Serving) -> Results:
    """Return results in which an image takes the same time on every path."""
    return replace(results(*servings), bulk=tuple(rate(path, 50) for path in (API, BULK, BACKFILL)))


def total(path: str, function: Serving, assumed: Assumptions = NO_COLD_STARTS) -> float:
    return estimate.cost_of(path, function, without_extra(), assumed).total


def dollars(lines: list[Line], service: str, name: str = "") -> float:
    return sum(line.dollars for line in lines if line.meter.service == service and name in line.name)


def test_an_image_costs_compute_time_and_a_request() -> None:
    lines = list(estimate.cost_of(API, serving(), without_extra(), NO_COLD_STARTS).lines)
    assert dollars(lines, "Lambda") == pytest.approx(0.1 * 0.0000166667 + 0.0000002)
    assert dollars(lines, "API Gateway") == pytest.approx(0.0000035)
    assert dollars(lines, "Lambda", "cold starts") == 0


def test_the_images_of_a_request_share_it() -> None:
    one, many = (image_lines(usage(path), "rest", NO_TIME) for path in (API, API_BATCH))
    for service in ("API Gateway", "Lambda"):
        assert dollars(many, service) == pytest.approx(dollars(one, service) / 16)


def test_a_request_costs_what_its_front_door_charges() -> None:
    costs = {door: bill.request_line(usage(API), door).dollars for door in bill.DOORS}
    assert costs == {"rest": prices.API_REQUEST, "http": prices.HTTP_API_REQUEST, "url": 0}


def test_an_http_api_counts_a_large_request_several_times() -> None:
    small, large = 512 * 1024, 512 * 1024 + 1
    lines = [bill.request_line(usage(API, request_bytes=size), "http") for size in (small, large)]
    assert [line.dollars for line in lines] == [prices.HTTP_API_REQUEST, 2 * prices.HTTP_API_REQUEST]
    assert bill.request_line(usage(API, request_bytes=large), "rest").dollars == prices.API_REQUEST


def test_an_upload_costs_its_message_the_calls_and_the_writes_that_were_counted() -> None:
    counted = usage(BULK, calls={"s3:GetObject": 10, "dynamodb:PutItem": 10, "s3:PutObject": 1}, write_units=20)
    lines = image_lines(counted, "rest", NO_TIME)
    assert dollars(lines, "S3") == pytest.approx(prices.S3_GET + prices.S3_PUT / 10)
    assert dollars(lines, "SQS") == pytest.approx(1.2 * prices.SQS_REQUEST)
    assert dollars(lines, "DynamoDB") == pytest.approx(2 * prices.TABLE_WRITE)
    assert dollars(lines, "API Gateway") == dollars(lines, "Step Functions") == 0


def test_only_uploads_cost_the_storage_of_their_photos() -> None:
    photo = bill.photo_lines(usage(BULK))
    assert sum(line.dollars for line in photo) == pytest.approx(prices.S3_PUT + 60_000 / 1e9 * prices.S3_GB_MONTH)
    assert [bill.photo_lines(usage(path)) for path in (API, API_BATCH, BACKFILL)] == [[], [], []]


def test_logs_cost_their_bytes_and_what_is_kept_of_them() -> None:
    lines = image_lines(usage(API), "rest", NO_TIME)
    assert dollars(lines, "CloudWatch") == pytest.approx(1000 / 1e9 * 0.50 + (0.15 * 1000 + 4 * 26) / 1e9 * 0.03)


def test_a_call_without_a_price_is_refused() -> None:
    with pytest.raises(KeyError, match="sns:Publish has no price"):
        image_lines(usage(BULK, calls={"sns:Publish": 1}), "rest", NO_TIME)


def test_free_units_are_shared_by_the_lines_of_a_meter() -> None:
    meter, other = Meter("Lambda", "request", 0.01, free=100), Meter("S3", "GET", 0.5)
    lines = [Line("first", 1, meter), Line("second", 2, meter), Line("third", 1, other)]
    assert bill.month_dollars(lines, 50) == pytest.approx(150 * 0.01 + 25)
    assert bill.month_dollars(lines, 50, free=True) == pytest.approx(50 * 0.01 + 25)
    assert bill.month_dollars(lines, 10, free=True) == pytest.approx(5)


def test_a_hundred_million_images_a_month_reach_no_volume_discount() -> None:
    # The first tiers of https://aws.amazon.com/lambda/pricing/, /api-gateway/pricing/, /s3/pricing/ and
    # /cloudwatch/pricing/, and of data transfer.
    tiers = {
        bill.LAMBDA_DURATION: 6e9,
        bill.REQUESTS["rest"]: 333e6,
        bill.REQUESTS["http"]: 300e6,
        bill.S3_STORAGE: 50_000,
        bill.LOGS: 10_000,
        bill.DATA_OUT: 10_000,
    }
    stack = cost.stack_of(estimate.read_results(estimate.RESULTS), Assumptions(), latency_ms=1000)
    for each in stack.costs.values():
        for line in (*each.lines, *each.photo):
            assert line.quantity * 100e6 <= tiers.get(line.meter, float("inf")), line


def test_rekognition_costs_less_for_each_image_above_its_tiers() -> None:
    assert bill.rekognition_dollars(1_000_000) == pytest.approx(1000)
    assert bill.rekognition_dollars(2_000_000) == pytest.approx(1800)
    assert bill.rekognition_dollars(36_000_000) == pytest.approx(1000 + 3200 + 18_000 + 250)


def test_xray_records_the_first_request_of_a_second_and_a_share_of_the_others() -> None:
    assert bill.traces(1_000_000) == 1_000_000
    assert bill.traces(bill.MONTH_SECONDS + 1_000_000) == pytest.approx(bill.MONTH_SECONDS + 50_000)


def alarms_of(**parameters: str) -> tuple[int, int]:
    """Return the number of metrics that a stack's alarms watch, and of its alarms with anomaly detection."""
    alarms = [
        resource["Properties"]
        for part in ("Alarms", "Release")
        for resource in synthesize_nested(part, **parameters)["Resources"].values()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    ]
    others = [alarm for alarm in alarms if "ThresholdMetricId" not in alarm]
    metrics = sum(
        len([each for each in alarm.get("Metrics", [0]) if each == 0 or "MetricStat" in each]) for alarm in others
    )
    return metrics, len(alarms) - len(others)


def test_a_stack_costs_its_metrics_and_alarms() -> None:
    lines = {line.name: line for line in bill.fixed_lines(results().usage)}
    # Two metrics of the API's function and two of the one for uploads.
    assert lines["metrics of the functions"].dollars == pytest.approx(4 * 0.30)
    metrics, anomalies = alarms_of()
    assert lines["metrics that alarms watch"].quantity == metrics
    assert lines["alarms with anomaly detection"].quantity == anomalies
    # No other template has alarms or dashboards.
    assert not [each for each in synthesize()["Resources"].values() if each["Type"].startswith("AWS::CloudWatch")]


def test_buckets_for_backfills_cost_their_alarm() -> None:
    ((line,),) = [lines for name, lines in bill.monthly_option_lines(1).items() if name.startswith("ImageBuckets")]
    assert line.quantity == alarms_of(ImageBuckets="photos")[0] - alarms_of()[0] > 0


def test_results_as_objects_save_the_table() -> None:
    counted = usage(BULK, write_units=20, table_bytes=9000)
    options = bill.option_lines({each.path: each for each in results().usage} | {BULK: counted})
    both, objects = (
        next(lines for name, lines in options.items() if name.startswith(f"Results={value}"))
        for value in ("both", "objects")
    )
    upload = image_lines(counted, "rest", NO_TIME)
    saved = sum(line.dollars for line in both) - sum(line.dollars for line in objects)
    table = [line for line in upload if line.meter in (bill.TABLE_WRITES, bill.TABLE_STORAGE)]
    assert saved == pytest.approx(sum(line.dollars for line in table))
    assert saved > 0


def test_a_firewall_costs_its_rules() -> None:
    """template.yaml names the price in the description of Waf."""
    dollars_a_month = sum(line.dollars for line in bill.monthly_option_lines(1)["Waf=true"])
    assert parameters()["Waf"]["Description"].endswith(f"at ${dollars_a_month:.0f} a month")


def test_an_invocation_is_billed_by_the_started_millisecond() -> None:
    assert total(API, serving(handler_ms=times(100.2))) == total(API, serving(handler_ms=times(101)))
    assert total(API, serving(handler_ms=times(100.2))) > total(API, serving(handler_ms=times(100)))
    # Ten images are an invocation, of 1,002 ms.
    assert total(BULK, serving(handler_ms=times(100.15))) == total(BULK, serving(handler_ms=times(100.2)))


def test_a_request_with_many_images_has_its_measured_time_or_at_most_that_of_single_ones() -> None:
    measured, single = serving(batch_ms=times(800)), serving()
    assert estimate.milliseconds_per_image(API_BATCH, measured, {}) == 50
    assert estimate.milliseconds_per_image(API_BATCH, single, {}) == 100
    for each, is_computed in ((measured, False), (single, True)):
        stack = cost.stack_of(results(each), Assumptions(), latency_ms=1000)
        assert ("not measured yet" in cost.short_text(stack)) == is_computed


def test_twice_the_memory_at_half_the_time_costs_the_same() -> None:
    larger = serving(memory_mb=2 * ONE_GB, handler_ms=times(50))
    assert total(API, larger) == pytest.approx(total(API, serving()))


def test_a_cold_start_costs_its_extra_time() -> None:
    always = total(API, serving(), Assumptions(cold_share=1)) - total(API, serving())
    assert always == pytest.approx(1.0 * prices.LAMBDA_GB_SECOND)
    assert total(API, serving(), Assumptions(cold_share=0.01)) - total(API, serving()) == pytest.approx(always / 100)


def test_the_images_of_a_batch_share_a_cold_start() -> None:
    added = total(BULK, serving(), Assumptions(cold_share=1)) - total(BULK, serving())
    assert added == pytest.approx(1.0 * prices.LAMBDA_GB_SECOND / 10)


def test_snapstart_costs_restores_and_a_snapshot_instead_of_initialization() -> None:
    assumed = Assumptions(cold_share=1, snapstart=True, images_a_month=1000)
    lines = list(estimate.cost_of(API, serving(memory_mb=2 * ONE_GB), without_extra(), assumed).lines)
    # Of the second that a cold start takes longer, 900 ms are initialization.
    assert dollars(lines, "Lambda", "cold starts") == pytest.approx(2 * 0.1 * prices.LAMBDA_GB_SECOND)
    assert dollars(lines, "Lambda", "restores") == pytest.approx(2 * prices.SNAPSTART_RESTORE_GB)
    assert dollars(lines, "Lambda", "snapshot") == pytest.approx(2 * 0.0000015046 * 30 * 24 * 3600 / 1000)


def test_an_image_of_a_batch_takes_the_measured_extra_time_and_more_with_less_cpu() -> None:
    extra = results().extra_seconds()
    assert extra == pytest.approx({API: 0, BULK: 0.03, BACKFILL: 0.005})
    assert estimate.milliseconds_per_image(BULK, serving(), extra) == pytest.approx(130)
    assert estimate.milliseconds_per_image(BULK, serving(cpus=0.5), extra) == pytest.approx(160)
    # Calls of AWS do not become faster by a second core.
    assert estimate.milliseconds_per_image(BULK, serving(cpus=2.0), extra) == pytest.approx(130)


def recommended(*servings: Serving, latency_ms: float | None = None) -> Serving | None:
    costs = [estimate.cost_of(API, each, without_extra(), NO_COLD_STARTS) for each in servings]
    found = estimate.recommend(costs, latency_ms)
    return found.serving if found else None


def test_the_cheapest_is_recommended() -> None:
    slow, fast = serving(handler_ms=times(200)), serving(handler_ms=times(100))
    assert recommended(slow, fast) == fast


def test_a_function_without_spare_memory_is_not_recommended() -> None:
    tight, roomy = serving(peak_rss_mb=900.0), serving(handler_ms=times(200))
    assert recommended(tight, roomy) == roomy
    assert recommended(tight) is None


def test_a_function_that_answers_too_late_is_not_recommended() -> None:
    late = serving(memory_mb=512, handler_ms=times(180))
    in_time = serving(handler_ms=times(100))
    assert recommended(late, in_time) == late
    assert recommended(late, in_time, latency_ms=150) == in_time
    assert recommended(late, in_time, latency_ms=50) is None


def test_of_functions_with_nearly_equal_cost_the_one_with_the_most_spare_memory_is_recommended() -> None:
    cheapest = serving()
    roomy = serving(memory_mb=2 * ONE_GB, handler_ms=times(51))
    roomy_but_dear = serving(memory_mb=4 * ONE_GB, handler_ms=times(40))
    assert total("api", cheapest) < total("api", roomy) < 1.02 * total("api", cheapest) < total("api", roomy_but_dear)
    assert recommended(cheapest, roomy, roomy_but_dear) == roomy


def test_the_latency_limits_requests_only() -> None:
    slow = results(serving(handler_ms=times(2000)))
    found = estimate.recommendations(estimate.costs_of(slow, NO_COLD_STARTS), latency_ms=1000)
    assert found[API] is None
    assert found[BULK]
    assert found[BACKFILL]
    advice = cost.advice(found, 1000)
    assert "no measured function has enough memory and answers within 1,000 ms." in advice
    with pytest.raises(estimate.ResultsError, match="raise --latency-ms"):
        cost.stack_of(slow, NO_COLD_STARTS, latency_ms=1000)


def test_the_short_table_has_a_row_for_each_path_and_one_to_compare_with() -> None:
    stack = cost.stack_of(results(), NO_COLD_STARTS, latency_ms=1000)
    rows = [row.split(" | ") for row in cost.short_table(stack).splitlines()[2:]]
    assert len(rows) == 5
    for row, path in zip(rows, IMAGES, strict=False):
        assert row[1] == f"${stack.cost(path, 'rest').total * 1e6:.2f}"
    assert rows[0][3] == f"${stack.cost(API, 'url').total * 1e6:.2f} |"
    assert rows[4][1] == "$1,000.00"


def test_the_lines_of_a_path_add_up_to_its_cost() -> None:
    stack = cost.stack_of(results(), NO_COLD_STARTS, latency_ms=1000)
    for path in IMAGES:
        rows = cost.lines_table(stack.cost(path, "rest")).splitlines()[2:]
        amounts = [float(row.split("$")[-1].rstrip(" |*").replace(",", "")) for row in rows]
        (together,) = [number for number, row in enumerate(rows) if "together" in row]
        assert sum(amounts[:together]) == pytest.approx(amounts[together], abs=0.01 * together)


def test_the_json_document_has_the_lines_of_each_path_and_front_door(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cost", "--json"])
    cost.main()
    document = json.loads(capsys.readouterr().out)
    named = [(each["path"], each["front_door"]) for each in document["paths"]]
    assert named == [
        *((path, door) for path in (API, API_BATCH) for door in ("rest", "http", "url")),
        (BULK, None),
        (BACKFILL, None),
    ]
    for each in document["paths"]:
        assert sum(line["dollars"] for line in each["lines"]) == pytest.approx(each["dollars"])
        assert each["month_with_free_tiers"]["10000"] < each["month"]["10000"]


def test_the_table_has_a_row_per_function_and_the_recommended_ones_in_bold() -> None:
    measured_here = results(serving(), serving(engine="openvino", handler_ms=times(60)))
    costs = estimate.costs_of(measured_here, NO_COLD_STARTS)
    found = estimate.recommendations(costs, 1000)
    lines = cost.memory_table(costs, found).splitlines()
    openvino, *_ = [each for each in costs if each.path == API and each.serving.engine == "openvino"]
    assert lines[2].startswith("| litert | 1,024 MB | 1 | 100 ms | $")
    assert lines[3].startswith(f"| openvino | 1,024 MB | 1 | 60 ms | **${openvino.total * 1e6:.2f}** | **$")


def test_the_table_of_cold_starts_has_each_engine_with_its_recommended_memory() -> None:
    measured_here = results(
        serving(), serving(memory_mb=4 * ONE_GB), serving(engine="openvino", handler_ms=times(60), init_ms=1000.0)
    )
    rows = cost.cold_starts_table(measured_here, Assumptions(), 1000).splitlines()[2:]
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| litert", "1,024 MB", "1,100 ms", "900 ms"],
        ["| openvino", "1,024 MB", "1,100 ms", "1,000 ms"],
    ]
    by_init, by_snapstart = rows[0].split(" | ")[4], rows[0].split(" | ")[7]
    assert by_init == f"${total(API, serving(), Assumptions(0.001)) * 1e6:.2f}"
    assert by_snapstart == f"${total(API, serving(), Assumptions(0.001, snapstart=True)) * 1e6:.2f}"


def test_parts_of_the_results_that_costs_do_not_need_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(results()), "peers": {"rounds": 3}}))
    assert estimate.read_results(path) == results()


def test_missing_results_are_reported_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(estimate.ResultsError, match=r"^results\.json does not exist\. Run: make bench$"):
        estimate.read_results(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "Object missing required field `container`"),
        ('{"container": {"serving": []}, "bulk": []}', "missing required field `model`"),
        ("no JSON", "invalid"),
    ],
)
def test_incomplete_results_are_reported(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(estimate.ResultsError, match=reason) as refused:
        estimate.read_results(path)
    assert str(refused.value).endswith("Run: make bench")


def test_the_text_below_the_table_has_the_assumptions() -> None:
    text = cost.tables(results(), Assumptions(0.1), 1000)["cost"]
    assert f"Prices: {prices.ABOUT}, before free tiers. Function: litert with 1,024 MB." in text
    assert "Model: everyday, 240x240 pixels. 10% of the invocations have a cold start." in text


def test_missing_paths_are_reported() -> None:
    with pytest.raises(estimate.ResultsError, match="lack bulk, backfill"):
        replace(results(), bulk=(rate(API, 50),)).extra_seconds()
    with pytest.raises(estimate.ResultsError, match="lack api-batch"):
        replace(results(), usage=(usage(API),)).usage_of(API_BATCH)


def test_only_the_text_between_the_markers_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- cost -->\nold\n<!-- /cost -->\n\n<!-- other -->\nkept\n<!-- /other -->\n")
    for _ in range(2):
        cost.write_blocks(page, {"cost": "new $1 \\1", "elsewhere": "not here"})
        assert page.read_text() == (
            "Before.\n\n<!-- cost -->\nnew $1 \\1\n<!-- /cost -->\n\n<!-- other -->\nkept\n<!-- /other -->\n"
        )


def test_a_page_without_markers_is_not_changed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Nothing.\n")
    with pytest.raises(estimate.ResultsError, match="add <!-- cost --> and <!-- /cost -->"):
        cost.write_blocks(page, {"cost": "new"})
    assert page.read_text() == "Nothing.\n"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("README.md", ["cost"]),
        (
            "docs/costs.md",
            ["cost-lines", "cost-fixed", "cost-month", "cost-month-free", "cost-free", "cost-options", "cost-memory"],
        ),
        ("docs/costs.md", ["cost-cold"]),
        ("docs/scale.md", ["scale", "bursts"]),
    ],
)
def test_the_pages_have_the_markers_of_make_cost(page: str, names: list[str]) -> None:
    text = (ROOT / page).read_text()
    for name in names:
        assert text.count(f"<!-- {name} -->\n") == text.count(f"<!-- /{name} -->\n") == 1


def test_the_figures_in_the_text_on_costs_follow_from_the_prices() -> None:
    text = " ".join((ROOT / "docs" / "costs.md").read_text().split())
    assert f"as much as {prices.SNAPSTART_RESTORE_GB / prices.LAMBDA_GB_SECOND:.1f} seconds of initialization" in text
    assert f"is {1 - prices.LAMBDA_ARM_GB_SECOND / prices.LAMBDA_GB_SECOND:.0%} cheaper" in text
    month = 1769 / 1024 * prices.SNAPSTART_CACHE_GB_SECOND * bill.MONTH_SECONDS
    assert f"${month:.2f} a month" in text


def test_the_pages_have_the_tables_computed_from_the_results() -> None:
    computed = cost.tables(estimate.read_results(estimate.RESULTS), Assumptions(), latency_ms=1000)
    pages = [(ROOT / page).read_text() for page in ("README.md", "docs/costs.md", "docs/scale.md")]
    for name, block in computed.items():
        marked = [page for page in pages if f"<!-- {name} -->" in page]
        assert marked
        assert all(f"<!-- {name} -->\n{block}\n<!-- /{name} -->" in page for page in marked)
