from typing import Any

import pytest

from training.chance import chance_warnings
from training.metrics import wilson_interval


def measured(*confusion: tuple[int, ...]) -> dict[str, Any]:
    """The content of metrics.json with this confusion matrix of the classes cat, dog and so on."""
    images, right = sum(map(sum, confusion)), sum(row[index] for index, row in enumerate(confusion))
    labels = ("cat", "dog", "horse")[: len(confusion)]
    return {
        "metrics": {"int8_top1": right / images},
        "classes": [{"label": label} for label in labels],
        "confusion": [list(row) for row in confusion],
    }


def test_a_coin_is_warned_of() -> None:
    assert chance_warnings(measured((3, 5), (3, 5))) == [
        "The test images do not show that this model is better than chance: it classifies 50.0% of 16 correctly (95% "
        "interval: 28.0% to 72.0%); always answering 'cat' would be correct for 50.0%."
    ]


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    """90% of right answers is no better than always saying dog where 92% are dogs."""
    (warning,) = chance_warnings(measured((0, 40), (10, 450)))
    assert "always answering 'dog' would be correct for 92.0%" in warning
    assert chance_warnings(measured((240, 10), (40, 210))) == []


@pytest.mark.parametrize(("right", "is_warned_of"), [(59, True), (60, False)])
def test_the_interval_decides(right: int, is_warned_of: bool) -> None:
    """Of 100 images in two equal classes."""
    document = measured((50, 0), (100 - right, right - 50))
    low, _ = wilson_interval(right / 100, 100)
    assert (low <= 0.5) is is_warned_of
    assert bool(chance_warnings(document)) is is_warned_of


def test_so_few_images_that_even_all_right_tells_nothing_are_warned_of() -> None:
    assert chance_warnings(measured((1, 0), (0, 1)))
    assert chance_warnings(measured((4, 0), (0, 4))) == []


def test_of_a_model_whose_accuracy_is_unknown_nothing_is_said() -> None:
    assert chance_warnings({"metrics": {"int8_top1": None}, "classes": [], "confusion": []}) == []


def test_the_interval_is_wilsons() -> None:
    assert wilson_interval(0.5, 16) == pytest.approx((0.280, 0.720), abs=0.001)
    assert wilson_interval(1.0, 10) == pytest.approx((0.722, 1.0), abs=0.001)
    assert wilson_interval(0.0, 10) == pytest.approx((0.0, 0.278), abs=0.001)
