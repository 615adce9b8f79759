"""The view Model, compared with the files of two bundles: one with measured accuracy, and the default one."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from page_actions import DEVICES, choose_photos, connect, open_controls, open_view, wait_for_results
from page_text import page_text
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from servers import API_KEY, Deployment, run_server
from support import CAT, CIFAR_BUNDLE, DEFAULT_BUNDLE

MANIFEST = json.loads((CIFAR_BUNDLE / "manifest.json").read_text())
METRICS = json.loads((CIFAR_BUNDLE / "metrics.json").read_text())
LABELS: list[str] = MANIFEST["labels"]
CONFUSION: list[list[int]] = METRICS["confusion"]
COVERAGE: list[dict[str, float]] = METRICS["coverage"]

CALIBRATION = page_text("calibrationTitle")
CERTAINTY = page_text("coverageTitle")
TRAINING = page_text("learningTitle")
CONFUSED = page_text("confusionTitle")

COLUMNS = {
    "Class": "label",
    "Group": "group",
    "Images": "images",
    "Precision": "precision",
    "Recall": "recall",
    "F1": "f1",
}
NO_ACCURACY = page_text("withoutAccuracy")
NO_MEASUREMENTS = page_text("withoutMetrics")

# The length of the lists next to the confusion matrix.
LISTED = 12

# Returns the elements of a chart, in the units of the drawing.
READ_CHART = """
(drawing) => {
  const numbers = (element, ...names) => names.map((name) => Number(element.getAttribute(name)));
  const all = (kind) => [...drawing.querySelectorAll(kind)];
  return {
    texts: all("text").filter((text) => !text.matches(".axis")).map((text) => [
      text.textContent, text.getAttribute("text-anchor"), Number(text.getAttribute("x")),
    ]),
    lines: all("line").map((line) => numbers(line, "x1", "y1", "x2", "y2")),
    paths: all("path").map((path) => path.getAttribute("d")),
    dots: all("circle").map((dot) => [...numbers(dot, "cx", "cy", "r"), dot.textContent]),
  };
}
"""

Point = tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """The content of a chart, in the units of its axes."""

    dots: list[Point]
    sizes: list[float]
    titles: list[str]
    curves: list[list[Point]]
    uprights: list[float]
    has_diagonal: bool


class Axes:
    """Return the value at a position of a chart, from its ticks."""

    def __init__(self, drawn: Any) -> None:
        across = [(x, value_of(text)) for text, anchor, x in drawn["texts"] if anchor == "middle"]
        heights = [y1 for _, y1, _, y2 in drawn["lines"] if y1 == y2]
        values = [value_of(text) for text, anchor, _ in drawn["texts"] if anchor == "end"]
        self._across = across[0], across[-1]
        self._up = list(zip(heights, values, strict=True))

    def x(self, place: float) -> float:
        return _between(*self._across, place)

    def point(self, x: float, y: float) -> Point:
        return self.x(x), _between(self._up[0], self._up[-1], y)


def _between(first: Point, last: Point, place: float) -> float:
    return first[1] + (place - first[0]) / (last[0] - first[0]) * (last[1] - first[1])


def value_of(tick: str) -> float:
    return float(tick[:-1]) / 100 if tick.endswith("%") else float(tick)


def read(page: Page, title: str) -> Chart:
    drawn = page.get_by_role("img", name=title).evaluate(READ_CHART)
    axes = Axes(drawn)
    paths = [re.findall(r"[ML]([\d.]+) ([\d.]+)", path) for path in drawn["paths"]]
    slanted = [line for line in drawn["lines"] if line[0] != line[2] and line[1] != line[3]]
    return Chart(
        dots=[axes.point(x, y) for x, y, _, _ in drawn["dots"]],
        sizes=[size for _, _, size, _ in drawn["dots"]],
        titles=[title for _, _, _, title in drawn["dots"]],
        curves=[[axes.point(float(x), float(y)) for x, y in path] for path in paths],
        uprights=[axes.x(x1) for x1, y1, x2, y2 in drawn["lines"] if x1 == x2 and y1 != y2],
        has_diagonal=[(axes.point(x1, y1), axes.point(x2, y2)) for x1, y1, x2, y2 in slanted] == [((0, 0), (1, 1))],
    )


def near(points: list[Point]) -> Any:
    """Return the points as approximate values, to within the precision of a drawing."""
    return [pytest.approx(point, abs=0.002) for point in points]


def percent(share: float) -> str:
    return f"{(Decimal(repr(share)) * 100).quantize(Decimal('0.1'), ROUND_HALF_UP)}%"


def label(name: str) -> str:
    return name.replace("_", " ")


def row_of(measured: dict[str, Any]) -> tuple[str, ...]:
    """Return the row of a class in the table."""
    shares = (percent(measured[name]) for name in ("precision", "recall", "f1"))
    name = measured["label"]
    return (label(name), MANIFEST["groups"][name], str(measured["images"]), *shares)


@cache
def rows() -> dict[tuple[str, ...], dict[str, Any]]:
    return {row_of(measured): {**measured, "group": row_of(measured)[1]} for measured in METRICS["classes"]}


def shown_rows(page: Page) -> list[tuple[str, ...]]:
    texts = page.get_by_role("table").evaluate(
        "(table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    )
    return [tuple(row) for row in texts]


def heading(page: Page, name: str) -> Locator:
    return page.locator("thead").get_by_role("columnheader", name=name)


def panel(page: Page, heading: str) -> Locator:
    return page.locator("section").filter(has=page.get_by_role("heading", name=heading, exact=True))


def listed_lines(confusion: Locator, which: int) -> list[str]:
    """Return the lines of a list next to the matrix: 0 is the chosen class, 1 the most confused pairs."""
    return [
        " ".join(line.split())
        for line in confusion.get_by_role("list").nth(which).get_by_role("listitem").all_inner_texts()
    ]


def expected_lines(index: int) -> list[str]:
    counts = CONFUSION[index]
    found = sorted(((count, LABELS[column]) for column, count in enumerate(counts) if count), key=lambda pair: -pair[0])
    return [f"{label(name)}: {count} of {sum(counts)}" for count, name in found[:LISTED]]


@pytest.fixture
def page(context: BrowserContext, measured_port: int) -> Page:
    """The page with the measured bundle."""
    page = context.new_page()
    with page.expect_response("**/v1/model"):
        page.goto(f"http://127.0.0.1:{measured_port}/")
    return page


@pytest.fixture
def model_view(page: Page) -> Page:
    """The view Model of that page."""
    open_view(page, "Model")
    expect(page.get_by_role("table")).to_be_visible()
    return page


@pytest.fixture(scope="module", params=DEVICES)
def shared_model_view(request: pytest.FixtureRequest, chromium: Browser, measured_port: int) -> Iterator[Page]:
    """The same view, shared by tests that only read it."""
    with chromium.new_context(**DEVICES[request.param]) as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{measured_port}/#model")
        expect(page.get_by_role("table")).to_be_visible()
        yield page


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of a server with a bundle without metrics and report."""
    bundle = tmp_path_factory.mktemp("unmeasured") / "bundle"
    bundle.mkdir()
    for file in ("model.tflite", "head.npz"):
        (bundle / file).symlink_to(CIFAR_BUNDLE / file)
    manifest = {name: value for name, value in MANIFEST.items() if name != "metrics"}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with run_server(LITELENS_BUNDLE=str(bundle)) as port:
        yield f"http://127.0.0.1:{port}"


WARNING = "The test images do not show that this model is better than chance: it classifies 50.0% of 4 correctly."


@pytest.fixture(scope="module")
def warned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose bundle has a warning in its manifest."""
    bundle = tmp_path_factory.mktemp("warned") / "bundle"
    bundle.mkdir()
    for file in ("model.tflite", "head.npz"):
        (bundle / file).symlink_to(CIFAR_BUNDLE / file)
    (bundle / "manifest.json").write_text(json.dumps(MANIFEST | {"warnings": [WARNING]}))
    with run_server(LITELENS_BUNDLE=str(bundle)) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_models_warning_is_shown_with_its_answers_and_in_the_view_model(context: BrowserContext, warned: str) -> None:
    page = context.new_page()
    page.goto(warned)
    page.get_by_role("button", name="Try the sample: a cat").click()
    wait_for_results(page, "cat.jpg")
    expect(page.get_by_text(page_text("warnedAnswers"))).to_be_visible()
    page.get_by_role("link", name="Read the warning").click()
    expect(page.get_by_text(f"Do not rely on this model. {WARNING}")).to_be_visible()


def test_a_model_without_warnings_shows_none(page: Page) -> None:
    page.get_by_role("button", name="Try the sample: a cat").click()
    wait_for_results(page, "cat.jpg")
    expect(page.get_by_text("Do not rely on")).to_have_count(0)
    open_view(page, "Model")
    expect(page.get_by_role("table")).to_be_visible()
    expect(page.get_by_text("Do not rely on")).to_have_count(0)


def test_the_view_shows_the_models_name_and_its_metrics(shared_model_view: Page) -> None:
    expect(shared_model_view.get_by_text(f"{MANIFEST['name']} {MANIFEST['version']}", exact=True)).to_be_visible()
    expect(
        shared_model_view.get_by_text(
            f"{MANIFEST['description']} It sees photos at 32 \N{MULTIPLICATION SIGN} 32 pixels."
        )
    ).to_be_visible()
    metrics = MANIFEST["metrics"]
    values = shared_model_view.get_by_role("definition").all_inner_texts()
    names, meanings = zip(
        *(text.split("\n") for text in shared_model_view.get_by_role("term").all_inner_texts()), strict=True
    )
    assert all(meanings)
    assert dict(zip(names, values, strict=True)) == {
        "Top-1 accuracy": percent(metrics["int8_top1"]),
        "Top-5 accuracy": percent(metrics["int8_top5"]),
        "Calibration error": percent(metrics["calibration_error"]),
        "Agreement": percent(metrics["agreement"]),
        "Model size": f"{MANIFEST['files']['model.tflite']['bytes'] / 1e6:.1f} MB",
        "Classes": f"{len(LABELS)}",
        "Test images": f"{metrics['test_images']:,}",
    }


def test_the_view_begins_with_how_often_the_model_is_right(shared_model_view: Page) -> None:
    verdict = shared_model_view.locator("h1 + *")
    metrics = MANIFEST["metrics"]
    expect(verdict).to_contain_text(f"{round(metrics['int8_top1'] * 100)} times in 100")
    expect(verdict).to_contain_text(f"{metrics['test_images']:,}")
    expect(verdict).to_contain_text(METRICS["dataset"])


def test_the_calibration_chart_has_a_dot_for_each_bin(shared_model_view: Page) -> None:
    bins = METRICS["reliability"]
    points = [(one["confidence"], one["accuracy"]) for one in bins]
    chart = read(shared_model_view, CALIBRATION)
    assert chart.dots == near(points)
    as_trained = [(one["confidence"], one["accuracy"]) for one in METRICS["reliability_uncalibrated"]]
    assert chart.curves == [near(points), near(as_trained)]
    assert chart.has_diagonal
    assert chart.titles == [
        f"Of {one['images']:,} image{'' if one['images'] == 1 else 's'} with {percent(one['confidence'])} confidence, "
        f"{percent(one['accuracy'])} are right"
        for one in bins
    ]
    by_images = sorted(range(len(bins)), key=lambda index: bins[index]["images"])
    assert by_images == sorted(range(len(bins)), key=lambda index: chart.sizes[index])
    expect(panel(shared_model_view, "Calibration").get_by_text("calibrated", exact=True)).to_be_visible()
    expect(panel(shared_model_view, "Calibration").get_by_text("before calibration", exact=True)).to_be_visible()


def test_the_certainty_chart_has_its_marker_at_the_models_own_threshold(shared_model_view: Page) -> None:
    chart = read(shared_model_view, CERTAINTY)
    assert chart.curves == [near([(point["coverage"], point["accuracy"]) for point in COVERAGE])]
    assert_marked_at(shared_model_view, MANIFEST["threshold"])


def test_the_certainty_charts_marker_follows_the_threshold_in_the_view_classify(page: Page) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    choose_photos(page, *({"name": name, "mimeType": "image/jpeg", "buffer": CAT.read_bytes()} for name in names))
    wait_for_results(page, *names)
    for threshold in (0.3, 0, 0.9):
        set_threshold(page, threshold)
        assert_marked_at(page, threshold)
        open_view(page, "Classify")
    # No threshold so high was measured.
    set_threshold(page, 1)
    assert read(page, CERTAINTY).uprights == []


def set_threshold(page: Page, threshold: float) -> None:
    open_controls(page)
    page.get_by_role("slider", name=page_text("threshold")).fill(str(threshold))
    open_view(page, "Model")


def assert_marked_at(page: Page, threshold: float) -> None:
    # Only some thresholds were measured; between two, the higher one counts.
    here = next(point for point in reversed(COVERAGE) if point["threshold"] >= threshold)
    legend = (
        f"At the threshold of {percent(threshold)}, {percent(here['coverage'])} of the test images are certain, "
        f"and {percent(here['accuracy'])} of those are right."
    )
    expect(page.get_by_text(legend)).to_be_visible()
    assert read(page, CERTAINTY).uprights == [pytest.approx(here["coverage"], abs=0.002)]


def test_the_training_chart_shows_the_accuracy_of_every_epoch(shared_model_view: Page) -> None:
    epochs = METRICS["history"]
    chart = read(shared_model_view, TRAINING)
    assert chart.curves == [
        near([(number, epoch[name]) for number, epoch in enumerate(epochs, 1)]) for name in ("val_accuracy", "accuracy")
    ]
    legend = panel(shared_model_view, "Training").locator("figcaption")
    expect(legend).to_have_text(re.compile(r"^\s*validation\s*training\s*$"))


def test_the_table_has_every_class_with_its_metrics(shared_model_view: Page) -> None:
    assert shared_model_view.get_by_role("columnheader").all_inner_texts() == list(COLUMNS)
    assert len(LABELS) == 100
    assert sorted(shown_rows(shared_model_view)) == sorted(rows())


def test_the_table_sorts_by_each_column_both_ways(model_view: Page) -> None:
    best = max(METRICS["classes"], key=lambda measured: measured["f1"])
    assert shown_rows(model_view)[0] == row_of(best)
    for name, column in COLUMNS.items():
        # By default, numbers are sorted in descending order, names in ascending order.
        is_first_down = column not in ("label", "group")
        for is_down in (is_first_down, not is_first_down):
            heading(model_view, name).get_by_role("button").click()
            direction = "descending" if is_down else "ascending"
            expect(heading(model_view, name)).to_have_attribute("aria-sort", direction)
            values = [rows()[row][column] for row in shown_rows(model_view)]
            assert values == sorted(values, reverse=is_down), (name, direction)
            assert len(values) == len(LABELS)
        expect(model_view.locator("[aria-sort=ascending], [aria-sort=descending]")).to_have_count(1)


def test_classes_can_be_searched_by_name_or_group(model_view: Page) -> None:
    for sought in ("tree", "Maple Tree ", "maple_tree", "VEHICLES 1"):
        plain = label(sought.strip().lower())
        expected = [row for row in rows() if plain in row[0] or plain in row[1]]
        assert 0 < len(expected) < len(LABELS)
        model_view.get_by_label("Find a class").fill(sought)
        expect(model_view.get_by_role("table").get_by_role("rowheader")).to_have_count(len(expected))
        assert sorted(shown_rows(model_view)) == sorted(expected)


def test_a_search_that_finds_no_class_says_so(model_view: Page) -> None:
    model_view.get_by_label("Find a class").fill("zebra crossing")
    expect(model_view.get_by_text(page_text("noClass"))).to_be_visible()
    model_view.get_by_label("Find a class").fill("")
    expect(model_view.get_by_role("table").get_by_role("rowheader")).to_have_count(len(LABELS))


def test_the_confusion_matrix_draws_larger_shares_in_stronger_colours(shared_model_view: Page) -> None:
    shades = shared_model_view.get_by_role("img", name=CONFUSED).evaluate(
        "(drawing) => [...drawing.querySelectorAll('path')].map((path) => [path.getAttribute('d'),"
        " Number(getComputedStyle(path).opacity)])"
    )
    squares = [re.findall(r"M(\d+) (\d+)h1v1h-1z", path) for path, _ in shades]
    assert "".join(f"M{x} {y}h1v1h-1z" for square in squares for x, y in square) == "".join(path for path, _ in shades)
    drawn = [(int(row), int(column)) for square in squares for column, row in square]
    assert sorted(drawn) == [
        (row, column) for row, counts in enumerate(CONFUSION) for column, n in enumerate(counts) if n
    ]
    shares = [[CONFUSION[int(y)][int(x)] / sum(CONFUSION[int(y)]) for x, y in square] for square in squares]
    opacities = [opacity for _, opacity in shades]
    assert opacities == sorted(set(opacities))
    assert opacities[0] > 0
    assert all(max(fainter) < min(stronger) for fainter, stronger in pairwise(filter(None, shares)))


def test_pressing_a_row_of_the_confusion_matrix_lists_the_predictions_for_its_class(model_view: Page) -> None:
    confusion = panel(model_view, "Confusion")
    matrix = model_view.get_by_role("img", name=CONFUSED)
    matrix.scroll_into_view_if_needed()
    box = matrix.bounding_box()
    assert box
    for index in (LABELS.index("boy"), 0, len(LABELS) - 1):
        matrix.click(position={"x": box["width"] / 3, "y": box["height"] * (index + 0.5) / len(LABELS)})
        expect(confusion.get_by_label("Images of")).to_have_value(str(index))
        assert listed_lines(confusion, 0) == expected_lines(index)
        expect(matrix.locator("rect").last).to_have_attribute("y", str(index))


def test_choosing_a_class_lists_the_predictions_for_it(model_view: Page) -> None:
    confusion = panel(model_view, "Confusion")
    chooser = confusion.get_by_label("Images of")
    assert chooser.get_by_role("option").all_inner_texts() == [label(name) for name in LABELS]
    assert listed_lines(confusion, 0) == expected_lines(0)
    chooser.select_option("willow tree")
    expect(confusion.get_by_role("list").first).to_contain_text("willow tree:")
    assert listed_lines(confusion, 0) == expected_lines(LABELS.index("willow_tree"))


def test_the_most_confused_pairs_are_listed(shared_model_view: Page) -> None:
    mistakes = [
        (count / sum(counts), row, column)
        for row, counts in enumerate(CONFUSION)
        for column, count in enumerate(counts)
        if row != column
    ]
    worst = sorted(mistakes, key=lambda mistake: -mistake[0])[:LISTED]
    assert listed_lines(panel(shared_model_view, "Confusion"), 1) == [
        f"{label(LABELS[row])}, taken for {label(LABELS[column])} {percent(share)}" for share, row, column in worst
    ]


def test_the_full_report_opens_in_a_tab_of_its_own(model_view: Page) -> None:
    with model_view.context.expect_page() as opened:
        model_view.get_by_role("link", name="The full report").click()
    report = opened.value
    # The report of a converted bundle has the version that was measured.
    expect(report).to_have_title(re.compile(rf"^{MANIFEST['name']} "))
    expect(report.get_by_role("heading", level=1)).to_be_visible()
    expect(model_view.get_by_role("heading", name="The model", level=1)).to_be_visible()


def test_the_full_report_is_saved_as_a_file_if_the_api_needs_a_key(
    context: BrowserContext, deployment: Deployment
) -> None:
    page = context.new_page()
    page.goto(deployment.url)
    connect(page, key=API_KEY)
    open_view(page, "Model")
    with page.expect_download() as download:
        page.get_by_role("button", name="The full report").click()
    assert download.value.suggested_filename == "report.html"
    assert Path(download.value.path()).read_bytes() == (DEFAULT_BUNDLE / "report.html").read_bytes()


def test_a_model_without_metrics_shows_its_classes_and_a_note(context: BrowserContext, unmeasured: str) -> None:
    page = context.new_page()
    page.goto(f"{unmeasured}/#model")
    expect(page.get_by_text(NO_MEASUREMENTS)).to_be_visible()
    expect(page.get_by_text(f"{MANIFEST['name']} {MANIFEST['version']}", exact=True)).to_be_visible()
    terms = [text.partition("\n")[0] for text in page.get_by_role("term").all_inner_texts()]
    assert terms == ["Model size", "Classes"]
    assert page.get_by_role("columnheader").all_inner_texts() == ["Class", "Group"]
    assert sorted(shown_rows(page)) == sorted((label(name), MANIFEST["groups"][name]) for name in LABELS)
    expect(page.get_by_text("The full report")).to_have_count(0)
    expect(page.get_by_role("img")).to_have_count(0)


def test_a_model_with_metrics_shows_no_note(shared_model_view: Page) -> None:
    expect(shared_model_view.get_by_role("table")).to_be_visible()
    expect(shared_model_view.get_by_text(NO_MEASUREMENTS)).to_have_count(0)
    expect(shared_model_view.get_by_text(NO_ACCURACY)).to_have_count(0)


def test_the_default_model_shows_its_classes_and_only_the_metrics_that_it_has(
    context: BrowserContext, port: int
) -> None:
    manifest = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/#model")
    expect(page.get_by_text("It sees photos at 260 \N{MULTIPLICATION SIGN} 260 pixels.")).to_be_visible()
    terms = [text.partition("\n")[0] for text in page.get_by_role("term").all_inner_texts()]
    assert dict(zip(terms, page.get_by_role("definition").all_inner_texts(), strict=True)) == {
        "Agreement": percent(manifest["metrics"]["agreement"]),
        "Model size": f"{manifest['files']['model.tflite']['bytes'] / 1e6:.1f} MB",
        "Classes": "1,000",
        "Test images": str(manifest["metrics"]["test_images"]),
    }
    expect(page.get_by_text(NO_ACCURACY)).to_be_visible()
    expect(page.get_by_text(NO_MEASUREMENTS)).to_have_count(0)
    expect(page.get_by_role("img")).to_have_count(0)
    assert sorted(shown_rows(page)) == sorted((label(name), manifest["groups"][name]) for name in manifest["labels"])
    page.get_by_label("Find a class").fill("tabby")
    expect(page.get_by_role("table").get_by_role("rowheader")).to_have_text(["tabby cat"])
