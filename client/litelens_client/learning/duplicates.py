"""Duplicates among photos: equal pixels, and embeddings or thumbnails that are nearly equal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from litelens_client.learning.metrics import Classes

# The least cosine similarity of near duplicates. In 4,000 photos of cats and dogs, copies saved again as JPEG had 0.996
# or more; two pairs of photos had 0.97, all others at most 0.90.
NEAR_DUPLICATE = 0.93

# The same for thumbnails. Of 2,500 photos of cats and dogs, two different ones had at most 0.89. The first 500 of them,
# saved again as JPEG with 80, 120, 240 or at most 640 pixels a side, had at least 0.9947 with their originals.
NEAR_THUMBNAIL = 0.98

# The side of a thumbnail in pixels. With 12 and 16, copies were less similar.
THUMBNAIL_SIDE = 8

# In grey levels. Plain images, with a lower standard deviation, are all alike: only equal ones are duplicates.
_MIN_CONTRAST = 2.0

# The limit of near duplicates is computed from at most this many photos, because all pairs of them are compared.
_SAMPLED = 4000

# Photos of one kind, such as drawings or products, are more similar than that without being duplicates. So duplicates
# must also be four times closer than photos and their fifth nearest neighbours typically are. Not the nearest: in a
# folder that has a thumbnail of each photo, that is the thumbnail.
_CLOSER = 4
_NEIGHBOUR = 5

_ROWS = 512


def near_duplicate_limit(
    embeddings: NDArray[np.float32], digests: Sequence[bytes], least: float = NEAR_DUPLICATE
) -> float:
    """Return the cosine similarity from which two of these photos, or others of their kind, count as near duplicates.

    `embeddings` are float32 `(n, channels)` of length 1. Photos with equal digests count once. The result is at least
    `least`.
    """
    _, firsts = np.unique(np.array(digests, dtype=object), return_index=True)
    distinct = embeddings[firsts]
    if len(distinct) < 2:
        return least
    neighbour = min(_NEIGHBOUR, len(distinct) - 1)
    typical = []
    for start in range(0, len(distinct), _ROWS):
        similarities = distinct[start : start + _ROWS] @ distinct.T
        rows = np.arange(len(similarities))
        similarities[rows, start + rows] = -1
        typical.append(np.partition(similarities, -neighbour, axis=1)[:, -neighbour])
    distance = 1 - float(np.median(np.concatenate(typical)))
    return max(least, 1 - distance / _CLOSER)


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale an image, uint8 `(height, width, 3)`, down to the thumbnail that find_copies() compares, uint8."""
    return np.asarray(Image.fromarray(pixels).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))


def near_thumbnail_limit(thumbnails: NDArray[np.uint8], digests: Sequence[bytes]) -> float:
    """Return the limit of find_near() and group_near() for photos of this kind."""
    step = max(1, -(-len(thumbnails) // _SAMPLED))
    return near_duplicate_limit(_normalize(thumbnails[::step]), digests[::step], NEAR_THUMBNAIL)


def find_near(
    thumbnails: NDArray[np.uint8], others: NDArray[np.uint8], limit: float = NEAR_THUMBNAIL
) -> NDArray[np.bool_]:
    """Find the photos that are nearly equal to one of the others, such as one saved again at another size.

    Thumbnails are those of thumbnail(), `(n, side, side, 3)`. `limit` is a cosine similarity. Returns bool `(n,)`.
    """
    found = np.zeros(len(thumbnails), bool)
    if not len(others):
        return found
    compared = _normalize(others).T
    for start in range(0, len(thumbnails), _ROWS):
        similarities = _normalize(thumbnails[start : start + _ROWS]) @ compared
        found[start : start + _ROWS] = similarities.max(axis=1) >= limit
    return found


def group_near(thumbnails: NDArray[np.uint8], indices: Classes, limit: float = NEAR_THUMBNAIL) -> Classes:
    """Return the group of each photo as group_duplicates() does: of these photos, and of all that are nearly equal to
    one in their group. Other photos have a group of their own.
    """
    normalized = _normalize(thumbnails)
    groups = np.arange(len(thumbnails), dtype=np.int64)
    known = np.zeros(len(thumbnails), bool)
    new = np.unique(indices)
    # A copy that is found can have further copies.
    while len(new):
        known[new] = True
        found = np.zeros(len(thumbnails), bool)
        for start in range(0, len(new), _ROWS):
            compared = new[start : start + _ROWS]
            rows, columns = np.nonzero(normalized[compared] @ normalized.T >= limit)
            found[columns] = True
            groups = _merge(groups, compared[rows], columns)
        new = np.flatnonzero(found & ~known)
    return groups


def _normalize(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the contrast of each thumbnail, float32 of length 1, by channel, so that brightness does not matter.

    That of a plain image is 0.
    """
    contrast = thumbnails.astype(np.float32)
    contrast -= contrast.mean(axis=(1, 2), keepdims=True)
    rows = contrast.reshape(len(thumbnails), 3 * THUMBNAIL_SIDE**2)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    plain = length < _MIN_CONTRAST * rows.shape[1] ** 0.5
    return np.where(plain, np.float32(0), rows / np.where(plain, np.float32(1), length))


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
    """Return the group of each of `count` photos, int64: the index of the first photo in it."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return _merge(np.arange(count, dtype=np.int64), first, second)


def _merge(groups: Classes, first: Classes, second: Classes) -> Classes:
    """Return the groups of photos after the groups of each first and second photo, int64 `(pairs,)`, became one."""
    while True:
        groups_of_first, groups_of_second = groups[first], groups[second]
        differ = groups_of_first != groups_of_second
        if not differ.any():
            return groups
        first, second = first[differ], second[differ]
        lower = np.minimum(groups_of_first[differ], groups_of_second[differ])
        higher = np.maximum(groups_of_first[differ], groups_of_second[differ])
        groups = groups.copy()
        np.minimum.at(groups, higher, lower)
        # A group's number is a photo in it, whose own group may be lower now.
        while not np.array_equal(lowest := groups[groups], groups):
            groups = lowest
