import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image

from litelens.core.preprocessing import Preprocessing

SPEC = Preprocessing(32, 32, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def test_an_image_of_the_size_of_the_input_is_not_resized(noise: np.random.Generator) -> None:
    pixels = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(SPEC.pixels(Image.fromarray(pixels)), pixels)


def test_the_centre_is_kept_and_the_sides_are_cut() -> None:
    image = Image.new("RGB", (96, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    assert (SPEC.pixels(image) == (0, 0, 255)).all()
    assert (SPEC.pixels(image.rotate(90, expand=True)) == (0, 0, 255)).all()


def test_crop_keeps_that_fraction_of_each_side() -> None:
    image = Image.new("RGB", (64, 64), "red")
    image.paste("blue", (16, 16, 48, 48))
    half = replace(SPEC, crop=0.5)
    assert (half.pixels(image) == (0, 0, 255)).all()
    assert (SPEC.pixels(image)[0, 0] == (255, 0, 0)).all()


def test_a_photo_fills_an_input_that_is_not_square_without_distortion() -> None:
    wide = replace(SPEC, height=16, width=48)
    image = Image.new("RGB", (300, 300), "red")
    image.paste("blue", (0, 100, 300, 200))
    assert (wide.pixels(image)[2:-2] == (0, 0, 255)).all()


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_photo_is_resized_from_its_exact_centre(interpolation: str, noise: np.random.Generator) -> None:
    photo = Image.fromarray(noise.integers(0, 256, (75, 101, 3), dtype=np.uint8))
    spec = replace(SPEC, crop=0.9, interpolation=interpolation)
    side = 0.9 * 75
    box = ((101 - side) / 2, (75 - side) / 2, (101 + side) / 2, (75 + side) / 2)
    expected = photo.resize((32, 32), Image.Resampling[interpolation.upper()], box)
    assert np.array_equal(spec.pixels(photo), np.asarray(expected))


def test_values_are_normalized_per_channel() -> None:
    spec = replace(SPEC, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    table = spec.normalization_table()
    assert table.dtype == np.float32
    assert table[0].tolist() == [0.0, -1.0, -4.0]
    assert table[255].tolist() == [1.0, 1.0, 0.0]


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    st.floats(0.01, 1.0),
    st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
def test_an_image_of_any_size_is_resized_to_the_input(
    size: tuple[int, int], shape: tuple[int, int], crop: float, interpolation: str
) -> None:
    spec = replace(SPEC, height=shape[0], width=shape[1], crop=crop, interpolation=interpolation)
    pixels = spec.pixels(Image.new("RGB", size, (10, 20, 30)))
    assert pixels.shape == (*shape, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (10, 20, 30)).all()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_extreme_aspect_ratios_are_resized_too(size: tuple[int, int]) -> None:
    assert SPEC.pixels(Image.new("RGB", size)).shape == (32, 32, 3)


@pytest.mark.parametrize("side", range(1, 300))
def test_the_crop_never_reaches_beyond_the_photo(side: int) -> None:
    left, top, right, bottom = replace(SPEC, height=224, width=224, crop=1.0).crop_box(side, side)
    assert min(left, top) >= 0
    assert max(right, bottom) <= side
    assert right - left == pytest.approx(side)
