"""Metrics of predictions, and the warning about models no better than chance. Shares are from 0 to 1."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# The class of each photo, `(n,)`; or whether each photo has each label, `(n, labels)`.
Classes = NDArray[np.int64]
Labelled = NDArray[np.bool_]


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
    """Compute the confidence interval, by default 95%, of a share of `images` (Wilson 1927)."""
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    return centre - half, centre + half


def chance_warnings(document: Mapping[str, Any]) -> list[str]:
    """Return a warning if the images of the measurement do not show that the model is better than chance.

    `document` is the content of metrics.json. Chance is the accuracy of always answering the images' most
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
        f"The images it was measured on do not show that this model is better than chance: it classifies {top1:.1%} of "
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
