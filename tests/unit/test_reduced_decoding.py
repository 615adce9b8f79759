"""JPEGs decoded at a half, a quarter or an eighth of their size, compared with the result of all their pixels."""

import contextlib
import math
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import ExifTags, Image
from skimage import data
from support import CIFAR_BUNDLE, DATA, DEFAULT_BUNDLE, ROCKET, encoded, require

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier, Options, Prediction
from litelens.core.errors import CorruptImage, ImageTooLarge, InputError
from litelens.core.images import DecodedImage, Limits, decode
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.photos import read_photos

# The differences that decode() documents, in levels of 255: the largest of any pixel, the largest mean of a photo, and
# the mean over many photos.
LARGEST, MEAN, MEAN_OF_ALL = 20, 2, 0.5

# The largest difference of waves that are several pixels long. Only a shift changes them by more.
LARGEST_OF_WAVES = 10

SPEC = Preprocessing(24, 24, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PATHS = sorted((DATA / "photos").rglob("*.jpg"))
SMOOTH = ["bilinear", "bicubic", "lanczos"]
SAMPLES = {
    "rocket": Image.open(ROCKET),
    **{name: Image.fromarray(getattr(data, name)()) for name in ("astronaut", "coffee", "cat", "camera", "gravel")},
}
ENCODINGS: dict[str, dict[str, Any]] = {
    "usual": {"quality": 85},
    "low quality": {"quality": 40},
    "colours in full": {"quality": 95, "subsampling": 0},
    "colours halved across": {"quality": 85, "subsampling": 1},
    "progressive": {"quality": 85, "progressive": True},
}


def spec(width: int = 24, height: int = 24, crop: float = 1.0, interpolation: str = "bicubic") -> Preprocessing:
    return replace(SPEC, width=width, height=height, crop=crop, interpolation=interpolation)


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    return encoded(Image.new(mode, (width, height)), "JPEG", **options)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def reduced(file: bytes, spec: Preprocessing = SPEC, **limits: int) -> DecodedImage:
    return decode(file, Limits(**limits), spec)


def difference(file: bytes, spec: Preprocessing) -> NDArray[np.int16]:
    """Return the absolute difference from the input of all pixels, int16 `(height, width, 3)`."""
    all_pixels = decode(file, Limits()).pixels(spec)
    return np.abs(reduced(file, spec).pixels(spec).astype(np.int16) - all_pixels)


def all_pixels_of(file: bytes) -> bytes:
    """Return the JPEG's pixels in a format that cannot be decoded at a reduced size."""
    return encoded(decode(file, Limits()).rgb, "BMP")


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1)


@pytest.mark.parametrize(
    ("size", "crop", "decoded_size"),
    [
        ((119, 119), 1.0, (119, 119)),
        ((120, 120), 1.0, (60, 60)),
        ((239, 400), 1.0, (120, 200)),
        ((400, 240), 1.0, (100, 60)),
        ((479, 480), 1.0, (120, 120)),
        ((480, 600), 1.0, (60, 75)),
        ((600, 480), 0.75, (150, 120)),
        ((4096, 3000), 1.0, (512, 375)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_size_whose_crop_has_enough_pixels_for_the_input(
    size: tuple[int, int], crop: float, decoded_size: tuple[int, int]
) -> None:
    image = reduced(jpeg(*size), spec(crop=crop))
    assert image.rgb.size == decoded_size
    assert (image.width, image.height) == size
    assert image.pixels(spec(crop=crop)).shape == (24, 24, 3)


def test_the_size_of_a_sideways_photo_depends_on_its_upright_crop() -> None:
    upright = spec(width=16, height=64)
    image = reduced(jpeg(400, 200, exif=orientation(6)), upright)
    assert (image.width, image.height) == (200, 400)
    assert image.rgb.size == (100, 200)
    assert reduced(jpeg(400, 200), upright).rgb.size == (400, 200)


def test_without_a_specification_a_jpeg_has_all_its_pixels(classifier: Classifier) -> None:
    assert decode(jpeg(4000, 3000), Limits()).rgb.size == (4000, 3000)
    assert classifier.decode(jpeg(4000, 3000)).rgb.size == (4000, 3000)


@pytest.mark.parametrize(
    ("file", "interpolation"),
    [
        pytest.param(jpeg(600, 600), "nearest", id="nearest selects single pixels"),
        pytest.param(jpeg(600, 600, "CMYK"), "bicubic", id="mixed inks are other colours"),
        *(
            pytest.param(encoded(Image.new("RGB", (600, 600)), image_format), "bicubic", id=image_format)
            for image_format in ("PNG", "WEBP", "GIF", "BMP")
        ),
    ],
)
def test_images_that_a_reduction_would_change_have_all_their_pixels(file: bytes, interpolation: str) -> None:
    assert reduced(file, spec(interpolation=interpolation)).rgb.size == (600, 600)


@pytest.mark.parametrize("side", [1, 7, 32, 100])
def test_small_photos_are_not_reduced(side: int, noise: np.random.Generator) -> None:
    photo = encoded(Image.fromarray(noise.integers(0, 256, (side, side, 3), dtype=np.uint8)), "JPEG")
    assert difference(photo, SPEC).max() == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", SAMPLES)
def test_a_photo_differs_by_no_more_than_the_tolerance(name: str, encoding: str) -> None:
    file = encoded(SAMPLES[name], "JPEG", **ENCODINGS[encoding])
    for interpolation in SMOOTH:
        for asked in (spec(crop=0.875, interpolation=interpolation), spec(48, 48, interpolation=interpolation)):
            assert 0 < difference(file, asked).max() <= LARGEST
            assert difference(file, asked).mean() <= MEAN


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_real_photo_differs_by_no_more_than_the_tolerance(path: Path) -> None:
    # The conversion of colours would enlarge differences between dark pixels.
    file = hostile.without_profile(path.read_bytes())
    for asked in (SPEC, spec(48, 48, interpolation="lanczos"), spec(96, 96, crop=0.875), spec(64, 40, crop=0.5)):
        assert difference(file, asked).max() <= LARGEST
        assert difference(file, asked).mean() <= MEAN


def test_real_photos_differ_by_less_than_a_level_on_average() -> None:
    require(PATHS, f"there are no photos in {DATA}")
    means = [difference(path.read_bytes(), asked).mean() for path in PATHS for asked in (SPEC, spec(crop=0.875))]
    assert np.mean(means) <= MEAN_OF_ALL


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["astronaut", "coffee", "cat"]),
    st.tuples(st.integers(64, 900), st.integers(64, 900)),
    st.tuples(st.integers(16, 100), st.integers(16, 100)),
    st.floats(0.3, 1.0),
    st.sampled_from(SMOOTH),
    st.sampled_from(list(ENCODINGS.values())),
    st.integers(1, 8),
)
def test_a_photo_of_any_size_for_any_input_differs_by_no_more_than_the_tolerance(
    name: str,
    size: tuple[int, int],
    asked_size: tuple[int, int],
    crop: float,
    interpolation: str,
    encoding: dict[str, Any],
    turn: int,
) -> None:
    file = encoded(SAMPLES[name].resize(size), "JPEG", exif=orientation(turn), **encoding)
    found = difference(file, spec(*asked_size, crop, interpolation))
    assert found.max() <= LARGEST
    assert found.mean() <= MEAN


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(st.integers(32, 700), st.integers(32, 700)),
    st.tuples(st.integers(8, 32), st.integers(8, 32)),
    st.sampled_from([0.5, 0.9, 1.0]),
    st.integers(1, 8),
    st.floats(6, 12),
    st.floats(0, math.tau),
    st.floats(0, math.tau),
)
def test_a_reduction_shifts_no_photo_of_any_size_and_orientation(
    size: tuple[int, int],
    asked_size: tuple[int, int],
    crop: float,
    turn: int,
    length: float,
    direction: float,
    phase: float,
) -> None:
    asked = spec(*asked_size, crop)
    upright = size[::-1] if turn > 4 else size
    left, _, right, _ = asked.crop_box(*upright)
    pixels_to_one = (right - left) / asked.width
    assume(pixels_to_one >= 5.1)
    waves = _waves(size, length * pixels_to_one, direction, phase)
    file = encoded(waves, "JPEG", quality=95, exif=orientation(turn))
    assert max(reduced(file, asked).rgb.size) < max(size)
    assert difference(file, asked).max() <= LARGEST_OF_WAVES


def _waves(size: tuple[int, int], length: float, direction: float, phase: float) -> Image.Image:
    """Draw waves of this length (pixels) across the image in a direction (radians)."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    along = (x * math.cos(direction) + y * math.sin(direction)) / length
    return Image.fromarray((128 + 100 * np.sin(math.tau * along + phase)).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_photo_box_touches_the_edges_where_libjpeg_does_not_round(turn: int) -> None:
    image = reduced(jpeg(513, 521, exif=orientation(turn)), SPEC)
    assert sorted(image.rgb.size) == [65, 66]
    left, top, right, bottom = image.photo_box
    assert (right - left, bottom - top) == (image.width / 8, image.height / 8)
    assert (left, right)[turn in (2, 3, 6, 7)] == (0, image.rgb.width)[turn in (2, 3, 6, 7)]
    assert (top, bottom)[turn in (3, 4, 7, 8)] == (0, image.rgb.height)[turn in (3, 4, 7, 8)]


# The bytes per pixel of the reduced image, and the bytes of the coefficients of a progressive one, which stay the same.
@pytest.mark.parametrize(
    ("mode", "options", "bytes_per_pixel", "coefficients"),
    [
        ("RGB", {}, 4, 0),
        ("L", {}, 5, 0),
        ("RGB", {"exif": orientation(6)}, 8, 0),
        ("RGB", {"progressive": True, "subsampling": 0}, 4, 600 * 520 * 6),
        ("RGB", {"progressive": True, "subsampling": 2}, 4, 600 * 520 * 3),
    ],
)
def test_a_reduced_jpeg_that_would_take_too_much_memory_is_refused(
    mode: str, options: dict[str, Any], bytes_per_pixel: int, coefficients: int
) -> None:
    file = jpeg(600, 520, mode, **options)
    needed = 75 * 65 * bytes_per_pixel + coefficients
    assert sorted(reduced(file, memory=needed).rgb.size) == [65, 75]
    with pytest.raises(ImageTooLarge, match="bytes of memory"):
        reduced(file, memory=needed - 1)


def test_a_jpeg_is_halved_if_memory_requires_it_even_if_the_input_needs_all_pixels() -> None:
    file = jpeg(64, 48)
    assert reduced(file, memory=64 * 48 * 4).rgb.size == (64, 48)
    halved = reduced(file, memory=64 * 48 * 4 - 1)
    assert halved.rgb.size == (32, 24)
    assert halved.pixels(SPEC).shape == (24, 24, 3)


def test_a_jpeg_of_one_row_is_refused_because_it_cannot_be_halved() -> None:
    assert reduced(jpeg(64, 1), memory=64 * 4).rgb.size == (64, 1)
    with pytest.raises(ImageTooLarge, match="bytes of memory"):
        reduced(jpeg(64, 1), memory=64 * 4 - 1)


# In floating point, 224 times a 224th of these numbers is greater than the numbers.
@pytest.mark.parametrize("side", [29, 58, 116, 928])
def test_rounding_errors_at_the_edge_of_a_photo_do_no_harm(side: int) -> None:
    asked = spec(224, 224)
    assert reduced(jpeg(side, side), asked).pixels(asked).shape == (224, 224, 3)
    assert reduced(jpeg(side, side + 1), asked).pixels(asked).shape == (224, 224, 3)
    assert reduced(jpeg(side + 1, side), asked).pixels(asked).shape == (224, 224, 3)


def test_the_limit_of_pixels_applies_to_the_full_size() -> None:
    assert reduced(jpeg(600, 500), pixels=300_000)
    with pytest.raises(ImageTooLarge, match="more than 299,999 pixels"):
        reduced(jpeg(600, 500), pixels=299_999)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_truncated_jpeg_is_corrupt_at_any_size(kept: float, progressive: bool, noise: np.random.Generator) -> None:
    image = Image.fromarray(noise.integers(0, 256, (600, 600, 3), dtype=np.uint8))
    file = encoded(image, "JPEG", progressive=progressive)
    with pytest.raises(CorruptImage):
        reduced(file[: int(len(file) * kept)])


SMALL = hostile.small("JPEG")


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=8)), max_size=6))
def test_a_damaged_jpeg_is_decoded_or_refused(patches: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(SMALL)
    for position, patch in patches:
        position %= len(damaged)
        damaged[position : position + len(patch)] = patch
    tiny = spec(2, 2)
    with contextlib.suppress(InputError):
        assert reduced(bytes(damaged), tiny, pixels=1_000_000).pixels(tiny).shape == (2, 2, 3)


def test_training_and_serving_read_the_same_pixels_of_a_photo(classifier: Classifier, tmp_path: Path) -> None:
    file = encoded(SAMPLES["coffee"].resize((2403, 1601)), "JPEG", exif=orientation(6))
    (tmp_path / "coffee.jpg").write_bytes(file)
    photos, _ = read_photos(tmp_path, classifier.bundle.preprocessing)
    served = decode(file, Limits(), classifier.bundle.preprocessing)
    assert served.rgb.size == (801, 1202)
    assert np.array_equal(photos.pixels([0])[0], served.pixels(classifier.bundle.preprocessing))
    logits = classifier.logits(photos.pixels([0])[0])
    assert classifier.classify(file).candidates[0].index == logits.argmax()


def test_a_prediction_has_the_size_and_the_box_in_the_full_photo(classifier: Classifier) -> None:
    file = encoded(SAMPLES["coffee"].resize((2403, 1601)), "JPEG", exif=orientation(6))
    prediction = classifier.classify(file, Options(heat_map=True))
    assert (prediction.width, prediction.height) == (1601, 2403)
    assert prediction.heat_map is not None
    assert prediction.heat_map.box == pytest.approx((88.055, 489.055, 1512.945, 1913.945))


def test_real_photos_are_classified_as_by_all_their_pixels(classifier: Classifier) -> None:
    require(PATHS, f"there are no photos in {DATA}")
    files = [path.read_bytes() for path in PATHS]
    by_some = [classifier.classify(file) for file in files]
    by_all = [classifier.classify(all_pixels_of(file)) for file in files]
    assert _same_best(by_some, by_all).mean() >= 0.85
    assert np.abs(_confidences(by_some) - _confidences(by_all)).mean() <= 0.05
    is_certain = np.array(
        [not some.uncertain and not every.uncertain for some, every in zip(by_some, by_all, strict=True)]
    )
    assert is_certain.any()
    assert _same_best(by_some, by_all)[is_certain].all()


def test_large_jpegs_of_test_images_are_classified_as_well_as_by_all_their_pixels(
    cifar100: Path,
) -> None:
    classifier = Classifier(load_bundle(CIFAR_BUNDLE), Limits(), threads=1)
    with np.load(cifar100) as arrays:
        images, classes = arrays["x_test"][:300], arrays["y_test"][:300].reshape(-1)
    files = [encoded(Image.fromarray(image).resize((512, 512)), "JPEG", quality=90) for image in images]
    by_some = [classifier.classify(file) for file in files]
    by_all = [classifier.classify(all_pixels_of(file)) for file in files]
    assert _same_best(by_some, by_all).mean() >= 0.93
    right_by_some, right_by_all = (_best(answers) == classes for answers in (by_some, by_all))
    only_by_some, only_by_all = (right_by_some & ~right_by_all).sum(), (right_by_all & ~right_by_some).sum()
    # McNemar's test: both numbers should be equal. The limit is three standard deviations, each the root of their sum.
    assert abs(only_by_some - only_by_all) <= 3 * math.sqrt(only_by_some + only_by_all)
    assert right_by_all.mean() > 0.5


def _best(answers: list[Prediction]) -> NDArray[np.int64]:
    return np.array([answer.candidates[0].index for answer in answers])


def _confidences(answers: list[Prediction]) -> NDArray[np.float64]:
    return np.array([answer.candidates[0].confidence for answer in answers])


def _same_best(some: list[Prediction], others: list[Prediction]) -> NDArray[np.bool_]:
    return _best(some) == _best(others)
