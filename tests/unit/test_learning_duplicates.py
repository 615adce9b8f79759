"""Duplicates among photos, and the groups that they are in."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from litelens_client.learning.duplicates import NEAR_DUPLICATE, find_duplicates, group_duplicates, near_duplicate_limit

COUNT = 12
PAIRS = st.lists(
    st.lists(st.integers(0, COUNT - 1), min_size=2, max_size=2, unique=True).map(lambda pair: (min(pair), max(pair)))
)


def embeddings(*angles: float) -> np.ndarray:
    """Embeddings of length 1, given as angles."""
    return np.stack([(np.cos(angle), np.sin(angle)) for angle in angles]).astype(np.float32)


def distinct(count: int) -> list[bytes]:
    return [bytes([index // 256, index % 256]) for index in range(count)]


# The angle between embeddings that are just similar enough.
LIMIT = float(np.arccos(NEAR_DUPLICATE))


def test_photos_with_equal_pixels_are_exact_duplicates_and_not_near_ones() -> None:
    exact, near = find_duplicates(embeddings(0, 2, 0, 0), [b"a", b"b", b"a", b"a"])
    assert exact == [(0, 2), (0, 3)]
    assert near == []


def test_photos_with_similar_embeddings_are_near_duplicates() -> None:
    exact, near = find_duplicates(embeddings(0, 2, LIMIT * 0.9, 2 + LIMIT * 1.1), distinct(4))
    assert exact == []
    assert near == [(0, 2)]


def test_a_photo_is_paired_with_the_most_similar_one_before_it() -> None:
    _, near = find_duplicates(embeddings(0, LIMIT * 0.9, LIMIT * 1.2), distinct(3))
    assert near == [(0, 1), (1, 2)]


def test_no_photos_have_no_duplicates() -> None:
    assert find_duplicates(np.zeros((0, 4), np.float32), []) == ([], [])
    assert group_duplicates(0, []).tolist() == []


def test_duplicates_are_found_among_many_photos(noise: np.random.Generator) -> None:
    many = noise.normal(size=(1200, 64)).astype(np.float32)
    many[1100] = many[3] + noise.normal(0, 0.01, 64)
    many[700] = many[600]
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    _, near = find_duplicates(many, distinct(1200))
    assert near == [(600, 700), (3, 1100)]


def test_duplicates_of_duplicates_are_in_one_group() -> None:
    groups = group_duplicates(5, [(0, 2), (3, 4), (2, 3)])
    assert groups[0] == groups[2] == groups[3] == groups[4] != groups[1]


@given(PAIRS)
def test_photos_have_the_same_group_exactly_if_pairs_connect_them(pairs: list[tuple[int, int]]) -> None:
    groups = group_duplicates(COUNT, pairs)
    assert groups.shape == (COUNT,)
    connected = np.eye(COUNT, dtype=bool)
    for first, second in pairs:
        connected[first, second] = connected[second, first] = True
    for _ in range(COUNT):
        connected = (connected.astype(int) @ connected.astype(int)) > 0
    assert np.array_equal(groups[:, np.newaxis] == groups, connected)


def test_photos_that_are_all_alike_are_no_duplicates_of_each_other(noise: np.random.Generator) -> None:
    alike = np.eye(64)[0] + noise.normal(0, 0.02, (50, 64))
    alike = (alike / np.linalg.norm(alike, axis=1, keepdims=True)).astype(np.float32)
    copy = alike[7] + np.float32(0.0005)
    embeddings = np.concatenate([alike, [copy / np.linalg.norm(copy)]])
    digests = [bytes([number]) for number in range(51)]
    assert (embeddings @ embeddings.T).min() > NEAR_DUPLICATE
    limit = near_duplicate_limit(embeddings, digests)
    assert find_duplicates(embeddings, digests, limit) == ([], [(7, 50)])


def test_the_limit_does_not_depend_on_equal_photos_and_needs_two_different_ones(noise: np.random.Generator) -> None:
    embeddings = noise.normal(0, 1, (10, 64)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    digests = [bytes([number]) for number in range(10)]
    limit = near_duplicate_limit(embeddings, digests)
    assert near_duplicate_limit(embeddings.repeat(3, axis=0), [digest for digest in digests for _ in range(3)]) == limit
    assert near_duplicate_limit(embeddings[:1].repeat(3, axis=0), digests[:1] * 3) == NEAR_DUPLICATE
