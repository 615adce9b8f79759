"""Images that miss rows although their files seem whole."""

import struct
import zlib
from collections.abc import Callable

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support import ROCKET, encoded

from litelens.core import completeness
from litelens.core.completeness import MAX_MISSING_ROWS
from litelens.core.errors import CorruptImage
from litelens.core.images import DecodedImage, Limits, decode
from litelens.core.preprocessing import Preprocessing

SPEC = Preprocessing(24, 24, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
END = b"\xff\xd9"
WIDTH, HEIGHT = 320, 480
PHOTO = Image.open(ROCKET).resize((WIDTH, HEIGHT))
# The number of rows that may be missing, and how many more are missing in files that must be refused: blocks of JPEG
# have up to 16 rows.
FEW, BLOCK = int(HEIGHT * MAX_MISSING_ROWS), 16

JPEGS: dict[str, dict[str, object]] = {
    "usual": {},
    "colours in full": {"subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "restarts after each block": {"restart_marker_blocks": 1},
}


def decoded(data: bytes, spec: Preprocessing | None = None) -> DecodedImage:
    return decode(data, Limits(), spec)


def cut_jpeg(rows: int, mode: str = "RGB", **options: object) -> bytes:
    """Return a JPEG without an end marker, which ends in its first block row after these rows."""
    whole = encoded(PHOTO.convert(mode), "JPEG", quality=90, **options)
    shorter = encoded(PHOTO.convert(mode).crop((0, 0, WIDTH, rows)), "JPEG", quality=90, **options)
    assert whole[: len(shorter) // 2].startswith(whole[:20])
    return whole[: len(shorter) - 2]


def cut_png(rows: int, bits: int = 8, colours: int = 2, *, interlaced: bool = False) -> bytes:
    """Return a PNG whose compressed data end properly after these rows."""
    whole = hostile.png(WIDTH, HEIGHT, bits, colours, interlaced=interlaced, before=hostile.PALETTE * (colours == 3))
    start = whole.index(b"IDAT") + 4
    pixels = zlib.decompress(whole[start:-16])
    kept = zlib.compress(pixels[: len(pixels) * rows // HEIGHT])
    return whole[: start - 8] + hostile.chunk(b"IDAT", kept) + hostile.chunk(b"IEND")


def cut_gif(rows: int, *, interlaced: bool = False) -> bytes:
    """Return a GIF whose compressed data end properly after these rows."""
    noise = np.random.default_rng(5).integers(1, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(noise[:rows]), "GIF", interlace=False, optimize=False))
    descriptor = data.rindex(struct.pack("<HHHHB", 0, 0, WIDTH, rows, 0))
    data[8:10] = data[descriptor + 6 : descriptor + 8] = struct.pack("<H", HEIGHT)
    data[descriptor + 8] |= 0x40 * interlaced
    return bytes(data)


CUT: dict[str, Callable[[int], bytes]] = {
    **{
        f"JPEG, {name}": lambda rows, options=options: cut_jpeg(rows, **options) + END
        for name, options in JPEGS.items()
    },
    **{
        f"JPEG without end, {name}": lambda rows, options=options: cut_jpeg(rows, **options)
        for name, options in JPEGS.items()
    },
    "JPEG, grey": lambda rows: cut_jpeg(rows, "L") + END,
    "JPEG, inks": lambda rows: cut_jpeg(rows, "CMYK") + END,
    "PNG": cut_png,
    "PNG, 16 bits": lambda rows: cut_png(rows, 16, 6),
    "PNG, grey": lambda rows: cut_png(rows, 4, 0),
    "PNG, bilevel": lambda rows: cut_png(rows, 1, 0),
    "PNG, palette": lambda rows: cut_png(rows, 8, 3),
}
# Pillow refuses these if a single row is missing.
STRICT: dict[str, Callable[[int], bytes]] = {
    "PNG, interlaced": lambda rows: cut_png(rows, interlaced=True),
    "GIF": cut_gif,
    "GIF, interlaced": lambda rows: cut_gif(rows, interlaced=True),
}


@pytest.mark.parametrize("name", [*CUT, *STRICT])
@pytest.mark.parametrize("rows", [16, HEIGHT // 2, HEIGHT - FEW - BLOCK])
def test_an_image_without_more_than_a_few_of_its_rows_is_corrupt(name: str, rows: int) -> None:
    data = (CUT | STRICT)[name](rows)
    for spec in (None, SPEC):
        with pytest.raises(CorruptImage):
            decoded(data, spec)


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("missing", [0, 1, FEW - BLOCK])
def test_an_image_without_a_few_of_its_last_rows_is_decoded(name: str, missing: int) -> None:
    image = decoded(CUT[name](HEIGHT - missing))
    assert image.rgb.size == (WIDTH, HEIGHT)
    assert decoded(CUT[name](HEIGHT - missing), SPEC).pixels(SPEC).shape == (24, 24, 3)


@pytest.mark.parametrize("name", STRICT)
def test_a_whole_image_of_these_formats_is_decoded(name: str) -> None:
    assert decoded(STRICT[name](HEIGHT)).rgb.size == (WIDTH, HEIGHT)


def test_a_png_of_one_row_of_thousands_is_corrupt() -> None:
    header = hostile.png_header(1000, 3500)
    with pytest.raises(CorruptImage, match="rows"):
        decoded(header + hostile.chunk(b"IDAT", zlib.compress(b"\0" + bytes(1000))) + hostile.chunk(b"IEND"))


# Levels that decoders give to missing pixels.
@pytest.mark.parametrize("level", [0, 127, 128])
@pytest.mark.parametrize(
    ("mode", "image_format", "options"),
    [
        *(
            (mode, "JPEG", options)
            for mode in ("RGB", "L")
            for options in ({}, {"progressive": True}, {"restart_marker_rows": 1})
        ),
        *((mode, "PNG", {}) for mode in ("RGB", "L", "P", "RGBA")),
        *(("P", "GIF", options) for options in ({}, {"transparency": 0})),
        ("RGB", "WEBP", {"lossless": True}),
        ("L", "BMP", {}),
    ],
)
def test_an_image_that_looks_as_if_rows_were_missing_is_decoded(
    mode: str, image_format: str, options: dict[str, object], level: int
) -> None:
    image = Image.new(mode, (90, 70), (level,) * 3 if mode == "RGB" else level)
    assert decoded(encoded(image, image_format, **options)).rgb.size == (90, 70)
    upper = image.copy()
    upper.paste((10, 200, 30) if mode == "RGB" else 200, (0, 0, 90, 30))
    assert decoded(encoded(upper, image_format, **options)).rgb.size == (90, 70)


def test_a_black_png_is_decoded_interlaced_too() -> None:
    header = struct.pack(">IIBBBBB", 7, 5, 8, 0, 0, 0, 1)
    passes = [(1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (3, 3), (7, 2)]
    pixels = zlib.compress(b"".join(bytes((columns + 1) * rows) for columns, rows in passes))
    data = (
        b"\x89PNG\r\n\x1a\n" + hostile.chunk(b"IHDR", header) + hostile.chunk(b"IDAT", pixels) + hostile.chunk(b"IEND")
    )
    assert decoded(data).rgb.getcolors() == [(35, (0, 0, 0))]


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(["PNG", "GIF", "JPEG"]), st.integers(1, 60), st.integers(1, 60), st.integers(0, 255))
def test_no_image_of_one_colour_is_taken_for_a_cut_one(image_format: str, width: int, height: int, level: int) -> None:
    assert decoded(encoded(Image.new("L", (width, height), level), image_format)).rgb.size == (width, height)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 17), st.integers(1, 17), st.integers(126, 129), st.sampled_from(["L", "RGB"]), st.booleans())
def test_small_grey_jpegs_are_decoded(width: int, height: int, level: int, mode: str, progressive: bool) -> None:
    image = Image.new("L", (width, height), level).convert(mode)
    assert decoded(encoded(image, "JPEG", progressive=progressive)).rgb.size == (width, height)


@pytest.mark.parametrize("spec", [None, SPEC])
@pytest.mark.parametrize("rows", [64, 1000, 1880])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_a_large_jpeg_without_many_rows_is_corrupt(
    options: dict[str, object], rows: int, spec: Preprocessing | None
) -> None:
    photo = PHOTO.resize((640, 2000))
    whole, upper = (encoded(image, "JPEG", quality=90, **options) for image in (photo, photo.crop((0, 0, 640, rows))))
    with pytest.raises(CorruptImage, match="rows"):
        decoded(whole[: len(upper) - 2] + END, spec)


@pytest.mark.parametrize("kept", [0.03, 0.1])
def test_a_large_progressive_jpeg_that_ends_in_its_first_scan_is_corrupt(kept: float) -> None:
    whole = encoded(PHOTO.resize((1000, 3000)), "JPEG", progressive=True, quality=90)
    first = whole.index(b"\xff\xda")
    size = first + int((whole.index(b"\xff\xda", first + 2) - first) * kept * 9)
    for spec in (None, SPEC):
        with pytest.raises(CorruptImage, match="rows"):
            decoded(whole[:size] + END, spec)


# The last pixel has the level of missing pixels in each of these, but not all the last rows have.
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_image_is_decoded_once_unless_all_its_last_rows_are_flat(
    image_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = 128 if image_format == "JPEG" else 0
    photo = Image.new("RGB", (800, 2000), (level,) * 3)
    photo.paste((200, 10, 10), (0, 1950, 200, 1980))
    checked = []
    for name in ("missing_share", "_jpeg_share"):
        monkeypatch.setattr(completeness, name, lambda *_: checked.append(1) or 0.0)
    decoded(encoded(photo, image_format))
    assert checked == []
    decoded(encoded(photo.crop((0, 0, 800, 1900)), image_format))
    assert checked == [1]


def test_a_jpeg_that_only_lacks_its_end_marker_has_all_its_pixels() -> None:
    whole = encoded(PHOTO, "JPEG")
    assert whole.endswith(END)
    assert np.array_equal(np.asarray(decoded(whole[:-2]).rgb), np.asarray(decoded(whole).rgb))


@pytest.mark.parametrize("kept", [0.02, 0.05])
def test_a_progressive_jpeg_that_ends_in_its_first_scan_is_corrupt(kept: float) -> None:
    whole = encoded(PHOTO, "JPEG", progressive=True, quality=90)
    first = whole.index(b"\xff\xda")
    assert first < len(whole) * kept < whole.index(b"\xff\xda", first + 2)
    with pytest.raises(CorruptImage, match="rows"):
        decoded(whole[: int(len(whole) * kept)] + END)


def test_a_progressive_jpeg_that_ends_in_a_later_scan_has_all_rows() -> None:
    whole = encoded(PHOTO, "JPEG", progressive=True, quality=90)
    half, all_of_it = (decoded(data, SPEC).pixels(SPEC) for data in (whole[: len(whole) // 2] + END, whole))
    assert np.abs(half.astype(np.int16) - all_of_it).mean() < 3


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_webp_whose_header_was_adapted_to_half_its_data_is_corrupt(lossless: bool, kept: float) -> None:
    data = bytearray(encoded(PHOTO, "WEBP", lossless=lossless))
    del data[int(len(data) * kept) // 2 * 2 :]
    data[4:8], data[16:20] = struct.pack("<I", len(data) - 8), struct.pack("<I", len(data) - 20)
    with pytest.raises(CorruptImage):
        decoded(bytes(data))
