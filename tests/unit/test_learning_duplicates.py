"""Duplicates among photos, and the groups that they are in."""

import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support import CAT, ROCKET, SAMPLES

from litelens_client.learning.duplicates import (
    NEAR_DUPLICATE,
    NEAR_THUMBNAIL,
    find_duplicates,
    find_near,
    group_duplicates,
    group_near,
    near_duplicate_limit,
    near_thumbnail_limit,
    thumbnail,
)

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


def test_a_group_is_the_first_photo_in_it() -> None:
    assert group_duplicates(6, [(4, 5), (1, 4), (2, 3)]).tolist() == [0, 1, 2, 2, 1, 1]


def test_many_photos_in_one_group_take_little_time() -> None:
    count = 20_000
    pairs = [(0, index) for index in range(1, count)] + [(index, index + 1) for index in range(count - 1)]
    started = time.process_time()
    groups = group_duplicates(count, pairs)
    assert not groups.any()
    # With a pass over all photos for each pair, it took 50 times as long.
    assert time.process_time() - started < 1


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


SIDE = 260
PHOTOS = [CAT, ROCKET, SAMPLES / "coffee.jpg"]


def pixels(path: Path, side: int | None = None, quality: int = 75) -> np.ndarray:
    """Return a photo at the network's input size; with a side, after it was saved again as JPEG of that size."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    if side:
        file = BytesIO()
        photo.thumbnail((side, side))
        photo.save(file, "JPEG", quality=quality)
        photo = Image.open(file)
    return np.asarray(photo.resize((SIDE, SIDE)))


def thumbnails(*images: np.ndarray) -> np.ndarray:
    return np.stack([thumbnail(image) for image in images])


ORIGINALS = thumbnails(*map(pixels, PHOTOS))


@pytest.mark.parametrize("side", [80, 120, 240, 400])
def test_a_photo_saved_again_at_another_size_is_a_near_copy_of_itself_only(side: int) -> None:
    for index, path in enumerate(PHOTOS):
        copy = thumbnails(pixels(path, side))
        assert find_near(copy, ORIGINALS).all()
        assert not find_near(copy, np.delete(ORIGINALS, index, axis=0)).any()


def test_brightness_does_not_hide_a_near_copy() -> None:
    assert find_near(thumbnails((pixels(CAT) * 0.7 + 40).astype(np.uint8)), ORIGINALS).all()


def test_plain_images_are_no_near_copies_of_each_other() -> None:
    plain = thumbnails(*(np.full((SIDE, SIDE, 3), (level, 200, 10), np.uint8) for level in range(5)))
    assert not find_near(plain, plain).any()


def test_the_same_shape_in_another_colour_is_no_near_copy() -> None:
    shape = np.full((SIDE, SIDE, 3), 255, np.uint8)
    red, blue = shape.copy(), shape.copy()
    red[60:200, 60:200], blue[60:200, 60:200] = (200, 0, 0), (0, 0, 200)
    assert not find_near(thumbnails(red), thumbnails(blue)).any()


def test_no_photos_have_no_near_copies() -> None:
    nothing = np.zeros((0, 8, 8, 3), np.uint8)
    assert find_near(nothing, ORIGINALS).shape == (0,)
    assert find_near(ORIGINALS, nothing).tolist() == [False] * 3
    assert near_thumbnail_limit(nothing, []) == NEAR_THUMBNAIL


def test_near_copies_are_found_among_many_photos(noise: np.random.Generator) -> None:
    many = noise.integers(0, 256, (1300, 8, 8, 3), dtype=np.uint8)
    copies = np.clip(many[[7, 1200]].astype(int) + noise.integers(-3, 4, (2, 8, 8, 3)), 0, 255).astype(np.uint8)
    others = noise.integers(0, 256, (1100, 8, 8, 3), dtype=np.uint8)
    found = find_near(np.concatenate([others, copies]), many, near_thumbnail_limit(many, distinct(1300)))
    assert np.flatnonzero(found).tolist() == [1100, 1101]


def test_photos_of_one_kind_must_be_closer_to_be_near_copies(noise: np.random.Generator) -> None:
    base = noise.integers(0, 256, (8, 8, 3))
    alike = np.clip(base + noise.integers(-12, 13, (40, 8, 8, 3)), 0, 255).astype(np.uint8)
    limit = near_thumbnail_limit(alike, distinct(40))
    assert limit > NEAR_THUMBNAIL
    for index in range(40):
        assert not find_near(alike[[index]], np.delete(alike, index, axis=0), limit).any()


def test_thumbnails_of_all_photos_do_not_hide_that_they_are_copies(noise: np.random.Generator) -> None:
    photos = noise.normal(0, 1, (40, 64)).astype(np.float32)
    copies = np.concatenate([photos, photos + noise.normal(0, 0.02, (40, 64)).astype(np.float32)])
    embeddings = copies / np.linalg.norm(copies, axis=1, keepdims=True)
    _, near = find_duplicates(embeddings, distinct(80), near_duplicate_limit(embeddings, distinct(80)))
    assert near == [(number, number + 40) for number in range(40)]


def test_copies_of_copies_are_in_one_group_if_it_has_one_of_the_photos(noise: np.random.Generator) -> None:
    many = noise.integers(0, 256, (1300, 8, 8, 3), dtype=np.uint8)
    # Each is a copy of the one before, and the last is none of the first.
    many[[1200, 900, 700]] = [many[3] // 16 * 16 + level for level in (0, 0, 1)]
    many[[50, 60]] = many[[40, 40]]
    groups = group_near(many, np.array([900, 8]))
    assert np.flatnonzero(groups == groups[900]).tolist() == [3, 700, 900, 1200]
    assert groups[900] == 3
    assert len(np.unique(groups)) == 1300 - 3


def test_a_chain_of_copies_is_one_group() -> None:
    angles = np.linspace(0, 2, 60)
    first, second = np.indices((8, 8))[..., np.newaxis] * np.ones(3) - 3.5
    chain = np.stack([128 + 20 * (np.cos(angle) * first + np.sin(angle) * second) for angle in angles])
    pictures = chain.astype(np.uint8)
    assert find_near(pictures[1:], pictures[:-1]).all()
    assert not find_near(pictures[:1], pictures[-1:]).any()
    assert not group_near(pictures, np.array([59])).any()
