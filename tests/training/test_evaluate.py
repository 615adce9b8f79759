import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import CIFAR_BUNDLE, LambdaContext, answer_of, classify_bytes

from litelens.api.handler import create_handler
from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits
from litelens.core.probabilities import softmax
from litelens.settings import Settings
from litelens_client.learning.calibration import calibration_error, choose_threshold
from training.dataset import Pixels, Split
from training.evaluate import Predictions, classify_split, remove_duplicates


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(load_bundle(CIFAR_BUNDLE), Limits(), threads=1)


@pytest.fixture(scope="module")
def test_split(cifar100: Path) -> Split:
    with np.load(cifar100) as arrays:
        return Split(Pixels(arrays["x_test"]), arrays["y_test"].reshape(-1))


def assert_handler_and_evaluation_agree(classifier: Classifier, split: Split) -> None:
    evaluated = classify_split(classifier, split)
    handler = create_handler(Settings(CIFAR_BUNDLE, Limits(), threads=1))
    files = [split.images.encoded(index) for index in range(len(split))]
    for file, ranking, confidence in zip(files, evaluated.ranking, evaluated.confidence, strict=True):
        answer = answer_of(handler(classify_bytes(file, "image/png"), LambdaContext()))
        assert [p["index"] for p in answer["predictions"]] == ranking[:5].tolist()
        assert answer["predictions"][0]["confidence"] == pytest.approx(confidence, abs=1e-6)


def test_handler_and_evaluation_agree_on_random_images(classifier: Classifier, noise: np.random.Generator) -> None:
    images = noise.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    assert_handler_and_evaluation_agree(classifier, Split(Pixels(images), np.zeros(4, np.int64)))


def test_handler_and_evaluation_agree_on_test_images(classifier: Classifier, test_split: Split) -> None:
    assert_handler_and_evaluation_agree(classifier, test_split.take(range(50)))


def test_the_manifest_states_the_accuracy_of_the_serving_code(classifier: Classifier, test_split: Split) -> None:
    metrics = json.loads((CIFAR_BUNDLE / "manifest.json").read_text())["metrics"]
    served = classify_split(classifier, test_split)
    correct = served.correct(test_split.classes)
    assert metrics["test_images"] + metrics["test_duplicates"] == len(test_split)
    assert correct.mean() == pytest.approx(metrics["int8_top1"], abs=0.003)
    assert served.correct(test_split.classes, within=5).mean() == pytest.approx(metrics["int8_top5"], abs=0.003)
    assert calibration_error(served.confidence, correct) == pytest.approx(metrics["calibration_error"], abs=0.003)


def test_the_softmax_of_a_predictions_logits_are_its_confidences(noise: np.random.Generator) -> None:
    confidences = softmax(noise.normal(size=(5, 7)))
    ranking = np.argsort(-confidences, axis=1)
    predictions = Predictions(ranking, np.take_along_axis(confidences, ranking, axis=1))
    assert softmax(predictions.logits()) == pytest.approx(confidences, abs=1e-6)


def test_test_images_that_occur_in_training_are_removed_and_named() -> None:
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    split = Split(Pixels(images), np.array([0, 1, 2, 3]))
    left, duplicates = remove_duplicates(split, split.take([1]), split.take([3]))
    assert duplicates == ("number 1", "number 3")
    assert left.classes.tolist() == [0, 2]
    assert left.images.pixels([0, 1])[:, 0, 0, 0].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("right", "accuracy", "threshold"),
    [
        ([1, 1, 1, 0], 1.0, 0.7),
        ([1, 1, 1, 0], 0.75, 0.6),
        ([1, 0, 1, 1], 0.75, 0.6),
        ([0, 1, 1, 1], 0.7, 0.6),
        ([0, 0, 1, 1], 0.95, 0.6),
        ([0, 1, 0, 0], 0.95, 0.8),
    ],
)
def test_the_lowest_threshold_that_reaches_or_is_nearest_to_the_accuracy_is_chosen(
    right: list[int], accuracy: float, threshold: float
) -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    assert choose_threshold(confidence, np.array(right, bool), accuracy) == threshold


def test_predictions_of_equal_confidence_reach_the_threshold_together() -> None:
    assert choose_threshold(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), 1.0) == 0.9


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50),
    st.floats(0.01, 1.0),
)
def test_no_lower_threshold_reaches_the_accuracy(answers: list[tuple[float, bool]], accuracy: float) -> None:
    confidence = np.array([c for c, _ in answers])
    right = np.array([r for _, r in answers])

    def reached(threshold: float) -> float:
        return float(right[confidence >= threshold].mean())

    chosen = choose_threshold(confidence, right, accuracy)
    best = max(reached(t) for t in confidence)
    assert reached(chosen) >= min(accuracy, best)
    assert all(reached(t) < min(accuracy, best) for t in confidence if t < chosen)
