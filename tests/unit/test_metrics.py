from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelens_client.learning.calibration import (
    best_temperature,
    calibration_error,
    coverage_curve,
    negative_log_likelihood,
    reliability,
)
from litelens_client.learning.metrics import (
    chance_warnings,
    class_scores,
    confusion_matrix,
    wilson_interval,
)

TRUTH = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 1])


def test_the_confusion_matrix_has_a_row_for_each_true_class() -> None:
    assert confusion_matrix(TRUTH, PREDICTED, 4).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_class_scores_are_those_of_the_textbook() -> None:
    a, b, c, d = class_scores(confusion_matrix(TRUTH, PREDICTED, 4), ("a", "b", "c", "d"))
    assert (a.label, a.images, a.precision, a.recall) == ("a", 3, pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert (b.precision, b.recall, b.f1) == (pytest.approx(1 / 3), 0.5, pytest.approx(0.4))
    assert (c.precision, c.recall, c.f1) == (0, 0, 0)
    assert (d.images, d.f1) == (0, 0)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_the_best_temperature_undoes_one_that_was_applied(temperature: float, noise: np.random.Generator) -> None:
    logits = noise.normal(scale=2, size=(20_000, 5))
    powers = np.exp(logits)
    truth = np.array([noise.choice(5, p=row) for row in powers / powers.sum(axis=1, keepdims=True)])
    assert best_temperature(logits * temperature, truth) == pytest.approx(temperature, rel=0.05)


@given(st.lists(st.tuples(st.lists(st.floats(-30, 30), min_size=3, max_size=3), st.integers(0, 2)), min_size=1))
def test_no_temperature_is_clearly_better_than_the_best(rows: list[tuple[list[float], int]]) -> None:
    logits, truth = np.array([row for row, _ in rows]), np.array([index for _, index in rows])
    best = negative_log_likelihood(logits, truth, best_temperature(logits, truth))
    assert all(best <= negative_log_likelihood(logits, truth, t) + 1e-3 for t in (0.06, 0.5, 1.0, 2.0, 19.0))


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    assert calibration_error(confidence, right, bins=10) == pytest.approx((4 * 0.2 + 2 * 0.05) / 6)
    assert [row["images"] for row in reliability(confidence, right, bins=10)] == [2, 4]


def test_full_confidence_falls_into_the_last_bin() -> None:
    (row,) = reliability(np.array([1.0]), np.array([True]))
    assert row == {"images": 1, "confidence": 1.0, "accuracy": 1.0}


def test_the_coverage_curve_goes_from_the_surest_answer_to_all() -> None:
    curve = coverage_curve(np.array([0.2, 0.9, 0.5, 0.7]), np.array([False, True, True, False]))
    assert [point["coverage"] for point in curve] == [0.25, 0.5, 0.75, 1.0]
    assert [point["accuracy"] for point in curve] == [1.0, 0.5, pytest.approx(2 / 3), 0.5]
    assert [point["threshold"] for point in curve] == [0.9, 0.7, 0.5, 0.2]


def measured(*confusion: tuple[int, ...]) -> dict[str, Any]:
    """The content of metrics.json with this confusion matrix of the classes cat, dog and so on."""
    images, correct = sum(map(sum, confusion)), sum(row[index] for index, row in enumerate(confusion))
    labels = ("cat", "dog", "horse")[: len(confusion)]
    return {
        "metrics": {"int8_top1": correct / images},
        "classes": [{"label": label} for label in labels],
        "confusion": [list(row) for row in confusion],
    }


def test_a_model_that_guesses_gets_a_warning() -> None:
    (warning,) = chance_warnings(measured((3, 5), (3, 5)))
    for figure in ("50.0% of 16", "28.0% to 72.0%", "'cat'"):
        assert figure in warning


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    """90% of correct answers is no better than always answering dog if 92% are dogs."""
    (warning,) = chance_warnings(measured((0, 40), (10, 450)))
    assert "always answering 'dog' would be correct for 92.0%" in warning
    assert chance_warnings(measured((240, 10), (40, 210))) == []


@pytest.mark.parametrize(("correct", "has_warning"), [(59, True), (60, False)])
def test_the_lower_end_of_the_interval_is_compared_with_chance(correct: int, has_warning: bool) -> None:
    """Of 100 images in two equal classes."""
    document = measured((50, 0), (100 - correct, correct - 50))
    low, _ = wilson_interval(correct / 100, 100)
    assert (low <= 0.5) is has_warning
    assert bool(chance_warnings(document)) is has_warning


def test_a_perfect_score_on_too_few_images_gets_a_warning() -> None:
    assert chance_warnings(measured((1, 0), (0, 1)))
    assert chance_warnings(measured((4, 0), (0, 4))) == []


def test_a_model_of_unknown_accuracy_gets_no_warning() -> None:
    assert chance_warnings({"metrics": {"int8_top1": None}, "classes": [], "confusion": []}) == []


def test_the_interval_is_that_of_wilson() -> None:
    assert wilson_interval(0.5, 16) == pytest.approx((0.280, 0.720), abs=0.001)
    assert wilson_interval(1.0, 10) == pytest.approx((0.722, 1.0), abs=0.001)
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.278), abs=0.001)
