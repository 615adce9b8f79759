"""Logistic regression on embeddings: fit a head, and predict each photo by cross-validation."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litelens.core.head import Head
from litelens_client.learning.calibration import negative_log_likelihood
from litelens_client.learning.metrics import Classes, Floats

# Values of scikit-learn's C to choose from, for features whose standard deviation is 1. On cats and dogs, the range
# contains the best value for 2 to 2,000 photos of each class.
REGULARIZATIONS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)

MAX_FOLDS = 5
_ITERATIONS = 2000
_SEED = 1


@dataclass(frozen=True)
class Samples:
    """The pooled features of photos, float32 `(n, channels)`, and their classes, int64 `(n,)`.

    `mirrored` are the pooled features of their mirror images, which are only fitted, not predicted, or None. `groups`,
    int64 `(n,)`, are equal for duplicates of a photo, which cross-validation keeps in the same fold.
    """

    pooled: NDArray[np.float32]
    mirrored: NDArray[np.float32] | None
    classes: Classes
    groups: Classes

    def take(self, indices: NDArray[np.int64]) -> "Samples":
        """Return the samples with these indices."""
        mirrored = None if self.mirrored is None else self.mirrored[indices]
        return Samples(self.pooled[indices], mirrored, self.classes[indices], self.groups[indices])


@dataclass(frozen=True)
class Standardized:
    """Features with a mean of 0 and, over all channels, a standard deviation of 1: `(pooled - mean) / scale`."""

    values: NDArray[np.float32]
    mean: NDArray[np.float32]
    scale: float


@dataclass(frozen=True)
class CrossValidation:
    """The class scores of each photo, float64 `(n, classes)`, by a head that was fitted without that photo."""

    logits: Floats
    folds: int
    regularization: float


def cross_validate(samples: Samples, classes: int) -> CrossValidation:
    """Predict each photo by cross-validation, with the regularization that makes the true classes most likely.

    Each class needs at least two photos.
    """
    folds = assign_folds(samples.classes, samples.groups)
    results = [
        CrossValidation(_predict(samples, folds, classes, regularization), int(folds.max()) + 1, regularization)
        for regularization in REGULARIZATIONS
    ]
    return min(results, key=lambda result: negative_log_likelihood(result.logits, samples.classes))


def standardize(pooled: NDArray[np.float32]) -> Standardized:
    """Standardize pooled features, float32 `(n, channels)`."""
    mean = pooled.mean(axis=0)
    scale = max(float((pooled - mean).std()), 1e-6)
    return Standardized((pooled - mean) / scale, mean, scale)


def fit_head(samples: Samples, classes: int, regularization: float) -> Head:
    """Fit a multinomial logistic regression; a class without samples gets the lowest scores."""
    # Imported only here, because importing it takes a second, and `litelens serve` should start at once.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    pooled, truth = samples.pooled, samples.classes
    if samples.mirrored is not None:
        pooled, truth = np.concatenate([pooled, samples.mirrored]), np.concatenate([truth, truth])
    standard = standardize(pooled)
    mean, scale = standard.mean, standard.scale
    model = LogisticRegression(C=regularization, max_iter=_ITERATIONS)
    # Several threads make these small fits up to six times slower.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(standard.values, truth)
    weights, bias = model.coef_ / scale, model.intercept_ - model.coef_ @ (mean / scale)
    if len(model.classes_) == 2:
        # For two classes, scikit-learn has one row, whose score is the second class's minus the first's.
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return _with_all_classes(Head(weights.astype(np.float32), bias.astype(np.float32)), model.classes_, classes)


def assign_folds(truth: Classes, groups: Classes) -> Classes:
    """Assign each photo to a fold, int64 `(n,)`, so that the photos of each class are spread evenly.

    There are as many folds as the smallest class has photos, at most MAX_FOLDS. Photos of a group are in the same fold,
    unless their class has no other photos. A group can have photos of several classes.
    """
    count = min(MAX_FOLDS, int(np.bincount(truth)[np.unique(truth)].min()))
    members: dict[int, list[int]] = {}
    for index, group in enumerate(_divide_lone_groups(truth, groups).tolist()):
        members.setdefault(group, []).append(index)
    folds = np.zeros(len(truth), np.int64)
    shares = np.zeros((int(truth.max()) + 1, count))
    totals = np.bincount(truth)
    labels = {group: np.unique(truth[indices]) for group, indices in members.items()}
    order = np.random.default_rng(_SEED).permutation(sorted(members)).tolist()
    # Groups of several classes come first, because the other groups of these classes can then even out the folds.
    for group in sorted(order, key=lambda group: -len(labels[group])):
        fold = int(shares[labels[group]].sum(axis=0).argmin())
        for index in members[group]:
            folds[index] = fold
            shares[truth[index], fold] += 1 / totals[truth[index]]
    return folds


def _divide_lone_groups(truth: Classes, groups: Classes) -> Classes:
    """Make each photo a group of its own in classes that have a single group."""
    divided = groups.copy()
    for label in np.unique(truth):
        members = np.flatnonzero(truth == label)
        if len(np.unique(groups[members])) == 1:
            divided[members] = groups.max() + 1 + members
    return divided


def _predict(samples: Samples, folds: Classes, classes: int, regularization: float) -> Floats:
    logits = np.zeros((len(folds), classes))
    for fold in np.unique(folds):
        inside = folds == fold
        head = fit_head(samples.take(np.flatnonzero(~inside)), classes, regularization)
        logits[inside] = head.logits(samples.pooled[inside])
    return logits


def _with_all_classes(head: Head, present: Classes, classes: int) -> Head:
    """Add rows for the classes that were not present, with scores below those of all others."""
    if len(present) == classes:
        return head
    weights = np.zeros((classes, head.weights.shape[1]), np.float32)
    bias = np.full(classes, -1e3, np.float32)
    weights[present], bias[present] = head.weights, head.bias
    return Head(weights, bias)
