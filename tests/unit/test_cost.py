"""Tests of the cost estimates and of the recommended functions."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from measured import ONE_GB, rate, results, serving, times
from support import ROOT

from benchmarks import cost
from benchmarks.cost import Assumptions, Serving
from litelens_client import prices

NO_COLD_STARTS = Assumptions(cold_share=0)
NO_EXTRA = {"api": 0.0, "bulk": 0.0, "backfill": 0.0}


def total(path: str, function: Serving, assumed: Assumptions = NO_COLD_STARTS) -> float:
    return cost.cost_of(path, function, NO_EXTRA, assumed).total


def test_an_image_costs_compute_time_a_request_and_the_services_around_it() -> None:
    dollars = cost.cost_of("api", serving(), NO_EXTRA, NO_COLD_STARTS).dollars
    assert dollars["Lambda"] == pytest.approx(0.1 * 0.0000166667 + 0.0000002)
    assert dollars["API Gateway"] == pytest.approx(0.0000035)
    assert dollars["cold starts"] == 0


def test_an_invocation_is_billed_by_the_started_millisecond() -> None:
    assert total("api", serving(handler_ms=times(100.2))) == total("api", serving(handler_ms=times(101)))
    assert total("api", serving(handler_ms=times(100.2))) > total("api", serving(handler_ms=times(100)))
    # Ten images are an invocation, of 1,002 ms.
    assert total("bulk", serving(handler_ms=times(100.15))) == total("bulk", serving(handler_ms=times(100.2)))


def test_twice_the_memory_at_half_the_time_costs_the_same() -> None:
    larger = serving(memory_mb=2 * ONE_GB, handler_ms=times(50))
    assert total("api", larger) == pytest.approx(total("api", serving()))


def test_a_cold_start_costs_its_extra_time() -> None:
    always = total("api", serving(), Assumptions(cold_share=1)) - total("api", serving())
    assert always == pytest.approx(1.0 * prices.LAMBDA_GB_SECOND)
    assert total("api", serving(), Assumptions(cold_share=0.01)) - total("api", serving()) == pytest.approx(
        always / 100
    )


def test_the_images_of_a_batch_share_a_cold_start() -> None:
    added = total("bulk", serving(), Assumptions(cold_share=1)) - total("bulk", serving())
    assert added == pytest.approx(1.0 * prices.LAMBDA_GB_SECOND / 10)


def test_snapstart_costs_restores_and_a_cache_instead_of_initialization() -> None:
    assumed = Assumptions(cold_share=1, snapstart=True, images_a_month=1000)
    dollars = cost.cost_of("api", serving(memory_mb=2 * ONE_GB), NO_EXTRA, assumed).dollars
    # Of the second that a cold start takes longer, 900 ms are initialization.
    assert dollars["cold starts"] == pytest.approx(2 * (0.1 * prices.LAMBDA_GB_SECOND + prices.SNAPSTART_RESTORE_GB))
    assert dollars["SnapStart's cache"] == pytest.approx(2 * 0.0000015046 * 30 * 24 * 3600 / 1000)


def test_an_image_of_a_batch_takes_the_measured_extra_time_and_more_with_less_cpu() -> None:
    extra = results().extra_seconds()
    assert extra == pytest.approx({"api": 0, "bulk": 0.03, "backfill": 0.005})
    assert cost.milliseconds_per_image("bulk", serving(), extra) == pytest.approx(130)
    assert cost.milliseconds_per_image("bulk", serving(cpus=0.5), extra) == pytest.approx(160)
    # Calls of AWS do not become faster by a second core.
    assert cost.milliseconds_per_image("bulk", serving(cpus=2.0), extra) == pytest.approx(130)


def recommended(*servings: Serving, latency_ms: float | None = None) -> Serving | None:
    found = cost.recommend([cost.cost_of("api", each, NO_EXTRA, NO_COLD_STARTS) for each in servings], latency_ms)
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
    costs = cost.costs_of(results(serving(handler_ms=times(2000))), NO_COLD_STARTS)
    found = cost.recommendations(costs, latency_ms=1000)
    assert found["api"] is None
    assert found["bulk"]
    assert found["backfill"]
    advice = cost.advice(found, 1000)
    assert "For requests: no measured function has enough memory and answers within 1,000 ms." in advice


def test_the_table_has_a_row_per_function_and_the_recommended_ones_in_bold() -> None:
    measured_here = results(serving(), serving(engine="openvino", handler_ms=times(60)))
    costs = cost.costs_of(measured_here, NO_COLD_STARTS)
    found = cost.recommendations(costs, 1000)
    lines = cost.cost_table(costs, found).splitlines()
    openvino, *_ = [each for each in costs if each.path == "api" and each.serving.engine == "openvino"]
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
    assert by_init == f"${total('api', serving(), Assumptions(0.001)) * 1e6:.2f}"
    assert by_snapstart == f"${total('api', serving(), Assumptions(0.001, snapstart=True)) * 1e6:.2f}"


def test_parts_of_the_results_that_costs_do_not_need_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(results()), "peers": {"rounds": 3}}))
    assert cost.read_results(path) == results()


def test_missing_results_are_reported_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(cost.ResultsError, match=r"^results\.json does not exist\. Run: make bench$"):
        cost.read_results(tmp_path / "results.json")


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
    with pytest.raises(cost.ResultsError, match=reason) as refused:
        cost.read_results(path)
    assert str(refused.value).endswith("Run: make bench")


def test_the_text_below_the_table_has_the_assumptions() -> None:
    text = cost.tables(results(), Assumptions(0.1), 1000)["cost"]
    assert f"Prices: {prices.ABOUT}. Model: everyday, 240x240 pixels. 10% of the invocations have a cold start." in text


def test_missing_paths_are_reported() -> None:
    with pytest.raises(cost.ResultsError, match="lack bulk, backfill"):
        replace(results(), bulk=(rate("api", 50),)).extra_seconds()


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
    with pytest.raises(cost.ResultsError, match="add <!-- cost --> and <!-- /cost -->"):
        cost.write_blocks(page, {"cost": "new"})
    assert page.read_text() == "Nothing.\n"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("README.md", ["cost"]),
        ("docs/costs.md", ["cost", "cost-services", "cost-cold"]),
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
    month = 1769 / 1024 * prices.SNAPSTART_CACHE_GB_SECOND * cost.MONTH_SECONDS
    assert f"${month:.2f} a month" in text


def test_the_pages_have_the_tables_computed_from_the_results() -> None:
    computed = cost.tables(cost.read_results(cost.RESULTS), Assumptions(), latency_ms=1000)
    pages = [(ROOT / page).read_text() for page in ("README.md", "docs/costs.md", "docs/scale.md")]
    for name, block in computed.items():
        marked = [page for page in pages if f"<!-- {name} -->" in page]
        assert marked
        assert all(f"<!-- {name} -->\n{block}\n<!-- /{name} -->" in page for page in marked)
