"""Probabilities from scores, and scores from the probabilities in a model's output."""

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import Tensor


def lowest_probability(output: Tensor) -> np.float32:
    """Return the probability that stands for 0, whose logarithm is not finite, in an output `(1, classes)`.

    In an integer tensor, 0 stands for all probabilities below half a level. All classes together get half a level, so
    that the others keep their probabilities, and calibration does not see a wrong answer that is infinitely sure.
    """
    if output.is_float:
        return np.finfo(np.float32).tiny
    return np.float32(output.scale / (2 * output.shape[-1]))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn scores into probabilities over the last axis, float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: NDArray[np.float32] = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32, copy=False)
    return probabilities


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn each score into a probability of its own, float32 of the same shape."""
    probabilities: NDArray[np.float32] = np.exp(-np.logaddexp(np.float32(0), -logits)).astype(np.float32)
    return probabilities


def probability_limits(output: Tensor) -> tuple[float, float]:
    """Return the probabilities that stand for 0 and 1, which have no finite scores, in an output.

    In an integer tensor, 0 and 1 stand for all probabilities within half a level, so they are moved by a quarter of a
    level.
    """
    number = np.finfo(np.float32)
    if output.is_float:
        return float(number.tiny), float(1 - number.epsneg)
    return output.scale / 4, 1 - output.scale / 4


def log_odds(probabilities: NDArray[np.float32], output: Tensor) -> NDArray[np.float32]:
    """Return the scores whose sigmoids are these probabilities, the model's output `(classes,)`.

    They are kept within probability_limits().
    """
    possible = probabilities.astype(np.float64).clip(*probability_limits(output))
    odds: NDArray[np.float32] = np.log(possible / (1 - possible)).astype(np.float32)
    return odds


def entropy(probabilities: NDArray[np.float32]) -> float:
    """Return the Shannon entropy, in bits, of probabilities `(classes,)`."""
    # In float64, because 1 / p of the smallest float32 numbers overflows float32.
    possible = probabilities[probabilities > 0].astype(np.float64)
    return float((possible * np.log2(1 / possible)).sum())
