"""Fitting a head to embeddings, and the folds of its cross-validation."""

from collections.abc import Iterator

import numpy as np
import pytest
from class_folders import one_thread
from hypothesis import given
from hypothesis import strategies as st

from litelens_client.learning.regression import (
    MAX_FOLDS,
    REGULARIZATIONS,
    Samples,
    assign_folds,
    cross_validate,
    fit_head,
)

CHANNELS = 8

# The groups of the photos of each class; the same number in several classes is the same photo in several folders.
GROUPS = st.lists(st.lists(st.integers(0, 6), min_size=2, max_size=7), min_size=2, max_size=4)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def clusters(noise: np.random.Generator, counts: tuple[int, ...], spread: float = 0.3) -> Samples:
    """Photos of classes that are around different points."""
    truth = np.repeat(np.arange(len(counts)), counts)
    pooled = np.eye(CHANNELS)[truth] * 3 + noise.normal(0, spread, (len(truth), CHANNELS))
    return Samples(pooled.astype(np.float32), None, truth, np.arange(len(truth)))


def folds_of(groups: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the class, the group and the fold of each photo."""
    truth = np.repeat(np.arange(len(groups)), [len(photos) for photos in groups])
    numbers = np.concatenate([np.array(photos) for photos in groups])
    return truth, numbers, assign_folds(truth, numbers)


@pytest.mark.parametrize("counts", [(6, 6), (2, 9), (5, 4, 3)])
def test_a_head_recognizes_its_own_photos(counts: tuple[int, ...], noise: np.random.Generator) -> None:
    samples = clusters(noise, counts)
    head = fit_head(samples, len(counts), regularization=1.0)
    assert head.weights.shape == (len(counts), CHANNELS)
    assert head.weights.dtype == head.bias.dtype == np.float32
    best = [head.logits(pooled).argmax() for pooled in samples.pooled]
    assert np.array_equal(best, samples.classes)


def test_a_class_without_samples_gets_the_lowest_scores(noise: np.random.Generator) -> None:
    samples = clusters(noise, (4, 0, 4))
    head = fit_head(samples, 3, regularization=1.0)
    assert all(head.logits(pooled).argmin() == 1 for pooled in samples.pooled)


def test_features_that_are_all_the_same_can_be_fitted() -> None:
    samples = Samples(np.ones((4, CHANNELS), np.float32), None, np.array([0, 0, 1, 1]), np.arange(4))
    head = fit_head(samples, 2, regularization=1.0)
    assert np.isfinite(head.weights).all()
    assert head.logits(samples.pooled[0]) == pytest.approx([0, 0], abs=0.01)


def test_mirror_images_are_fitted_too(noise: np.random.Generator) -> None:
    samples = clusters(noise, (4, 4))
    mirrored = Samples(samples.pooled, samples.pooled + 1, samples.classes, samples.groups)
    alone, together = (fit_head(each, 2, 0.01) for each in (samples, mirrored))
    assert not np.allclose(alone.weights, together.weights)


def test_each_photo_is_predicted_by_a_head_that_has_not_seen_it(noise: np.random.Generator) -> None:
    """A head can learn any labels of few photos by heart, but nobody can predict random labels."""
    pooled = noise.normal(0, 1, (60, 200)).astype(np.float32)
    samples = Samples(pooled, pooled + 0.01, np.arange(60) % 2, np.arange(60))
    head = fit_head(samples, 2, regularization=1.0)
    assert ((pooled @ head.weights.T + head.bias).argmax(axis=1) == samples.classes).all()
    predicted = cross_validate(samples, 2).logits.argmax(axis=1)
    assert 0.2 < (predicted == samples.classes).mean() < 0.8


def test_classes_that_differ_are_told_apart_by_cross_validation(noise: np.random.Generator) -> None:
    samples = clusters(noise, (10, 12, 14))
    found = cross_validate(samples, 3)
    assert (found.logits.argmax(axis=1) == samples.classes).all()
    assert found.logits.shape == (36, 3)
    assert found.folds == MAX_FOLDS
    assert found.regularization in REGULARIZATIONS


def test_the_result_is_the_same_each_time(noise: np.random.Generator) -> None:
    samples = clusters(noise, (6, 7), spread=2)
    assert np.array_equal(cross_validate(samples, 2).logits, cross_validate(samples, 2).logits)


@pytest.mark.parametrize("groups", [[0, 1, 0, 1], [0, 1, 0, 2], [0, 0, 0, 1], [0, 0, 0, 0]])
def test_two_photos_a_class_are_enough_even_if_a_photo_is_in_both_folders(
    groups: list[int], noise: np.random.Generator
) -> None:
    truth = np.array([0, 0, 1, 1])
    samples = Samples(noise.normal(0, 1, (4, CHANNELS)).astype(np.float32), None, truth, np.array(groups))
    found = cross_validate(samples, 2)
    assert found.folds == 2
    # A class that is missing from a fit has very low scores.
    assert np.abs(found.logits).max() < 100


def test_there_are_as_many_folds_as_the_smallest_class_has_photos() -> None:
    _, _, folds = folds_of([[0, 1, 2], [*range(3, 20)]])
    assert sorted(set(folds.tolist())) == [0, 1, 2]


def test_the_photos_of_each_class_are_spread_evenly() -> None:
    truth, _, folds = folds_of([[*range(11)], [*range(11, 31)]])
    for label in (0, 1):
        sizes = np.bincount(folds[truth == label], minlength=MAX_FOLDS)
        assert sizes.max() - sizes.min() <= 1


@given(GROUPS)
def test_every_photo_has_a_fold(groups: list[list[int]]) -> None:
    _, numbers, folds = folds_of(groups)
    assert folds.shape == numbers.shape
    count = min(MAX_FOLDS, min(map(len, groups)))
    assert set(folds.tolist()) <= set(range(count))


@given(GROUPS)
def test_folds_have_no_gaps(groups: list[list[int]]) -> None:
    _, _, folds = folds_of(groups)
    assert set(folds.tolist()) == set(range(folds.max() + 1))


@given(GROUPS)
def test_duplicates_are_in_the_same_fold_if_their_class_has_other_photos(groups: list[list[int]]) -> None:
    truth, numbers, folds = folds_of(groups)
    divided = [len(set(photos)) == 1 for photos in groups]
    kept = ~np.array(divided)[truth]
    for group in set(numbers.tolist()):
        assert len(set(folds[kept & (numbers == group)].tolist())) <= 1


@given(GROUPS)
def test_each_class_with_two_groups_of_its_own_is_in_two_folds(groups: list[list[int]]) -> None:
    truth, _, folds = folds_of(groups)
    for label, photos in enumerate(groups):
        others = {group for other, each in enumerate(groups) if other != label for group in each}
        if len(set(photos)) > 1 and set(photos) - others:
            assert len(set(folds[truth == label].tolist())) > 1


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=5), min_size=2, max_size=2))
def test_of_two_classes_both_are_in_two_folds(groups: list[list[int]]) -> None:
    """Otherwise a head would be fitted to a single class."""
    truth, _, folds = folds_of(groups)
    assert all(len(set(folds[truth == label].tolist())) > 1 for label in (0, 1))
