import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics import (
    best_temperature,
    calibration_error,
    class_scores,
    confusion_matrix,
    coverage_curve,
    reliability,
    surprise,
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
    best = surprise(logits, truth, best_temperature(logits, truth))
    assert all(best <= surprise(logits, truth, t) + 1e-3 for t in (0.06, 0.5, 1.0, 2.0, 19.0))


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
