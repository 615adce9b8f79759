"""Measures of a classifier's answers. All take and give plain numpy arrays; shares are from 0 to 1."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class ClassScore:
    """One class: of the images said to show it, how many do (precision), and of those that do, how many are found."""

    label: str
    images: int
    precision: float
    recall: float
    f1: float


def wilson_interval(share: float, images: int, z: float = 1.96) -> tuple[float, float]:
    """The confidence interval, 95% by default, of a share measured on that many images (Wilson 1927)."""
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    return centre - half, centre + half


def confusion_matrix(truth: Classes, predicted: Classes, classes: int) -> NDArray[np.int64]:
    """How often each class (row) was taken for each class (column), int64 `(classes, classes)`."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def class_scores(confusion: NDArray[np.int64], labels: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """Precision, recall and F1 of each class; 0 where there is nothing to divide by."""
    hits = np.diag(confusion).astype(float)
    said, are = confusion.sum(axis=0), confusion.sum(axis=1)
    precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
    recall = np.divide(hits, are, out=np.zeros_like(hits), where=are > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(hits), where=both > 0)
    return tuple(
        ClassScore(label, int(n), float(p), float(r), float(f))
        for label, n, p, r, f in zip(labels, are, precision, recall, f1, strict=True)
    )


def best_temperature(logits: Floats, truth: Classes) -> float:
    """The temperature, from 0.05 to 20, by which to divide the logits to make the truth likeliest.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. The likelihood has one peak, which golden-section search finds.
    """
    low, high = np.log(0.05), np.log(20.0)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if surprise(logits, truth, float(np.exp(left))) < surprise(logits, truth, float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def surprise(logits: Floats, truth: Classes, temperature: float = 1.0) -> float:
    """The mean negative log-likelihood, in nats, of the truth when the logits are divided by the temperature."""
    scaled = logits / temperature
    top = scaled.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
    return float((log_total - scaled[np.arange(len(truth)), truth]).mean())


def reliability(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> list[dict[str, float]]:
    """Of each bin of confidence that holds answers: their number, mean confidence and share of right ones."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "images": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
        }
        for inside in (which == b for b in range(bins))
        if inside.any()
    ]


def calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy over the bins, by their weight."""
    rows = reliability(confidence, right, bins)
    return sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / len(confidence)


def coverage_curve(confidence: Floats, right: NDArray[np.bool_], points: int = 50) -> list[dict[str, float]]:
    """The accuracy of the answers that are given, for shares of answers given from the surest few to all."""
    order = np.argsort(-confidence, kind="stable")
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    kept = np.unique(np.linspace(1, len(order), min(points, len(order))).round().astype(int))
    return [
        {
            "coverage": float(k / len(order)),
            "accuracy": float(reached[k - 1]),
            "threshold": float(confidence[order][k - 1]),
        }
        for k in kept
    ]
