"""Multi-label learning: a logistic regression for each label, the labels' thresholds, and how right they are.

The labels of photos are bool `(n, labels)`: whether each photo has each label.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelens.core.head import Head
from litelens.core.probabilities import sigmoid
from litelens_client.learning.calibration import calibration_error, lowest_loss, reliability
from litelens_client.learning.metrics import Classes, Floats, Labelled
from litelens_client.learning.regression import MAX_FOLDS, REGULARIZATIONS, CrossValidation, standardize

# The threshold of a label before it is chosen, or if no photo that is measured has the label.
DEFAULT_THRESHOLD = 0.5

_ITERATIONS = 2000
_TOLERANCE = 1e-4
_SEED = 1

# The fields of metrics.json that only models with exclusive labels have.
_EXCLUSIVE = (
    "fp32_top1",
    "fp32_top5",
    "int8_top1",
    "int8_top5",
    "int8_group_top1",
    "agreement",
    "openvino_top1",
    "openvino_agreement",
    "threshold",
    "answered_accuracy",
)


@dataclass(frozen=True)
class LabelledSamples:
    """The pooled features of photos, float32 `(n, channels)`, and their labels, bool `(n, labels)`.

    `mirrored` are the pooled features of their mirror images, which are only fitted, not predicted, or None. `groups`,
    int64 `(n,)`, are equal for duplicates of a photo, which cross-validation keeps in the same fold.
    """

    pooled: NDArray[np.float32]
    mirrored: NDArray[np.float32] | None
    labelled: Labelled
    groups: Classes


@dataclass(frozen=True)
class LabelScore:
    """The scores of one label, and the number of test images that have it.

    Precision is the share of correct ones among the images on which the label is present by its threshold, recall the
    share of its images that are found. The average precision needs no threshold; it is None if no image has the label.
    """

    label: str
    images: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    threshold: float


def cross_validate_labels(samples: LabelledSamples) -> CrossValidation:
    """Predict each photo by cross-validation, with the regularization that makes the photos' labels most likely.

    Each label needs at least two photos that have it and two that do not.
    """
    folds = assign_label_folds(samples.labelled, samples.groups)
    results = [
        CrossValidation(_predict(samples, folds, regularization), int(folds.max()) + 1, regularization)
        for regularization in REGULARIZATIONS
    ]
    return min(results, key=lambda result: label_loss(result.logits, samples.labelled))


def fit_label_heads(
    pooled: NDArray[np.float32], labelled: Labelled, regularization: float, mirrored: NDArray[np.float32] | None = None
) -> Head:
    """Fit a logistic regression for each label, all at once, with scikit-learn's meaning of the regularization C.

    A label that all or none of the photos have gets the same score for every photo, by its share of the photos.
    """
    # Imported only here, because importing it takes a while, and `litelens serve` should start at once.
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    if mirrored is not None:
        pooled, labelled = np.concatenate([pooled, mirrored]), np.concatenate([labelled, labelled])
    standard = standardize(pooled)
    count, counts = len(labelled), labelled.sum(axis=0)
    is_mixed = (counts > 0) & (counts < count)
    features, truth = standard.values.astype(np.float64), labelled[:, is_mixed].astype(np.float64)
    shape = (truth.shape[1], features.shape[1] + 1)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, bias = np.split(parameters.reshape(shape), [shape[1] - 1], axis=1)
        scores = features @ weights.T + bias.T
        error = np.exp(-np.logaddexp(0, -scores)) - truth
        penalty = weights / (regularization * count)
        value = (np.logaddexp(0, scores) - truth * scores).sum() / count + (weights * penalty).sum() / 2
        gradient = np.concatenate([error.T @ features / count + penalty, error.mean(axis=0)[:, np.newaxis]], axis=1)
        return float(value), gradient.ravel()

    share = (counts + 0.5) / (count + 1)
    weights, bias = np.zeros((len(counts), pooled.shape[1])), np.log(share / (1 - share))
    if is_mixed.any():
        # Several threads make these small fits slower.
        with threadpool_limits(1):
            options = {"maxiter": _ITERATIONS, "gtol": _TOLERANCE, "ftol": 64 * np.finfo(float).eps}
            found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
        fitted = found.x.reshape(shape)
        weights[is_mixed] = fitted[:, :-1] / standard.scale
        bias[is_mixed] = fitted[:, -1] - fitted[:, :-1] @ (standard.mean / standard.scale)
    return Head(weights.astype(np.float32), bias.astype(np.float32))


def assign_label_folds(labelled: Labelled, groups: Classes) -> Classes:
    """Assign each photo to a fold, int64 `(n,)`, so that the photos of each label are spread evenly.

    There are as many folds as the rarest label has photos, at most MAX_FOLDS. Photos of a group are in the same fold,
    unless all photos are one group. The rarest labels are spread first (Sechidis et al. 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10).
    """
    if len(np.unique(groups)) == 1:
        groups = np.arange(len(groups))
    totals = labelled.sum(axis=0)
    count = min(MAX_FOLDS, int(np.minimum(totals, len(labelled) - totals).min()))
    members = {int(group): np.flatnonzero(groups == group) for group in np.unique(groups)}
    shares = np.zeros((labelled.shape[1], count))
    sizes = np.zeros(count)
    folds = np.zeros(len(labelled), np.int64)
    order = np.random.default_rng(_SEED).permutation(sorted(members)).tolist()
    labels = {group: np.flatnonzero(labelled[indices].any(axis=0)) for group, indices in members.items()}
    rarest = {group: int(found[totals[found].argmin()]) if len(found) else None for group, found in labels.items()}

    def rarity(group: int) -> float:
        label = rarest[group]
        return float("inf") if label is None else float(totals[label])

    for group in sorted(order, key=rarity):
        label = rarest[group]
        first = sizes if label is None else shares[label]
        fold = int(np.lexsort((sizes, shares[labels[group]].sum(axis=0), first))[0])
        folds[members[group]] = fold
        shares[:, fold] += labelled[members[group]].sum(axis=0) / np.maximum(totals, 1)
        sizes[fold] += len(members[group])
    return np.unique(folds, return_inverse=True)[1].astype(np.int64)


def label_loss(logits: Floats, labelled: Labelled, temperature: float = 1.0, smoothing: float = 0.0) -> float:
    """Compute the mean negative log-likelihood, in nats, of each photo having each of its labels and no other.

    `smoothing` is the share of each target that is moved to 0.5.
    """
    scores = logits / temperature
    targets = (1 - smoothing) * labelled + smoothing / 2
    return float((np.logaddexp(0, scores) - targets * scores).mean())


def best_label_temperature(logits: Floats, labelled: Labelled, smoothing: float = 0.0) -> float:
    """Find the temperature with the lowest label_loss(); see calibration.best_temperature()."""
    return lowest_loss(lambda temperature: label_loss(logits, labelled, temperature, smoothing))


def label_confidences(logits: Floats, temperature: float) -> Floats:
    """Return the calibrated confidences, float64 `(n, labels)`."""
    return sigmoid((logits / temperature).astype(np.float32)).astype(np.float64)


def choose_thresholds(confidences: Floats, labelled: Labelled) -> tuple[float, ...]:
    """Return for each label the threshold with the highest F1, the mean of precision and recall.

    It is halfway between the lowest confidence that reaches it and the next one. A label that no photo has gets
    DEFAULT_THRESHOLD.
    """
    return tuple(_best_threshold(*column) for column in zip(confidences.T, labelled.T, strict=True))


def average_precision(confidence: Floats, present: Labelled) -> float | None:
    """Return the mean precision over the recalls that thresholds reach; None if no photo has the label.

    `confidence` and `present` are those of one label, `(n,)`.
    """
    if not present.any():
        return None
    _, hits, chosen = _ranked(confidence, present)
    gains = np.diff(hits, prepend=0) / present.sum()
    return float((gains * hits / chosen).sum())


def label_measurements(
    confidences: Floats, uncalibrated: Floats, labelled: Labelled, labels: Sequence[str], thresholds: Sequence[float]
) -> dict[str, Any]:
    """Return the fields of metrics.json that the confidences, `(n, labels)`, of measured photos give.

    Each label of each photo counts as an answer for the calibration. A photo is answered if a label is present on it.
    """
    present = confidences >= np.array(thresholds)
    scores = label_scores(confidences, labelled, labels, thresholds)
    precisions = [score.average_precision for score in scores if score.average_precision is not None]
    flat, truth = confidences.ravel(), labelled.ravel()
    return {
        "metrics": {
            **dict.fromkeys(_EXCLUSIVE),
            "test_images": len(labelled),
            "mean_average_precision": float(np.mean(precisions)) if precisions else None,
            "mean_f1": float(np.mean([score.f1 for score in scores if score.images])) if precisions else None,
            "exact_match": float((present == labelled).all(axis=1).mean()),
            "calibration_error_uncalibrated": calibration_error(uncalibrated.ravel(), truth),
            "calibration_error": calibration_error(flat, truth),
            "thresholds": list(thresholds),
            "answered_share": float(present.any(axis=1).mean()),
        },
        "classes": [asdict(score) for score in scores],
        "confusion": [],
        "reliability": reliability(flat, truth),
        "reliability_uncalibrated": reliability(uncalibrated.ravel(), truth),
        "coverage": [],
    }


def label_scores(
    confidences: Floats, labelled: Labelled, labels: Sequence[str], thresholds: Sequence[float]
) -> tuple[LabelScore, ...]:
    """Compute the scores of each label; a share is 0 where there is nothing to divide by."""
    present = confidences >= np.array(thresholds)
    hits = (present & labelled).sum(axis=0)
    found, images = present.sum(axis=0), labelled.sum(axis=0)
    return tuple(
        LabelScore(
            label,
            int(images[at]),
            float(hits[at] / max(found[at], 1)),
            float(hits[at] / max(images[at], 1)),
            float(2 * hits[at] / max(found[at] + images[at], 1)),
            average_precision(confidences[:, at], labelled[:, at]),
            float(thresholds[at]),
        )
        for at, label in enumerate(labels)
    )


def _predict(samples: LabelledSamples, folds: Classes, regularization: float) -> Floats:
    logits = np.zeros(samples.labelled.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        mirrored = None if samples.mirrored is None else samples.mirrored[~inside]
        head = fit_label_heads(samples.pooled[~inside], samples.labelled[~inside], regularization, mirrored)
        logits[inside] = head.logits(samples.pooled[inside])
    return logits


def _best_threshold(confidence: Floats, present: Labelled) -> float:
    if not present.any():
        return DEFAULT_THRESHOLD
    distinct, hits, chosen = _ranked(confidence, present)
    best = int((hits / (chosen + present.sum())).argmax())
    following = distinct[best + 1] if best + 1 < len(distinct) else 0.0
    return float((distinct[best] + following) / 2)


def _ranked(confidence: Floats, present: Labelled) -> tuple[Floats, Floats, Floats]:
    """Return the distinct confidences, highest first, and how many photos reach each: those with the label, and all."""
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    last = np.flatnonzero(np.append(np.diff(ranked) < 0, True))
    return ranked[last], np.cumsum(present[order])[last].astype(np.float64), (last + 1).astype(np.float64)
