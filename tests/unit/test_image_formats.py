"""Files in other formats: HEIC and AVIF are decoded where their decoders are installed, and others are named."""

import builtins
import importlib
import io
import struct
import sys
import time
import zipfile
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import numpy as np
import profiles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import AvifImagePlugin, Image
from support import ROCKET, ROOT, encoded, require

from litelens.core.errors import CorruptImage, ImageError, ImageTooLarge, InputError, NotAnImage
from litelens.core.formats import (
    ALL_FORMATS,
    AVIF,
    FORMAT_NAMES,
    HEIF,
    JPEG,
    MEDIA_TYPES,
    format_of,
    media_type_of,
)
from litelens.core.images import DecodedImage, Limits, decode
from litelens.core.preprocessing import Preprocessing

SPEC = Preprocessing(24, 24, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PHOTO = Image.open(ROCKET).resize((120, 80))
IMAGES = ROOT / "tests" / "images"


def decoded(data: bytes, spec: Preprocessing | None = None) -> DecodedImage:
    return decode(data, Limits(), spec)


def boxes(brand: bytes, *others: bytes) -> bytes:
    """Return the first box of a file of this brand."""
    brands = brand + bytes(4) + b"".join(others)
    return struct.pack(">I4s", 8 + len(brands), b"ftyp") + brands


def zip_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("photo.jpg", ROCKET.read_bytes())
    return file.getvalue()


# A word that names the file, and the file.
OTHERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    **{
        name: (word, lambda name=name: encoded(PHOTO, name))
        for name, word in {"TIFF": "TIFF", "ICO": "ICO", "PPM": "PNM", "PDF": "PDF", "JPEG2000": "JPEG 2000"}.items()
    },
    "TIFF of Motorola": ("TIFF", lambda: b"MM\0*\0\0\0\x08" + bytes(100)),
    "big TIFF": ("TIFF", lambda: b"II+\0\x08\0\0\0" + bytes(100)),
    "raw of Canon": ("raw", lambda: boxes(b"crx ", b"crx ", b"isom")),
    "raw of Fujifilm": ("raw", lambda: b"FUJIFILMCCD-RAW 0201" + bytes(100)),
    "PDF after junk": ("PDF", lambda: b"\r\n\xef\xbb\xbf%PDF-1.7\n" + bytes(100)),
    "SVG": ("SVG", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "SVG with all that may precede it": (
        "SVG",
        lambda: (
            b"\xef\xbb\xbf\n<?xml version='1.0'?>\n<!-- made <by> --> <!-- hand -->\n<!DOCTYPE svg PUBLIC 'x'>\n<svg "
        ),
    ),
    "JPEG XL": ("JPEG XL", lambda: b"\xff\x0a" + bytes(100)),
    "JPEG XL in boxes": ("JPEG XL", lambda: b"\0\0\0\x0cJXL \r\n\x87\n" + boxes(b"jxl ")),
    "JPEG 2000 without boxes": ("JPEG 2000", lambda: b"\xff\x4f\xff\x51" + bytes(100)),
    "Photoshop": ("Photoshop", lambda: b"8BPS\0\1" + bytes(100)),
    "a video of an iPhone": ("video", lambda: boxes(b"qt  ", b"qt  ")),
    "MP4": ("video", lambda: boxes(b"isom", b"mp41")),
    "WebM": ("video", lambda: b"\x1a\x45\xdf\xa3" + bytes(100)),
    "AVI": ("video", lambda: b"RIFF\0\1\0\0AVI LIST" + bytes(100)),
    "ZIP": ("ZIP", zip_archive),
    "gzip": ("gzip", lambda: b"\x1f\x8b\x08" + bytes(100)),
    "Git LFS": ("git lfs pull", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"),
    "HTML": ("web page", lambda: b"<!DOCTYPE html>\n<html><body>Not found</body></html>"),
    "base64": ("base64", lambda: b64encode(ROCKET.read_bytes())),
    "a data URL": ("base64", lambda: b"data:image/png;base64," + b64encode(encoded(PHOTO, "PNG"))),
    "JSON": ("JSON", lambda: b'{"image": "/9j/4AAQ"}'),
    "a form": ("form", lambda: b'--xyz\r\nContent-Disposition: form-data; name="image"\r\n\r\n'),
    "zeros": ("zeros", lambda: bytes(100)),
    "hello": (", ".join(FORMAT_NAMES), lambda: b"hello"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_in_another_format_is_named(name: str) -> None:
    word, make = OTHERS[name]
    with pytest.raises(NotAnImage, match=word):
        decoded(make())


@pytest.fixture
def noise_photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("image_format", FORMAT_NAMES)
def test_an_image_that_went_through_utf_8_is_recognized(image_format: str, noise_photo: Image.Image) -> None:
    data = encoded(noise_photo, image_format)
    with pytest.raises(InputError, match="UTF-8"):
        decoded(data.decode("utf-8", errors="replace").encode())


def test_a_bmp_in_the_colour_of_those_bytes_is_decoded() -> None:
    image = Image.new("RGB", (40, 40), (0xBD, 0xBF, 0xEF))
    assert decoded(encoded(image, "BMP")).rgb.getpixel((0, 0)) == (0xBD, 0xBF, 0xEF)


@pytest.mark.parametrize("changed_size", [None, 0])
def test_a_bmp_with_an_area_in_the_colour_of_those_bytes_is_decoded(changed_size: int | None) -> None:
    image = Image.new("RGB", (64, 64), (0xBD, 0xBF, 0xEF))
    image.paste((200, 130, 250), (0, 60, 9, 64))
    data = bytearray(encoded(image, "BMP") + b"\0\0")
    if changed_size is not None:
        data[2:6] = struct.pack("<I", changed_size)
    assert decoded(bytes(data)).rgb.getpixel((0, 0)) == (0xBD, 0xBF, 0xEF)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_image_that_was_read_as_latin_1_is_recognized(image_format: str, noise_photo: Image.Image) -> None:
    with pytest.raises(NotAnImage, match="UTF-8"):
        decoded(encoded(noise_photo, image_format).decode("latin-1").encode())


@pytest.mark.parametrize(("line_end", "other"), [(b"\r\n", b"\n"), (b"\n", b"\r\n"), (b"\n", b"\r")])
def test_a_png_with_converted_line_ends_is_recognized(line_end: bytes, other: bytes) -> None:
    with pytest.raises(NotAnImage, match="line ends"):
        decoded(encoded(PHOTO, "PNG").replace(line_end, other))


@pytest.mark.parametrize(
    "repeated",
    [b"<!---->", b"<!-- a --> ", b"<?x?>", b"<!D>", b"<!", b"<!--", b" ", b"{", b"[", b"--", b"\xef\xbb\xbf"],
)
def test_no_text_takes_long_to_name(repeated: bytes) -> None:
    started = time.process_time()
    with pytest.raises(NotAnImage):
        decoded(repeated * 100_000)
    assert time.process_time() - started < 0.5


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([make() for _, make in OTHERS.values()]), st.binary(max_size=20), st.integers(0, 40))
def test_any_change_of_these_files_gives_an_input_error(data: bytes, patch: bytes, position: int) -> None:
    changed = bytearray(data)
    changed[position : position + len(patch)] = patch
    try:
        assert decode(bytes(changed), Limits(pixels=1_000_000)).rgb.mode == "RGB"
    except ImageError:
        return


@pytest.mark.parametrize(
    ("expected", "data"),
    [
        (HEIF, boxes(b"heic", b"mif1", b"heic")),
        (HEIF, boxes(b"heix", b"mif1")),
        (HEIF, boxes(b"mif1", b"mif1", b"heic")),
        (HEIF, boxes(b"msf1", b"heic")),
        (AVIF, boxes(b"avif", b"avif", b"mif1", b"miaf")),
        (AVIF, boxes(b"avis")),
        (AVIF, boxes(b"mif1", b"mif1", b"avif")),
        (None, boxes(b"isom")),
        (None, boxes(b"jxl ")),
    ],
)
def test_heic_and_avif_are_told_apart_by_their_brands(expected: object, data: bytes) -> None:
    assert format_of(data) == expected


def test_each_format_has_a_media_type_of_its_own() -> None:
    assert {media_type_of(boxes(brand)) for brand in (b"heic", b"avif")} == {"image/heic", "image/avif"}
    assert media_type_of(boxes(b"isom")) == JPEG.media_type
    assert len(set(MEDIA_TYPES)) == len(ALL_FORMATS)


def test_without_their_decoder_heic_images_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(NotAnImage, match=r"HEIC.*JPEG.*Heic=true.*pi-heif"):
        decoded((IMAGES / "rocket.heic").read_bytes())


def test_without_their_decoder_avif_images_are_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    with pytest.raises(NotAnImage, match=r"AVIF.*JPEG"):
        decoded(encoded(PHOTO, "AVIF"))


def test_no_decoder_of_heic_is_imported_for_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    imported, original = [], builtins.__import__

    def spy(name: str, *args: Any, **options: Any) -> Any:
        imported.append(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", spy)
    monkeypatch.setattr(importlib, "import_module", imported.append)
    for image_format in FORMAT_NAMES:
        decoded(encoded(PHOTO, image_format))
    assert not [name for name in imported if "heif" in name.lower() or "avif" in name.lower()]


@pytest.fixture
def heic() -> Callable[[str], bytes]:
    try:
        importlib.import_module("pi_heif")
    except ImportError:
        require(False, "pi-heif is not installed")
    return lambda name: (IMAGES / f"{name}.heic").read_bytes()


def mean_difference(rgb: Image.Image) -> float:
    return float(np.abs(np.asarray(rgb, np.int16) - np.asarray(PHOTO, np.int16)).mean())


def test_heic_is_decoded(heic: Callable[[str], bytes]) -> None:
    image = decoded(heic("rocket"))
    assert (image.format, image.width, image.height) == ("HEIF", 120, 80)
    assert mean_difference(image.rgb) < 6
    assert decoded(heic("rocket"), SPEC).pixels(SPEC).shape == (24, 24, 3)


def test_a_heic_is_upright_and_in_srgb(heic: Callable[[str], bytes]) -> None:
    turned = decoded(heic("rocket_turned"))
    assert (turned.width, turned.height) == (80, 120)
    assert mean_difference(turned.rgb.transpose(Image.Transpose.ROTATE_90)) < 6
    assert mean_difference(decoded(heic("rocket_display_p3")).rgb) < 6


@pytest.mark.parametrize("kept", [0.002, 0.01, 0.3, 0.6, 0.9])
def test_a_truncated_heic_is_corrupt(kept: float, heic: Callable[[str], bytes]) -> None:
    data = heic("rocket")
    with pytest.raises(CorruptImage):
        decoded(data[: max(12, int(len(data) * kept))])


def test_the_limits_apply_to_heic(heic: Callable[[str], bytes]) -> None:
    data = heic("rocket")
    pixels = 120 * 80
    assert decode(data, Limits(pixels=pixels, memory=12 * pixels)).rgb.size == (120, 80)
    with pytest.raises(ImageTooLarge):
        decode(data, Limits(pixels=pixels - 1))
    with pytest.raises(ImageTooLarge):
        decode(data, Limits(memory=12 * pixels - 1))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=8)), max_size=6))
def test_a_damaged_heic_is_decoded_or_refused(patches: list[tuple[int, bytes]]) -> None:
    try_damaged((IMAGES / "rocket.heic").read_bytes(), patches)


def try_damaged(data: bytes, patches: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(data)
    for position, patch in patches:
        position %= len(damaged)
        damaged[position : position + len(patch)] = patch
    try:
        assert decode(bytes(damaged), Limits(pixels=1_000_000)).rgb.mode == "RGB"
    except ImageError:
        return


def avif(**options: Any) -> bytes:
    return encoded(PHOTO, "AVIF", quality=90, speed=8, **options)


def test_avif_is_decoded() -> None:
    image = decoded(avif())
    assert (image.format, image.width, image.height) == ("AVIF", 120, 80)
    assert mean_difference(image.rgb) < 4
    assert decoded(avif(), SPEC).pixels(SPEC).shape == (24, 24, 3)


def test_an_avif_is_upright_and_in_srgb() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decoded(avif(exif=exif))
    assert (turned.width, turned.height) == (80, 120)
    assert mean_difference(turned.rgb.transpose(Image.Transpose.ROTATE_90)) < 4
    wide = Image.fromarray(profiles.convert(np.asarray(PHOTO), "sRGB", "ProPhoto"))
    file = encoded(wide, "AVIF", quality=90, speed=8, icc_profile=profiles.rgb_profile("ProPhoto"))
    assert mean_difference(decoded(file).rgb) < 5 < mean_difference(wide)


def test_a_transparent_avif_is_flattened_on_white() -> None:
    image = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    assert min(decoded(encoded(image, "AVIF", quality=95)).rgb.getpixel((9, 9))) > 250


@pytest.mark.parametrize("kept", [0.002, 0.01, 0.3, 0.6, 0.9])
def test_a_truncated_avif_is_corrupt(kept: float) -> None:
    data = avif()
    with pytest.raises(CorruptImage):
        decoded(data[: max(12, int(len(data) * kept))])


def test_the_limits_apply_to_avif() -> None:
    pixels = 120 * 80
    assert decode(avif(), Limits(pixels=pixels, memory=16 * pixels)).rgb.size == (120, 80)
    with pytest.raises(ImageTooLarge):
        decode(avif(), Limits(pixels=pixels - 1))
    with pytest.raises(ImageTooLarge):
        decode(avif(), Limits(memory=16 * pixels - 1))


SMALL_AVIF = avif()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=8)), max_size=6))
def test_a_damaged_avif_is_decoded_or_refused(patches: list[tuple[int, bytes]]) -> None:
    try_damaged(SMALL_AVIF, patches)
