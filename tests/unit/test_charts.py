import base64
import re
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from litelens_client.learning.charts import (
    Mark,
    Scale,
    Series,
    confusion_picture,
    confusion_table,
    line_chart,
    row_shares,
    scale_to,
)

LONG = "a label that is too long for the side of a chart, number "


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in drawn(svg).iter("text")]


def picture(svg: str) -> Image.Image:
    (image,) = drawn(svg).iter("image")
    return Image.open(BytesIO(base64.b64decode(image.attrib["href"].removeprefix("data:image/png;base64,"))))


def opacity(svg: str) -> np.ndarray:
    return np.asarray(picture(svg).convert("RGBA"))[:, :, 3]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 5, [0, 1, 2, 3, 4, 5]),
        (0.85, 1, [0.85, 0.875, 0.9, 0.925, 0.95, 0.975, 1]),
    ],
)
def test_ticks_are_round_numbers_within_the_scale(low: float, high: float, ticks: list[float]) -> None:
    assert Scale("", low, high).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("last", [2, 3, 12, 300])
def test_ticks_of_a_whole_scale_are_whole_and_few(last: int) -> None:
    ticks = Scale("Epoch", 1, last, whole=True).ticks()
    assert all(tick == int(tick) for tick in ticks)
    assert 2 <= len(ticks) <= 7


@pytest.mark.parametrize("most", [0.013, 0.55, 1.0, 4.61, 48_000])
def test_a_scale_reaches_just_above_the_largest_value(most: float) -> None:
    scale = scale_to("Loss", [most / 3, most])
    assert scale.low == 0
    assert most <= scale.high <= 1.35 * most


def test_a_scale_without_positive_values_can_be_drawn() -> None:
    assert scale_to("Loss", [0.0, float("nan")]).high == 1


def test_a_line_rises_with_its_values() -> None:
    line = Series("test", "test", [(0, 0.0), (1, 1.0)])
    svg = drawn(line_chart("Title", Scale("x", 0, 1), Scale("y", 0, 1), [line]))
    first, second = (float(dot.attrib["cy"]) for dot in svg.iter("circle"))
    assert second < first


def test_points_that_are_not_finite_are_left_out() -> None:
    line = Series("loss", "training", [(1, 0.5), (2, float("nan")), (3, 0.25)])
    svg = line_chart("Loss", Scale("Epoch", 1, 3), Scale("Loss", 0, 1), [line])
    assert len(list(drawn(svg).iter("circle"))) == 2
    assert "nan" not in svg


def test_a_chart_has_a_title_and_names_for_axes_lines_and_marks() -> None:
    lines = [Series("training", "training", [(1, 0.5)]), Series("validation", "validation", [(1, 0.4)])]
    svg = line_chart("Accuracy", Scale("Epoch", 1, 2), Scale("Share", 0, 1, percent=True), lines, [Mark(1, "phase 1")])
    assert drawn(svg).attrib["aria-label"] == drawn(svg).findtext("title") == "Accuracy"
    assert {"Epoch", "Share", "training", "validation", "phase 1", "60%"} <= set(texts(svg))


def test_shares_of_a_class_without_images_are_zero() -> None:
    assert row_shares(np.array([[3, 1], [0, 0]])).tolist() == [[0.75, 0.25], [0, 0]]


def test_a_small_confusion_matrix_shows_its_numbers_row_by_row() -> None:
    svg = confusion_table(np.array([[7, 3], [0, 12]]), ["cat", "dog"])
    assert [text for text in texts(svg) if text.isdigit()] == ["7", "3", "0", "12"]
    assert texts(svg).count("cat") == texts(svg).count("dog") == 2


def test_labels_of_a_small_confusion_matrix_are_shortened_with_the_full_text_as_title() -> None:
    labels = [f"{n} {LONG}"[:60] for n in range(25)]
    svg = confusion_table(np.eye(25, dtype=np.int64), labels)
    assert all(svg.count(f"<title>{label}</title>") == 2 for label in labels)
    assert max(map(len, texts(svg))) < 30


def test_labels_with_markup_are_escaped() -> None:
    hostile = '</text><script>"'
    svg = confusion_table(np.eye(2, dtype=np.int64), [hostile, "cat"])
    assert not list(drawn(svg).iter("script"))
    assert hostile in texts(svg)


def test_pixels_of_a_confusion_matrix_are_more_opaque_for_larger_shares() -> None:
    counts = np.zeros((30, 30), np.int64)
    np.fill_diagonal(counts, 9)
    counts[4, 7] = 1
    seen = opacity(confusion_picture(counts, [str(n) for n in range(30)], {}))
    assert seen.shape == (30, 30)
    assert seen[0, 0] == 255
    assert 0 < seen[4, 7] < seen[4, 4] < 255
    assert seen[7, 4] == 0


def test_correct_and_wrong_predictions_have_different_colours() -> None:
    colours = np.asarray(picture(confusion_picture(np.ones((30, 30), np.int64), ["x"] * 30, {})).convert("RGBA"))
    assert len({tuple(pixel) for pixel in colours.reshape(-1, 4)}) == 2
    assert tuple(colours[0, 0]) != tuple(colours[0, 1])


def test_the_classes_of_a_group_are_next_to_each_other() -> None:
    labels = [f"class {n}" for n in range(30)]
    groups = {label: "even" if n % 2 == 0 else "odd" for n, label in enumerate(labels)}
    counts = np.eye(30, dtype=np.int64)
    counts[0, 2] = 1
    svg = confusion_picture(counts, labels, groups)
    assert np.argwhere(opacity(svg) * ~np.eye(30, dtype=bool)).tolist() == [[0, 1]]
    assert {"even", "odd"} <= set(texts(svg))
    assert "class 0" not in texts(svg)


def test_a_single_confusion_among_1000_classes_stays_visible() -> None:
    counts = np.eye(1000, dtype=np.int64) * 9
    counts[10, 801] = 1
    seen = opacity(confusion_picture(counts, [str(n) for n in range(1000)], {}))
    assert len(seen) <= 500
    assert np.argwhere(seen * ~np.eye(len(seen), dtype=bool)).tolist() == [[3, 267]]
    assert seen[3, 267] == pytest.approx(255 * 0.1**0.5, abs=2)


def test_only_as_many_classes_as_there_is_room_for_are_named() -> None:
    svg = confusion_picture(np.eye(1000, dtype=np.int64), [f"class {n}" for n in range(1000)], {})
    assert len(re.findall(r'class="tick"', svg)) <= 50
