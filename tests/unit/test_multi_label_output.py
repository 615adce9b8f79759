"""Answers of multi-label models in the command: lines, table, CSV, JSON, stored results, uploads."""

import csv
import io
import json
from collections.abc import Iterable

import msgspec
import pytest

from litelens.api.response_schemas import BulkResult, Classification, LabelConfidence, Model, Photo, Timing
from litelens.bulk.worker import without_absent_labels
from litelens_client.answers import Answer, Classified
from litelens_client.api import _apply_options
from litelens_client.output import csv_lines, json_lines, label_lines, table
from litelens_client.results import StoredResult, _matches, csv_rows, text_rows

PLAIN = [LabelConfidence("cat", 0, 0.9), LabelConfidence("dog", 1, 0.1)]
MODEL = Model("tags", "1.0.0")


def fields(*predictions: tuple[str, float, bool]) -> dict[str, object]:
    return {
        "image": Photo("JPEG", 640, 427),
        "predictions": [
            LabelConfidence(label, index, confidence, present=present)
            for index, (label, confidence, present) in enumerate(predictions)
        ],
        "uncertain": not any(present for _, _, present in predictions),
        "timing_ms": Timing(1, 2, 3),
    }


SEVERAL = fields(("beach", 0.9, True), ("snow", 0.7, False), ("dog", 0.6, True))
NONE = fields(("beach", 0.2, False), ("dog", 0.1, False))


def result(found: dict[str, object]) -> Classified:
    return Classified("photo.jpg", Answer(model=MODEL, **found))


def rows(lines: Iterable[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(lines), newline="")))


def test_the_lines_say_which_labels_are_present() -> None:
    beach, snow, dog = "".join(label_lines([result(SEVERAL)])).splitlines()
    assert beach.endswith("present")
    assert dog.endswith("present")
    assert not snow.endswith("present")


def test_a_photo_without_any_label_is_said_to_be_uncertain_with_the_reason() -> None:
    assert "no label reaches its threshold" in "".join(label_lines([result(NONE)]))


def test_the_table_has_the_labels_that_are_present() -> None:
    printed = "".join(table([result(SEVERAL), result(NONE)]))
    assert "beach, dog" in printed
    assert "90.0%, 60.0%" in printed
    assert "snow" not in printed


def test_a_cell_of_csv_has_the_labels_that_are_present() -> None:
    several, none = rows(csv_lines([result(SEVERAL), result(NONE)]))
    assert (several["label"], several["confidence"], several["uncertain"]) == ("beach;dog", "0.9;0.6", "false")
    assert (none["label"], none["confidence"], none["uncertain"]) == ("", "", "true")


def test_json_has_all_labels() -> None:
    (line,) = json_lines([result(SEVERAL)])
    assert [each["present"] for each in json.loads(line)["predictions"]] == [True, False, True]


def stored(found: dict[str, object]) -> StoredResult:
    bulk = BulkResult("photos", "a.jpg", "1", MODEL, "2026-11-30T12:00:00+00:00", Classification(**found))
    document = msgspec.json.encode(bulk)
    return StoredResult(document, msgspec.json.decode(document, type=BulkResult))


def test_stored_results_are_listed_with_the_labels_that_are_present() -> None:
    several, none = rows(csv_rows([stored(SEVERAL), stored(NONE)]))
    assert (several["label"], several["confidence"]) == ("beach;dog", "0.9;0.6")
    assert (none["label"], none["uncertain"]) == ("", "true")
    assert "beach, dog" in "".join(text_rows([stored(SEVERAL)]))


@pytest.mark.parametrize(("label", "is_listed"), [("beach", True), ("dog", True), ("snow", False)])
def test_stored_results_are_found_by_each_label_that_is_present(label: str, is_listed: bool) -> None:
    from argparse import Namespace

    arguments = Namespace(label=label, uncertain=False, failed=False)
    assert _matches(stored(SEVERAL).result, arguments) is is_listed


def test_the_threshold_for_an_uploaded_photo_replaces_those_of_all_labels() -> None:
    answer = _apply_options(Answer(model=MODEL, **SEVERAL), 2, 0.65)
    assert [(each.label, each.present) for each in answer.predictions] == [("beach", True), ("snow", True)]
    assert _apply_options(Answer(model=MODEL, **SEVERAL), None, 0.95).uncertain
    assert _apply_options(Answer(model=MODEL, **SEVERAL), 1, None).predictions[0].label == "beach"


def test_results_of_backfills_have_no_absent_labels() -> None:
    several, none = (without_absent_labels(Classification(**found)) for found in (SEVERAL, NONE))
    exclusive = without_absent_labels(Classification(**{**SEVERAL, "predictions": PLAIN}))
    assert isinstance(several, Classification)
    assert isinstance(none, Classification)
    assert isinstance(exclusive, Classification)
    assert [each.label for each in several.predictions] == ["beach", "dog"]
    assert [each.label for each in none.predictions] == ["beach"]
    assert exclusive.predictions == PLAIN
