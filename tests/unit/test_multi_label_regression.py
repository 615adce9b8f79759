"""Multi-label learning on embeddings: regressions, folds, thresholds and metrics."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score

from litelens_client.learning.multi_label import (
    DEFAULT_THRESHOLD,
    LabelledSamples,
    assign_label_folds,
    average_precision,
    best_label_temperature,
    choose_thresholds,
    cross_validate_labels,
    fit_label_heads,
    label_confidences,
    label_measurements,
)
from litelens_client.learning.regression import MAX_FOLDS

CHANNELS = 12


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(7)


def scenes(noise: np.random.Generator, count: int, labels: int = 3) -> LabelledSamples:
    """Return photos with random labels, each of which adds a direction of its own to the features."""
    labelled = noise.random((count, labels)) < 0.4
    directions = 2 * np.eye(labels, CHANNELS)
    pooled = (labelled @ directions + noise.normal(0, 0.5, (count, CHANNELS))).astype(np.float32)
    return LabelledSamples(pooled, None, labelled, np.arange(count))


@pytest.mark.parametrize("regularization", [1e-3, 1e-1, 1.0])
def test_each_label_gets_the_regression_that_it_would_get_alone(
    noise: np.random.Generator, regularization: float
) -> None:
    samples = scenes(noise, 60)
    head = fit_label_heads(samples.pooled, samples.labelled, regularization)
    mean = samples.pooled.mean(axis=0)
    scale = (samples.pooled - mean).std()
    for label in range(3):
        alone = LogisticRegression(C=regularization, tol=1e-6, max_iter=10_000)
        alone.fit((samples.pooled - mean) / scale, samples.labelled[:, label])
        expected = alone.decision_function((samples.pooled - mean) / scale)
        assert head.logits(samples.pooled)[:, label] == pytest.approx(expected, abs=0.02)


def test_a_label_of_all_or_no_photos_gets_the_same_score_for_every_photo(noise: np.random.Generator) -> None:
    samples = scenes(noise, 30)
    labelled = samples.labelled.copy()
    labelled[:, 0], labelled[:, 1] = True, False
    head = fit_label_heads(samples.pooled, labelled, 1.0)
    confidences = label_confidences(head.logits(samples.pooled).astype(float), 1.0)
    assert confidences[:, 0] == pytest.approx(np.full(30, 30.5 / 31), abs=1e-6)
    assert confidences[:, 1] == pytest.approx(np.full(30, 0.5 / 31), abs=1e-6)
    assert np.ptp(confidences[:, 2]) > 0.5


def test_photos_that_were_left_out_are_predicted(noise: np.random.Generator) -> None:
    samples = scenes(noise, 120)
    result = cross_validate_labels(samples)
    assert ((result.logits > 0) == samples.labelled).mean() > 0.9
    random = LabelledSamples(samples.pooled, None, noise.random((120, 3)) < 0.4, samples.groups)
    logits = cross_validate_labels(random).logits
    assert ((logits > 0) == random.labelled).mean() < 0.75


def test_mirror_images_are_fitted_too(noise: np.random.Generator) -> None:
    samples = scenes(noise, 20)
    head = fit_label_heads(samples.pooled, samples.labelled, 1.0)
    same = fit_label_heads(samples.pooled, samples.labelled, 0.5, mirrored=samples.pooled)
    assert same.weights == pytest.approx(head.weights, abs=0.01)


@pytest.mark.parametrize("count", [6, 13, 80])
def test_the_photos_of_each_label_are_spread_over_the_folds(noise: np.random.Generator, count: int) -> None:
    labelled = noise.random((count, 4)) < 0.3
    labelled[0], labelled[1], labelled[2:4] = True, True, False
    folds = assign_label_folds(labelled, np.arange(count))
    number = min(MAX_FOLDS, int(np.minimum(labelled.sum(axis=0), (~labelled).sum(axis=0)).min()))
    assert sorted(set(folds.tolist())) == list(range(number))
    for label in range(4):
        per_fold = np.bincount(folds[labelled[:, label]], minlength=number)
        assert np.count_nonzero(per_fold) >= 2


def test_duplicates_are_in_the_same_fold(noise: np.random.Generator) -> None:
    labelled = np.repeat(noise.random((20, 2)) < 0.5, 2, axis=0)
    groups = np.repeat(np.arange(20), 2)
    folds = assign_label_folds(labelled, groups)
    assert np.array_equal(folds[::2], folds[1::2])
    assert len(set(folds.tolist())) == MAX_FOLDS


def test_photos_that_are_all_duplicates_have_folds_too() -> None:
    labelled = np.array([[True], [True], [False], [False]])
    assert len(set(assign_label_folds(labelled, np.zeros(4, np.int64)).tolist())) == 2


def test_the_threshold_of_each_label_has_the_highest_f1(noise: np.random.Generator) -> None:
    labelled = noise.random((200, 3)) < 0.3
    confidences = np.clip(noise.normal(0.3, 0.2, (200, 3)) + 0.3 * labelled, 0, 1)
    for label, threshold in enumerate(choose_thresholds(confidences, labelled)):
        best = f1_score(labelled[:, label], confidences[:, label] >= threshold)
        others = [f1_score(labelled[:, label], confidences[:, label] >= other) for other in np.linspace(0, 1, 101)]
        assert best >= max(others) - 1e-9


def test_a_threshold_is_halfway_between_photos_with_and_without_the_label() -> None:
    confidences = np.array([[0.9], [0.7], [0.2], [0.1]])
    assert choose_thresholds(confidences, np.array([[True], [True], [False], [False]])) == pytest.approx((0.45,))


def test_a_label_that_no_photo_has_gets_the_default_threshold() -> None:
    assert choose_thresholds(np.array([[0.9], [0.1]]), np.zeros((2, 1), bool)) == (DEFAULT_THRESHOLD,)


@pytest.mark.parametrize("decimals", [1, 6])
def test_the_average_precision_is_that_of_scikit_learn(noise: np.random.Generator, decimals: int) -> None:
    present = noise.random(100) < 0.3
    confidence = np.round(np.clip(noise.random(100) + 0.3 * present, 0, 1), decimals)
    assert average_precision(confidence, present) == pytest.approx(average_precision_score(present, confidence))
    assert average_precision(confidence, np.zeros(100, bool)) is None


def test_a_temperature_corrects_confidences_that_are_too_high(noise: np.random.Generator) -> None:
    logits = noise.normal(0, 2, (5000, 2))
    labelled = noise.random((5000, 2)) < 1 / (1 + np.exp(-logits))
    assert best_label_temperature(3 * logits, labelled) == pytest.approx(3, rel=0.1)


def test_the_measurements_count_labels_and_whole_photos() -> None:
    labelled = np.array([[True, True], [True, False], [False, False], [False, False]])
    confidences = np.array([[0.9, 0.8], [0.9, 0.7], [0.1, 0.2], [0.6, 0.1]])
    document = label_measurements(confidences, confidences, labelled, ("cat", "dog"), (0.5, 0.75))
    metrics = document["metrics"]
    assert metrics["exact_match"] == 0.75
    assert metrics["answered_share"] == 0.75
    assert metrics["mean_average_precision"] == 1
    cat, dog = document["classes"]
    assert (cat["images"], cat["precision"], cat["recall"]) == (2, pytest.approx(2 / 3), 1)
    assert (dog["f1"], dog["threshold"]) == (1, 0.75)
    assert metrics["int8_top1"] is None
    assert sum(row["images"] for row in document["reliability"]) == labelled.size


def test_a_label_that_no_measured_photo_has_is_left_out_of_the_means() -> None:
    labelled = np.array([[True, False], [False, False]])
    document = label_measurements(np.array([[0.9, 0.1], [0.1, 0.1]]), np.full((2, 2), 0.5), labelled, "ab", (0.5, 0.5))
    assert document["metrics"]["mean_average_precision"] == 1
    assert document["metrics"]["mean_f1"] == 1
    assert document["classes"][1]["average_precision"] is None
    assert not math.isnan(document["metrics"]["calibration_error"])
