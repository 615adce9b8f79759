"""Calibration: choose the temperature and the threshold of a model, and measure how reliable its confidences are."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from litelens_client.learning.metrics import Classes, Floats


def best_temperature(logits: Floats, truth: Classes, smoothing: float = 0.0) -> float:
    """Find the temperature, from 0.05 to 20, with the lowest negative log-likelihood of the true classes.

    Guo et al. 2017, https://arxiv.org/abs/1706.04599. The likelihood has a single optimum, which golden-section search
    finds. `smoothing` is the share of each target that is divided evenly among all classes. Without it, all confidences
    would approach 1 if all predictions are correct (Platt 1999, "Probabilistic Outputs for Support Vector Machines",
    section 2.2).
    """
    return lowest_loss(lambda temperature: negative_log_likelihood(logits, truth, temperature, smoothing))


def lowest_loss(loss: Callable[[float], float]) -> float:
    """Return the temperature, from 0.05 to 20, with the lowest loss, which must have a single minimum."""
    low, high = np.log(0.05), np.log(20.0)
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(float(np.exp(left))) < loss(float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def negative_log_likelihood(logits: Floats, truth: Classes, temperature: float = 1.0, smoothing: float = 0.0) -> float:
    """Compute the mean negative log-likelihood of the true classes, in nats, for logits divided by the temperature.

    `smoothing` is the share of each target that is divided evenly among all classes.
    """
    scaled = logits / temperature
    top = scaled.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]
    target = (1 - smoothing) * scaled[np.arange(len(truth)), truth] + smoothing * scaled.mean(axis=1)
    return float((log_total - target).mean())


def choose_threshold(confidence: Floats, correct: NDArray[np.bool_], accuracy: float) -> float:
    """Return the lowest threshold such that predictions with at least this confidence reach the accuracy.

    If no threshold reaches it, return the lowest of those with the highest accuracy.
    """
    order = np.argsort(-confidence, kind="stable")
    reached = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    # Predictions of equal confidence reach a threshold together, so only the last of them is a candidate.
    is_last = np.append(np.diff(confidence[order]) < 0, True)
    candidates = np.flatnonzero(is_last)
    sufficient = candidates[reached[candidates] >= accuracy]
    if not len(sufficient):
        sufficient = candidates[reached[candidates] == reached[candidates].max()]
    return float(confidence[order][sufficient[-1]])


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
