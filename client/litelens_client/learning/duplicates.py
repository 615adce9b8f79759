"""Duplicates among photos: equal pixels, and embeddings that are nearly equal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from litelens_client.learning.metrics import Classes

# The least cosine similarity of near duplicates. In 4,000 photos of cats and dogs, copies saved again as JPEG had 0.996
# or more; two pairs of photos had 0.97, all others at most 0.90.
NEAR_DUPLICATE = 0.93

# Photos of one kind, such as drawings or products, are more similar than that without being duplicates. So duplicates
# must also be four times closer than photos and their nearest neighbours typically are.
_CLOSER = 4

_ROWS = 512


def near_duplicate_limit(embeddings: NDArray[np.float32], digests: Sequence[bytes]) -> float:
    """Return the cosine similarity from which two of these photos, or others of their kind, count as near duplicates.

    `embeddings` are float32 `(n, channels)` of length 1. Photos with equal digests count once.
    """
    _, firsts = np.unique(np.array(digests, dtype=object), return_index=True)
    distinct = embeddings[firsts]
    if len(distinct) < 2:
        return NEAR_DUPLICATE
    nearest = []
    for start in range(0, len(distinct), _ROWS):
        similarities = distinct[start : start + _ROWS] @ distinct.T
        rows = np.arange(len(similarities))
        similarities[rows, start + rows] = -1
        nearest.append(similarities.max(axis=1))
    distance = 1 - float(np.median(np.concatenate(nearest)))
    return max(NEAR_DUPLICATE, 1 - distance / _CLOSER)


def find_duplicates(
    embeddings: NDArray[np.float32], digests: Sequence[bytes], limit: float = NEAR_DUPLICATE
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Find pairs of equal photos and pairs of near duplicates, each as indices, the lower one first.

    `embeddings` are float32 `(n, channels)` of length 1. A photo is paired with the first photo that it equals,
    or else with the most similar photo before it, if their cosine similarity is at least the limit.
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
            if row[most] >= limit:
                near.append((most, index))
    return exact, near


def group_duplicates(count: int, pairs: Sequence[tuple[int, int]]) -> Classes:
    """Return the group of each of `count` photos, int64: a number that duplicates of a photo share."""
    groups = np.arange(count, dtype=np.int64)
    for first, second in pairs:
        groups[groups == groups[second]] = groups[first]
    return groups
