"""Compare a quantized model with the float one, and the limits within which it replaces it."""

import numpy as np
from numpy.typing import NDArray

# A quantized model may lose this share of top-1. If the classes of the photos are unknown, it must agree with the float
# model on that share of them.
MOST_LOST, LEAST_AGREEMENT = 0.005, 0.9

# Fewer lost images may be chance: if the models differ on four images, losing all four has a probability of 1/16, which
# is not significant in a sign test at 5%.
MIN_LOST_IMAGES = 5


def exceeds(share: float, limit: float, images: int) -> bool:
    """Return True if a share of the images is above the limit, by enough images that it is not chance."""
    return share > limit and round(share * images) >= MIN_LOST_IMAGES


def divergence(expected: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Compute the mean Kullback-Leibler divergence, in nats, of the softmax of `found` from that of `expected`.

    Both are logits `(n, classes)`. The divergence is 0 if the softmaxes are equal.
    """
    log_expected, log_found = _log_softmax(expected), _log_softmax(found)
    return float((np.exp(log_expected) * (log_expected - log_found)).sum(axis=1).mean())


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
