"""The head of a classifier: from features to class scores, class activation maps and embeddings.

The model computes features, `(h, w, channels)`. Their mean over h and w, multiplied by each class's weights, gives the
class scores. The features themselves, multiplied by a class's weights, give its class activation map (Zhou et al. 2016,
https://arxiv.org/abs/1512.04150).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litelens.core.arrays import load_npz, to_npz

HEAD = "head.npz"


@dataclass(frozen=True)
class Head:
    """A linear layer: `weights`, float32 `(classes, channels)`, and `bias`, float32 `(classes,)`."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class scores, float32 `(..., classes)`, of pooled features, float32 `(..., channels)`."""
        scores: NDArray[np.float32] = pooled @ self.weights.T + self.bias
        return scores

    def activation_map(self, features: NDArray[np.float32], index: int) -> NDArray[np.float32]:
        """Return the scores of a class over the image, float32 `(h, w)`, whose mean is the class score."""
        scores: NDArray[np.float32] = features @ self.weights[index] + self.bias[index]
        return scores

    def to_bytes(self) -> bytes:
        """Return the content of a bundle's file HEAD."""
        return to_npz(weights=self.weights, bias=self.bias)


def load_head(path: Path, classes: int, channels: int) -> Head:
    """Load a bundle's file HEAD; raises BundleError if it is damaged or has other shapes."""
    arrays = load_npz(path, weights=(np.float32, (classes, channels)), bias=(np.float32, (classes,)))
    return Head(arrays["weights"], arrays["bias"])
