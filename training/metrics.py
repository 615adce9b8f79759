"""Measures of a classifier's predictions, and the warning for models no better than chance; shares are from 0 to 1."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class, and the number of its test images.

    Precision is the share of correct predictions of the class, recall the share of its images that are found.
    """

    label: str
    images: int
    precision: float
    recall: float
    f1: float


def wilson_interval(share: float, images: int, z: float = 1.96) -> tuple[float, float]:
    """Compute the confidence interval, 95% by default, of a share measured on that many images (Wilson 1927)."""
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    return centre - half, centre + half


def chance_warnings(document: Mapping[str, Any]) -> list[str]:
    """Return a warning if the test images do not show that the int8 model is better than chance.

    `document` is the content of metrics.json. Chance is the accuracy of always answering the test images' most
    frequent class; the model is better if the 95% interval of its top-1 accuracy is above that. A model whose accuracy
    is unknown gets no warning.
    """
    top1 = document["metrics"]["int8_top1"]
    images = [sum(row) for row in document["confusion"]]
    if top1 is None or not sum(images):
        return []
    most = max(images)
    label, chance = document["classes"][images.index(most)]["label"], most / sum(images)
    low, high = wilson_interval(top1, sum(images))
    if low > chance:
        return []
    return [
        f"The test images do not show that this model is better than chance: it classifies {top1:.1%} of "
        f"{sum(images):,} correctly (95% interval: {low:.1%} to {high:.1%}); always answering '{label}' would be "
        f"correct for {chance:.1%}."
    ]


def confusion_matrix(truth: Classes, predicted: Classes, classes: int) -> NDArray[np.int64]:
    """Count how often each true class (row) was predicted as each class (column), int64 `(classes, classes)`."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def class_scores(confusion: NDArray[np.int64], labels: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Compute precision, recall and F1 of each class; 0 where there is nothing to divide by."""
    hits = np.diag(confusion).astype(float)
    predicted, images = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, images, out=np.zeros_like(hits), where=images > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(hits), where=both > 0)
    return tuple(
        ClassScore(label, int(n), float(p), float(r), float(f))
        for label, n, p, r, f in zip(labels, images, precision, recall, f1, strict=True)
    )


def best_temperature(logits: Floats, truth: Classes) -> float:
    """Find the temperature, from 0.05 to 20, with the lowest negative log-likelihood of the true classes.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. It has a single minimum, which golden-section search finds.
    """
    low, high = np.log(0.05), np.log(20.0)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        loss_left = negative_log_likelihood(logits, truth, float(np.exp(left)))
        loss_right = negative_log_likelihood(logits, truth, float(np.exp(right)))
        if loss_left < loss_right:
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def negative_log_likelihood(logits: Floats, truth: Classes, temperature: float = 1.0) -> float:
    """Compute the mean negative log-likelihood of the true classes, in nats, for logits divided by the temperature."""
    scaled = logits / temperature
    top = scaled.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
    return float((log_total - scaled[np.arange(len(truth)), truth]).mean())


def reliability(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> list[dict[str, float]]:
    """Compute the number of predictions, their mean confidence and accuracy for each bin of confidence that has any."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "images": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for inside in (bin_of == b for b in range(bins))
        if inside.any()
    ]


def calibration_error(confidence: Floats, correct: NDArray[np.bool_], bins: int = 15) -> float:
    """Compute the expected calibration error: the mean gap between confidence and accuracy, weighted by bin size."""
    rows = reliability(confidence, correct, bins)
    return sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(confidence)


def coverage_curve(confidence: Floats, correct: NDArray[np.bool_], points: int = 50) -> list[dict[str, float]]:
    """Compute the accuracy of the most confident predictions, for growing shares of them, up to all."""
    order = np.argsort(-confidence, kind="stable")
    reached = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    kept = np.unique(np.linspace(1, len(order), min(points, len(order))).round().astype(int))
    return [
        {
            "coverage": float(k / len(order)),
            "accuracy": float(reached[k - 1]),
            "threshold": float(confidence[order][k - 1]),
        }
        for k in kept
    ]
