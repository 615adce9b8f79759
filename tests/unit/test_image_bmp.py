"""BMP of every header and with any bit fields."""

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import encoded

from litelens.core.errors import CorruptImage, ImageError, ImageTooLarge, NotAnImage
from litelens.core.images import Limits, decode

RED, WHITE = (255, 0, 0), (255, 255, 255)
RAW, BIT_FIELDS, ALPHA_BIT_FIELDS = 0, 3, 6

RGB_555, RGB_565 = (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)
BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)


def pixel(data: bytes, x: int = 0, y: int = 0) -> tuple[int, int, int]:
    return decode(data, Limits()).rgb.getpixel((x, y))


def bmp(
    rows: Sequence[Sequence[int]],
    bits: int,
    masks: Sequence[int] = (),
    header_size: int = 40,
    compression: int | None = None,
    palette: bytes = b"",
) -> bytes:
    """Return a BMP of these pixels, from the top, with the masks of red, green, blue and perhaps alpha."""
    compression = compression if compression is not None else BIT_FIELDS if masks else RAW
    size = (-1 if header_size >= 40 else 1) * len(rows)
    fields = struct.pack(
        "<IiiHHIIiiII", header_size, len(rows[0]), size, 1, bits, compression, 0, 0, 0, len(palette) // 4, 0
    )
    packed = struct.pack(f"<{len(masks)}I", *masks)
    inside = packed if header_size > 40 else b""
    header = (fields + inside)[:header_size].ljust(header_size, b"\0")
    after = (b"" if inside else packed) + palette
    start = 14 + len(header) + len(after)
    pixels = b"".join(padded(row, bits) for row in (rows if size < 0 else rows[::-1]))
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + after + pixels


def padded(row: Sequence[int], bits: int) -> bytes:
    packed = b"".join(value.to_bytes(bits // 8, "little") for value in row)
    return packed + bytes(-len(packed) % 4)


def level(value: int, mask: int) -> float:
    """Return the level, 0 to 255, of a pixel's bit field."""
    lowest = (mask & -mask).bit_length() - 1
    return ((value & mask) >> lowest) / (mask >> lowest) * 255


# Each is a pixel of full red, half green (rounded down) and no blue.
@pytest.mark.parametrize(
    ("bits", "masks", "value", "expected"),
    [
        pytest.param(32, (0x3FF00000, 0xFFC00, 0x3FF), 0x3FF00000 | 511 << 10, (255, 127, 0), id="10-10-10"),
        pytest.param(32, (0x3FF, 0xFFC00, 0x3FF00000), 0x3FF | 511 << 10, (255, 127, 0), id="10-10-10 reversed"),
        pytest.param(32, (0x7FF00000, 0xFFC00, 0x1FF), 0x7FF00000 | 511 << 10, (255, 127, 0), id="11-10-9"),
        pytest.param(32, (0xFFFF0000, 0xFF00, 0xFF), 0xFFFF7F00, (255, 127, 0), id="16-8-8"),
        pytest.param(32, (0xFF, 0xFF00, 0xFF0000), 0x7FFF, (255, 127, 0), id="red first"),
        pytest.param(32, (0xFF0000, 0xFF00, 0xFF), 0xFF7F00, (255, 127, 0), id="the usual 32 bits"),
        pytest.param(32, (0, 0, 0), 0xFF7F00, (255, 127, 0), id="no masks in 32 bits"),
        pytest.param(32, (0x80000000, 0x40000000, 0x20000000), 0x80000000, (255, 0, 0), id="a bit each"),
        pytest.param(32, (0xFF0000, 0, 0xFF), 0xFF0000, (255, 0, 0), id="no green"),
        pytest.param(24, (0xFF0000, 0xFF00, 0xFF), 0xFF7F00, (255, 127, 0), id="the usual 24 bits"),
        pytest.param(16, (0xF00, 0xF0, 0xF), 0xF70, (255, 119, 0), id="4-4-4"),
        pytest.param(16, (0xF000, 0xF00, 0xF0), 0xF700, (255, 119, 0), id="4-4-4 at the top"),
        pytest.param(16, (0xE0, 0x1C, 0x3), 0xE0 | 3 << 2, (255, 109, 0), id="3-3-2"),
        pytest.param(16, RGB_555, 0x7C00 | 15 << 5, (255, 123, 0), id="5-5-5"),
        pytest.param(16, RGB_565, 0xF800 | 31 << 5, (255, 125, 0), id="5-6-5"),
        pytest.param(16, (0x1F, 0x7E0, 0xF800), 0x1F | 31 << 5, (255, 125, 0), id="5-6-5 reversed"),
        pytest.param(16, (0, 0, 0), 0x7C00 | 15 << 5, (255, 123, 0), id="no masks in 16 bits"),
    ],
)
@pytest.mark.parametrize("header_size", [40, 52, 56, 108, 124])
def test_bit_fields_of_any_size_and_order_have_their_colours(
    header_size: int, bits: int, masks: tuple[int, ...], value: int, expected: tuple[int, int, int]
) -> None:
    found = pixel(bmp([[value, 0], [0, value]], bits, masks, header_size), 1, 1)
    assert np.abs(np.subtract(found, expected)).max() <= 1


@st.composite
def masks_of(draw: st.DrawFn, bits: int) -> tuple[int, ...]:
    """Return masks of red, green, blue and alpha without gaps, which do not overlap."""
    edges = sorted(draw(st.lists(st.integers(0, bits), min_size=8, max_size=8)))
    fields = [(1 << high) - (1 << low) for low, high in zip(edges[::2], edges[1::2], strict=True)]
    assume(all(fields[:3]))
    return (*draw(st.permutations(fields[:3])), fields[3])


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from([16, 32]), st.sampled_from([56, 108, 124]), st.integers(1, 5), st.integers(1, 4))
def test_any_bit_fields_are_decoded_to_the_nearest_levels(
    data: st.DataObject, bits: int, header_size: int, width: int, height: int
) -> None:
    masks = data.draw(masks_of(bits))
    values = st.lists(st.integers(0, 2**bits - 1), min_size=width, max_size=width)
    rows = data.draw(st.lists(values, min_size=height, max_size=height))
    rgb = np.asarray(decode(bmp(rows, bits, masks, header_size), Limits()).rgb)
    has_alpha = any(value & masks[3] for row in rows for value in row)
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            alpha = level(value, masks[3]) / 255 if has_alpha else 1
            expected = [255 + alpha * (level(value, mask) - 255) for mask in masks[:3]]
            assert np.abs(rgb[y, x] - expected).max() <= 2


@pytest.mark.parametrize(
    ("bits", "masks", "clear", "opaque"),
    [
        pytest.param(32, BGRA, 0xFF0000, 0xFFFF0000, id="8-8-8-8"),
        pytest.param(32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), 0xFF, 0xFF0000FF, id="8-8-8-8 reversed"),
        pytest.param(32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000), 0x3FF00000, 0xFFF00000, id="10-10-10-2"),
        pytest.param(16, (0xF00, 0xF0, 0xF, 0xF000), 0xF00, 0xFF00, id="4-4-4-4"),
        pytest.param(16, (0x7C00, 0x3E0, 0x1F, 0x8000), 0x7C00, 0xFC00, id="5-5-5-1"),
    ],
)
@pytest.mark.parametrize("header_size", [40, 56, 124])
def test_transparency_of_a_bmp_is_flattened_on_white_unless_all_pixels_are_transparent(
    header_size: int, bits: int, masks: tuple[int, ...], clear: int, opaque: int
) -> None:
    compression = ALPHA_BIT_FIELDS if header_size == 40 else BIT_FIELDS
    image = bmp([[clear, opaque]], bits, masks, header_size, compression)
    assert [pixel(image, 0), pixel(image, 1)] == [WHITE, RED]
    assert pixel(bmp([[clear, clear]], bits, masks, header_size, compression)) == RED


def test_the_fourth_byte_of_raw_pixels_is_no_transparency() -> None:
    assert pixel(bmp([[0x00FF0000, 0x80FF0000]], 32)) == RED


@pytest.mark.parametrize("masks", [(0xF0F000, 0xF00, 0xFF), (0xF00, 0xF0, 0x5)])
def test_bit_fields_with_gaps_are_corrupt(masks: tuple[int, ...]) -> None:
    with pytest.raises(CorruptImage, match="bit fields"):
        pixel(bmp([[0]], 32, masks))


@pytest.mark.parametrize("header_size", [16, 20, 24, 36, 42, 46, 48, 60, 64])
@pytest.mark.parametrize("bits", [8, 24])
def test_headers_of_os2_of_every_length_are_read(header_size: int, bits: int) -> None:
    palette = b"\0\0\0\0" + b"\0\0\xff\0" if bits == 8 else b""
    value = 1 if bits == 8 else 0xFF0000
    data = bmp([[value, 0, 0], [0, 0, value]], bits, header_size=header_size, palette=palette)
    assert (pixel(data, 0, 0), pixel(data, 2, 1), pixel(data, 1, 1)) == (RED, RED, (0, 0, 0))


@pytest.mark.parametrize(
    ("header_size", "bits", "compression", "named"),
    [
        (40, 8, 1, "run-length"),
        (40, 4, 2, "run-length"),
        (124, 8, 1, "run-length"),
        (40, 0, 4, "JPEG"),
        (40, 0, 5, "PNG"),
        (64, 8, 1, "run-length"),
        (64, 1, 3, "Huffman"),
        (64, 24, 4, "run-length"),
        (40, 2, 0, "2 bits"),
        (40, 64, 0, "64 bits"),
        (16, 3, 0, "3 bits"),
    ],
)
def test_kinds_of_bmp_that_are_not_read_are_named(header_size: int, bits: int, compression: int, named: str) -> None:
    header = struct.pack("<IiiHHIIiiII", header_size, 8, 1, 1, bits, compression, 4, 0, 0, 0, 0)
    header = header.ljust(header_size, b"\0")[:header_size]
    data = b"BM" + struct.pack("<IHHI", 14 + header_size + 4, 0, 0, 14 + header_size) + header + bytes(64)
    with pytest.raises(NotAnImage, match=named):
        pixel(data)


@pytest.mark.parametrize("masks", [(0xF00, 0xF0, 0xF), RGB_565, BGRA])
def test_bit_fields_that_are_cut_off_are_corrupt(masks: tuple[int, ...]) -> None:
    bits = 32 if masks == BGRA else 16
    data = bmp([[1] * 40] * 30, bits, masks, 56)
    for kept in (0.1, 0.5, 0.9):
        with pytest.raises(CorruptImage):
            pixel(data[: int(len(data) * kept)])


@pytest.mark.parametrize("size", [(2**31 - 1, 1), (1, 2**31 - 1), (70_000, 70_000), (0, 5), (-5, 5)])
def test_bit_fields_of_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    data = bytearray(bmp([[1, 2]], 16, (0xF00, 0xF0, 0xF)))
    data[18:26] = struct.pack("<ii", *size)
    with pytest.raises((ImageTooLarge, CorruptImage)):
        pixel(bytes(data))


def test_an_image_of_bit_fields_has_the_pixels_of_the_same_image_without() -> None:
    levels = np.random.default_rng(3).integers(0, 16, (57, 43, 3), dtype=np.uint32)
    values = (levels << np.array([8, 4, 0], np.uint32)).sum(axis=-1, dtype=np.uint32)
    image = Image.fromarray((levels * 17).astype(np.uint8))
    packed = decode(bmp(values.tolist(), 16, (0xF00, 0xF0, 0xF)), Limits())
    assert np.array_equal(np.asarray(packed.rgb), np.asarray(decode(encoded(image, "BMP"), Limits()).rgb))
    assert packed.format == "BMP"


@settings(deadline=None, max_examples=500)
@given(
    st.one_of(st.integers(0, 200), st.integers(0, 2**32 - 1)),
    st.sampled_from([*range(16, 65), 108, 124]),
    st.tuples(st.integers(-9, 9), st.integers(-9, 9)) | st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-9, 9)),
    st.sampled_from([1, 2, 4, 8, 16, 24, 32]),
    st.integers(0, 6),
    st.one_of(st.integers(0, 2), st.integers(0, 2**32 - 1)),
    st.binary(max_size=150),
)
def test_any_header_gives_an_image_or_an_error(
    start: int,
    header_size: int,
    size: tuple[int, int],
    bits: int,
    compression: int,
    colours: int,
    content: bytes,
) -> None:
    fields = struct.pack("<IiiHHIIiiII", header_size, *size, 1, bits, compression, 0, 0, 0, colours, 0)
    header = (fields + content)[:header_size].ljust(header_size, b"\1")
    data = b"BM" + struct.pack("<IHHI", 2**31, 0, 0, start) + header + content
    try:
        assert decode(data, Limits(pixels=1_000_000)).rgb.mode == "RGB"
    except ImageError:
        return
