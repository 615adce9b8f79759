"""Familiarity: how similar a photo is to the photos that a model was learned from.

The familiarity of a photo is the mean cosine similarity of its embedding to the three nearest embeddings of training
photos (Sun et al. 2022, https://arxiv.org/abs/2204.06507). A photo whose familiarity is below the threshold of its most
confident class is unfamiliar. Each class has a threshold, because the photos of some classes vary more than others.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litelens.core.arrays import load_npz, to_npz
from litelens.core.errors import BundleError

FAMILIARITY = "familiarity.npz"

NEIGHBOURS = 3


@dataclass(frozen=True)
class Familiarity:
    """The embeddings of training photos, float32 `(n, channels)` of length 1, and each class's threshold, float32."""

    references: NDArray[np.float32]
    thresholds: NDArray[np.float32]

    def measure(self, embedding: NDArray[np.float32]) -> float:
        """Return the familiarity, from -1 to 1, of an embedding, float32 `(channels,)` of length 1."""
        similarities = self.references @ embedding
        count = min(NEIGHBOURS, len(similarities))
        return float(np.partition(similarities, -count)[-count:].mean())

    def is_unfamiliar(self, embedding: NDArray[np.float32], index: int) -> bool:
        """Return whether an embedding's familiarity is below the threshold of the class with this index."""
        return self.measure(embedding) < float(self.thresholds[index])

    def to_bytes(self) -> bytes:
        """Return the content of a bundle's file FAMILIARITY, in which the embeddings are rounded to int8.

        The scales are not stored, because the length of each embedding is known to be 1.
        """
        scales = np.maximum(np.abs(self.references).max(axis=1, keepdims=True) / 127, 1e-12)
        return to_npz(
            levels=np.rint(self.references / scales).astype(np.int8),
            thresholds=self.thresholds,
        )


def load_familiarity(path: Path, classes: int, channels: int) -> Familiarity:
    """Load a bundle's file FAMILIARITY; raises BundleError if it is damaged or has other shapes."""
    arrays = load_npz(path, levels=(np.int8, (None, channels)), thresholds=(np.float32, (classes,)))
    references = arrays["levels"].astype(np.float32)
    if not len(references):
        raise BundleError(f"{path} has no embeddings; make the bundle again")
    references /= np.maximum(np.linalg.norm(references, axis=1, keepdims=True), 1e-12)
    return Familiarity(references, arrays["thresholds"])
