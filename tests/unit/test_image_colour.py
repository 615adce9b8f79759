"""Colours are converted to sRGB by the profile of an image, or by the primaries that a PNG declares."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import hostile
import numpy as np
import profiles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage import data
from support import DEFAULT_BUNDLE, ROOT, encoded

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.colour import MAX_PROFILE_BYTES
from litelens.core.images import DecodedImage, Limits, decode
from litelens.core.preprocessing import Preprocessing

SPEC = Preprocessing(24, 24, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
WIDE = ["Display P3", "Adobe RGB", "ProPhoto"]
PHOTO = data.astronaut()
SMALL = np.asarray(Image.fromarray(PHOTO).resize((96, 64)))

# The differences, in levels of 255, that the conversion of the input's pixels makes compared with that of all pixels:
# the largest of any pixel, and the largest mean of a photo.
LARGEST, MEAN = 60, 3


def decoded(file: bytes, spec: Preprocessing | None = None) -> DecodedImage:
    return decode(file, Limits(), spec)


def pixels(file: bytes) -> NDArray[np.uint8]:
    return np.asarray(decoded(file).rgb)


def png(image: NDArray[np.uint8], *chunks: bytes) -> bytes:
    """Return a PNG with chunks before its pixels."""
    file = encoded(Image.fromarray(image), "PNG")
    return file[:33] + b"".join(chunks) + file[33:]


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int16]:
    return np.abs(one.astype(np.int16) - other)


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_colours_of_other_spaces_become_srgb(image_format: str, space: str) -> None:
    wide = Image.fromarray(profiles.convert(SMALL, "sRGB", space))
    options = {"lossless": True} if image_format == "WEBP" else {}
    found = pixels(encoded(wide, image_format, icc_profile=profiles.rgb_profile(space), **options))
    expected = profiles.convert(np.asarray(wide), space, "sRGB")
    assert difference(found, expected).max() <= 2
    assert difference(found, SMALL).max() <= 6
    assert difference(np.asarray(wide), SMALL).max() > 10


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_photo_in_another_space_has_its_colours(space: str, options: dict[str, object]) -> None:
    wide = Image.fromarray(profiles.convert(SMALL, "sRGB", space))
    with_profile = {"icc_profile": profiles.rgb_profile(space), **options}
    file = encoded(wide, "JPEG", quality=97, subsampling=0, **with_profile)
    assert difference(pixels(file), SMALL).mean() < 2.5 < difference(np.asarray(wide), SMALL).mean()


@pytest.mark.parametrize("exponent", [1.4, 1.8, 2.4])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_levels_of_another_curve_become_srgb(mode: str, exponent: float) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, -1)
    light = profiles.light_of(ramp[0] / 255, exponent)
    expected = np.rint(profiles.levels_of(light, 0) * 255)
    image = Image.fromarray(ramp.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(ramp).convert(mode)
    found = pixels(encoded(image, "PNG", icc_profile=profiles.grey_profile(exponent)))
    assert np.abs(found[0, :, 0] - expected).max() <= 2
    assert (found == found[:, :, :1]).all()


def test_inks_become_the_colours_of_their_profile() -> None:
    inks = np.random.default_rng(2).integers(0, 256, (8, 8, 4), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
    cover = inks / 255
    light = (1 - cover[:, :, :3]) * (1 - cover[:, :, 3:])
    expected = np.rint(profiles.levels_of(light, 0) * 255)
    image = Image.fromarray(inks, "CMYK")
    file = encoded(image, "JPEG", quality=100, icc_profile=profiles.ink_profile(17))
    assert np.abs(pixels(file) - expected)[4::16, 4::16].max() <= 20
    assert difference(np.asarray(image.convert("RGB")), expected)[4::16, 4::16].max() > 40


def test_a_large_photo_of_inks_is_reduced_before_it_is_converted() -> None:
    image = Image.fromarray(PHOTO).convert("CMYK").resize((1200, 900))
    file = encoded(image, "JPEG", quality=95, icc_profile=profiles.ink_profile())
    reduced = decoded(file, SPEC)
    assert max(reduced.rgb.size) < 1200
    found = difference(reduced.pixels(SPEC), decoded(file).pixels(SPEC))
    assert found.mean() <= MEAN
    assert found.max() <= LARGEST


@pytest.mark.parametrize("space", WIDE)
@pytest.mark.parametrize("name", ["astronaut", "coffee", "cat"])
def test_converting_the_input_differs_little_from_converting_all_pixels(name: str, space: str) -> None:
    wide = Image.fromarray(profiles.convert(getattr(data, name)(), "sRGB", space))
    file = encoded(wide, "PNG", icc_profile=profiles.rgb_profile(space))
    found = difference(decoded(file, SPEC).pixels(SPEC), decoded(file).pixels(SPEC))
    assert found.max() <= LARGEST
    assert found.mean() <= MEAN


def test_a_photo_in_another_space_is_classified_like_the_original() -> None:
    classifier = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1)
    for name in ("astronaut", "coffee", "cat"):
        original = getattr(data, name)()
        expected = classifier.classify(encoded(Image.fromarray(original), "PNG")).candidates[0]
        for space in WIDE:
            wide = Image.fromarray(profiles.convert(original, "sRGB", space))
            file = encoded(wide, "PNG", icc_profile=profiles.rgb_profile(space))
            found = classifier.classify(file).candidates[0]
            assert found.label == expected.label
            assert found.confidence == pytest.approx(expected.confidence, abs=0.15)


LITTLE_CMS = """
import sys
from pathlib import Path
from litelens.core.images import Limits, decode

decode(Path(sys.argv[1]).read_bytes(), Limits())
print("PIL.ImageCms" in sys.modules)
"""


@pytest.mark.parametrize(
    ("profile", "imported"),
    [
        pytest.param(None, False, id="no profile"),
        pytest.param(profiles.rgb_profile("sRGB"), False, id="sRGB"),
        pytest.param(profiles.rgb_profile("Display P3"), True, id="Display P3"),
    ],
)
def test_only_profiles_other_than_srgb_load_littlecms(profile: bytes | None, imported: bool, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(SMALL), "JPEG", icc_profile=profile))
    command = [sys.executable, "-c", LITTLE_CMS, path]
    done = subprocess.run(command, cwd=ROOT / "lambda", check=True, capture_output=True, text=True)
    assert done.stdout == f"{imported}\n"


def test_srgb_from_several_programs_changes_no_pixel() -> None:
    curve = np.rint(profiles.light_of(np.linspace(0, 1, 1024), 0) * 65535).astype(">u2")
    table = b"curv".ljust(8, b"\0") + struct.pack(">I", 1024) + curve.tobytes()
    formula = profiles.rgb_profile("sRGB")
    xyz = {
        tag: profiles.xyz_tag(value)
        for tag, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), profiles.matrix("sRGB").T, strict=True)
    }
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), table)
    others = [
        formula,
        profiles.profile(b"RGB ", b"XYZ ", {**xyz, **curves}),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ]
    for profile in others:
        assert decoded(encoded(Image.fromarray(SMALL), "PNG", icc_profile=profile), SPEC).transform is None
        assert np.array_equal(pixels(encoded(Image.fromarray(SMALL), "PNG", icc_profile=profile)), SMALL)


P3 = profiles.rgb_profile("Display P3")
UNUSABLE = {
    "empty": b"",
    "text": b"hello",
    "only a header": P3[:128],
    "half": P3[: len(P3) // 2],
    "no tags": P3[:128] + bytes(4),
    "tags without end": P3[:128] + b"\xff" * 400,
    "zeros": bytes(500),
    "for inks": profiles.ink_profile(3),
    "for grey": profiles.grey_profile(1.8),
    "of another kind": P3[:16] + b"Lab " + P3[20:],
    "too large": P3 + bytes(MAX_PROFILE_BYTES),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_a_profile_that_cannot_be_used_is_ignored(image_format: str, name: str) -> None:
    options = {"lossless": True} if image_format == "WEBP" else {}
    image = Image.fromarray(SMALL)
    file = encoded(image, image_format, icc_profile=UNUSABLE[name], **options)
    assert np.array_equal(pixels(file), pixels(encoded(image, image_format, **options)))


def test_without_littlecms_profiles_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profiles.rgb_profile("Adobe RGB") + b"another"
    monkeypatch.delattr("PIL.ImageCms", raising=False)
    monkeypatch.setitem(sys.modules, "PIL.ImageCms", None)
    assert np.array_equal(pixels(encoded(Image.fromarray(SMALL), "PNG", icc_profile=profile)), SMALL)


def jpeg_with(*segments: bytes) -> bytes:
    return hostile.after_start(encoded(Image.fromarray(SMALL), "JPEG"), b"".join(segments))


def profile_segment(number: int, count: int, content: bytes) -> bytes:
    return hostile.segment(0xE2, b"ICC_PROFILE\0" + bytes([number, count]) + content)


def test_the_segments_of_a_profile_are_joined_by_number() -> None:
    profile = profiles.rgb_profile("ProPhoto")
    first, second, third = profile[:100], profile[100:300], profile[300:]
    whole = pixels(jpeg_with(profile_segment(1, 1, profile)))
    plain = pixels(jpeg_with())
    assert difference(whole, plain).max() > 20
    parts = [profile_segment(3, 3, third), profile_segment(1, 3, first), profile_segment(2, 3, second)]
    assert np.array_equal(pixels(jpeg_with(*parts)), whole)
    assert np.array_equal(pixels(jpeg_with(*parts, profile_segment(1, 3, b"again"))), whole)
    for damaged in (
        parts[:2],
        parts[1:],
        [*parts, profile_segment(4, 3, b"x")],
        [profile_segment(0, 1, profile)],
        [profile_segment(1, 2, profile)],
        [profile_segment(1, 0, profile)],
        [hostile.segment(0xE2, b"ICC_PROFILE\0")],
        [hostile.segment(0xE2, b"ICC_PROFILE\0\1")],
    ):
        assert np.array_equal(pixels(jpeg_with(*damaged)), plain)


def gamma(value: int) -> bytes:
    return hostile.chunk(b"gAMA", struct.pack(">I", value))


def chromaticities(space: str) -> bytes:
    red, green, blue, white = profiles.PRIMARIES[space]
    return hostile.chunk(
        b"cHRM", struct.pack(">8I", *(round(value * 100_000) for point in (white, red, green, blue) for value in point))
    )


PROFILE_CHUNK = hostile.chunk(b"iCCP", b"x\0\0" + zlib.compress(profiles.rgb_profile("Adobe RGB")))
SRGB_CHUNK = hostile.chunk(b"sRGB", b"\0")


@pytest.mark.parametrize("exponent", [1.0, 1.8, 3.0])
@pytest.mark.parametrize("is_grey", [False, True])
def test_the_gamma_of_a_png_is_applied(exponent: float, is_grey: bool) -> None:
    image = SMALL[:, :, 0] if is_grey else SMALL
    found = pixels(png(image, gamma(round(100_000 / exponent))))
    levels = np.rint(profiles.levels_of(profiles.light_of(image / 255, exponent), 0) * 255)
    expected = np.stack([levels] * 3, axis=-1) if is_grey else levels
    assert np.abs(found - expected).max() <= 2


@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB"])
def test_the_primaries_of_a_png_are_applied(space: str) -> None:
    wide = profiles.convert(SMALL, "sRGB", space)
    curve = gamma(round(100_000 / profiles.EXPONENTS[space])) if profiles.EXPONENTS[space] else b""
    assert difference(pixels(png(wide, curve, chromaticities(space))), SMALL).max() <= 8
    assert difference(wide, SMALL).max() > 10


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([gamma(45_455)], id="the usual gamma"),
        pytest.param([gamma(45_455), chromaticities("sRGB")], id="sRGB in numbers"),
        pytest.param([gamma(100_000), SRGB_CHUNK], id="sRGB in spite of the gamma"),
        pytest.param([chromaticities("Adobe RGB"), SRGB_CHUNK], id="sRGB in spite of the primaries"),
        pytest.param([gamma(0)], id="no gamma"),
        pytest.param([gamma(2**32 - 1)], id="absurd gamma"),
        pytest.param([gamma(1)], id="tiny gamma"),
        pytest.param([hostile.chunk(b"gAMA", b"\0")], id="short gamma"),
        pytest.param([hostile.chunk(b"cHRM", bytes(32))], id="no primaries"),
        pytest.param([hostile.chunk(b"cHRM", b"\xff" * 32)], id="absurd primaries"),
        pytest.param([hostile.chunk(b"cHRM", struct.pack(">8I", *[33_333] * 8))], id="primaries at one point"),
        pytest.param([hostile.chunk(b"cHRM", bytes(7))], id="short primaries"),
        pytest.param([hostile.chunk(b"iCCP", b"x\0\0" + b"nonsense")], id="profile that is not compressed"),
        pytest.param([hostile.chunk(b"iCCP", b"x")], id="profile without content"),
    ],
)
def test_what_a_png_says_about_srgb_or_cannot_mean_changes_no_pixel(chunks: list[bytes]) -> None:
    assert np.array_equal(pixels(png(SMALL, *chunks)), SMALL)


def test_the_profile_of_a_png_comes_before_its_gamma_and_primaries() -> None:
    expected = pixels(png(SMALL, PROFILE_CHUNK))
    assert difference(expected, SMALL).max() > 10
    for others in (gamma(100_000), chromaticities("ProPhoto"), SRGB_CHUNK):
        assert np.array_equal(pixels(png(SMALL, others, PROFILE_CHUNK)), expected)


def test_transparency_stays_white_in_any_space() -> None:
    image = Image.new("RGBA", (4, 4), (0, 200, 0, 0))
    image.putpixel((1, 0), (0, 200, 0, 255))
    rgb = decoded(encoded(image, "PNG", icc_profile=profiles.rgb_profile("Display P3"))).rgb
    assert rgb.getpixel((0, 0)) == (255, 255, 255)
    assert rgb.getpixel((1, 0)) not in ((255, 255, 255), (0, 200, 0))


SEEDS = [
    ("RGB", P3),
    ("RGB", profiles.rgb_profile("Adobe RGB")),
    ("L", profiles.grey_profile(1.8)),
    ("CMYK", profiles.ink_profile(3)),
]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 900), st.binary(max_size=8)), max_size=6))
def test_an_image_with_a_damaged_profile_is_decoded(seed: tuple[str, bytes], patches: list[tuple[int, bytes]]) -> None:
    mode, profile = seed
    damaged = bytearray(profile)
    for position, patch in patches:
        position %= len(damaged)
        damaged[position : position + len(patch)] = patch
    file = encoded(Image.new(mode, (20, 10)), "JPEG", icc_profile=bytes(damaged))
    assert decoded(file).rgb.size == (20, 10)
    assert decoded(file, SPEC).pixels(SPEC).shape == (24, 24, 3)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=200))
def test_any_colour_chunks_of_a_png_give_an_image(gamma: bytes, primaries: bytes, profile: bytes) -> None:
    chunks = [hostile.chunk(b"gAMA", gamma[:4]), hostile.chunk(b"cHRM", primaries.ljust(32, b"\1")[:32])]
    assert pixels(png(SMALL, *chunks)).shape == SMALL.shape
    assert pixels(png(SMALL, hostile.chunk(b"iCCP", profile))).shape == SMALL.shape


def test_a_profile_of_programs_is_ignored() -> None:
    file = encoded(Image.fromarray(SMALL), "PNG", icc_profile=hostile.shared_programs(20))
    assert decoded(file, SPEC).transform is None
    assert np.array_equal(pixels(file), SMALL)


def test_the_same_profile_without_programs_is_applied() -> None:
    profile = hostile.shared_programs(20).replace(b"D2B", b"xxx")
    assert decoded(encoded(Image.fromarray(SMALL), "PNG", icc_profile=profile), SPEC).transform is not None
