"""Duplicates among photos: equal pixels, and embeddings that are nearly equal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from litelens_client.learning.metrics import Classes

# Two photos with at least this cosine similarity are near duplicates. In 4,000 photos of cats and dogs, copies saved
# again as JPEG had 0.996 or more; two pairs of photos had 0.97, all others at most 0.90. Photos of one kind are
# more similar: of 75 drawings of circles, squares and triangles, two pairs of different ones had 0.98.
NEAR_DUPLICATE = 0.98

_ROWS = 512


def find_duplicates(
    embeddings: NDArray[np.float32], digests: Sequence[bytes]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Find pairs of equal photos and pairs of near duplicates, each as indices, the lower one first.

    `embeddings` are float32 `(n, channels)` of length 1. A photo is paired with the first photo that it equals,
    or else with the most similar photo before it.
    """
    first: dict[bytes, int] = {}
    exact, near = [], []
    for index, digest in enumerate(digests):
        if digest in first:
            exact.append((first[digest], index))
        first.setdefault(digest, index)
    copies = {index for _, index in exact}
    for start in range(0, len(embeddings), _ROWS):
        similarities = embeddings[start : start + _ROWS] @ embeddings.T
        for offset, row in enumerate(similarities):
            index = start + offset
            if index in copies or not index:
                continue
            most = int(row[:index].argmax())
            if row[most] >= NEAR_DUPLICATE:
                near.append((most, index))
    return exact, near


def group_duplicates(count: int, pairs: Sequence[tuple[int, int]]) -> Classes:
    """Return the group of each of `count` photos, int64: a number that duplicates of a photo share."""
    groups = np.arange(count, dtype=np.int64)
    for first, second in pairs:
        groups[groups == groups[second]] = groups[first]
    return groups
