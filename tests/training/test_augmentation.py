"""Crops and mirror images of training images, for images and augmentations of every size."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from training.augmentation import Views, apply_views, draw_views
from training.preset import Augmentation

SEEDS = st.integers(0, 2**32 - 1)
AUGMENTATIONS = st.builds(Augmentation, flip=st.booleans(), crop_padding=st.integers(0, 4))
IMAGES = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.just(3)),
    elements=st.integers(1, 255),
)


def crops(image: NDArray[np.uint8], padding: int) -> list[NDArray[np.uint8]]:
    """Every crop of the image's size out of the image with a black margin, computed one pixel at a time."""
    height, width, _ = image.shape

    def pixel(row: int, column: int) -> NDArray[np.uint8]:
        inside = 0 <= row < height and 0 <= column < width
        return image[row, column] if inside else np.zeros(3, np.uint8)

    moves = range(-padding, padding + 1)
    return [
        np.array([[pixel(row + down, column + across) for column in range(width)] for row in range(height)])
        for down in moves
        for across in moves
    ]


@settings(deadline=None)
@given(IMAGES, SEEDS)
def test_without_padding_and_flip_a_view_is_the_image(images: NDArray[np.uint8], seed: int) -> None:
    views = draw_views(len(images), Augmentation(), seed)
    assert np.array_equal(apply_views(images, views, padding=0), images)


@settings(max_examples=50, deadline=None)
@given(IMAGES, st.integers(0, 2), st.booleans(), SEEDS)
def test_a_view_is_a_crop_of_the_image_with_a_black_margin_and_may_be_mirrored(
    images: NDArray[np.uint8], padding: int, flip: bool, seed: int
) -> None:
    views = draw_views(len(images), Augmentation(flip=flip, crop_padding=padding), seed)
    for image, view in zip(images, apply_views(images, views, padding), strict=True):
        possible = crops(image, padding)
        possible += [crop[:, ::-1] for crop in possible] if flip else []
        assert any(np.array_equal(view, crop) for crop in possible)


@settings(deadline=None)
@given(st.integers(0, 50), AUGMENTATIONS, SEEDS)
def test_the_same_seed_draws_the_same_views(images: int, augmentation: Augmentation, seed: int) -> None:
    first, again = (draw_views(images, augmentation, seed) for _ in range(2))
    assert np.array_equal(first.offsets, again.offsets)
    assert np.array_equal(first.mirrored, again.mirrored)


def test_another_seed_draws_other_views() -> None:
    first, other = (draw_views(50, Augmentation(flip=True, crop_padding=4), seed) for seed in (1, 2))
    assert not np.array_equal(first.offsets, other.offsets)
    assert not np.array_equal(first.mirrored, other.mirrored)


@settings(deadline=None)
@given(IMAGES, AUGMENTATIONS, SEEDS)
def test_an_image_has_the_same_view_alone_as_among_others(
    images: NDArray[np.uint8], augmentation: Augmentation, seed: int
) -> None:
    views, padding = draw_views(len(images), augmentation, seed), augmentation.crop_padding
    together = apply_views(images, views, padding)
    for index in range(len(images)):
        alone = apply_views(images[[index]], views.take(np.array([index])), padding)
        assert np.array_equal(alone[0], together[index])


def test_all_crops_and_both_orientations_are_equally_likely() -> None:
    views = draw_views(20_000, Augmentation(flip=True, crop_padding=1), seed=1)
    kinds = views.offsets[:, 0] * 6 + views.offsets[:, 1] * 2 + views.mirrored
    counts = np.bincount(kinds, minlength=18)
    assert len(counts) == 18
    assert counts.min() > 0.85 * 20_000 / 18
    assert counts.max() < 1.15 * 20_000 / 18


def test_applying_a_view_does_not_change_the_image() -> None:
    images = np.ones((1, 2, 2, 3), np.uint8)
    apply_views(images, Views(np.array([[0, 0]]), np.array([True])), padding=1)
    assert (images == 1).all()
