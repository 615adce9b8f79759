"""The transparency that PNGs declare for a grey level, a colour or a palette."""

import struct
import zlib

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from litelens.core.images import Limits, decode

GREY, RGB, PALETTE = 0, 2, 3
WHITE = (255, 255, 255)


def png(levels: NDArray[np.uint16], bits: int, colours: int, *chunks: bytes) -> bytes:
    """Return a PNG of these levels, `(height, width, channels)`, with chunks before its pixels."""
    height, width, _ = levels.shape
    rows = (b"\0" + packed(row.ravel(), bits) for row in levels)
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    pixels = hostile.chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + hostile.chunk(b"IHDR", header) + b"".join(chunks) + pixels + hostile.chunk(b"IEND")


def packed(levels: NDArray[np.uint16], bits: int) -> bytes:
    each = (levels[:, np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.astype(np.uint8)).tobytes()


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(data, Limits()).rgb)


def transparency(*levels: int) -> bytes:
    return hostile.chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))


def grey_row(bits: int) -> NDArray[np.uint16]:
    """Return an image of one row with all grey levels, or with 256 of them."""
    step = 257 if bits == 16 else 1
    return np.arange(0, 1 << bits, step, dtype=np.uint16).reshape(1, -1, 1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_exactly_the_transparent_grey_level_is_white(bits: int) -> None:
    levels = grey_row(bits)
    opaque = pixels(png(levels, bits, GREY))
    for index, level in enumerate(levels.ravel()):
        expected = opaque.copy()
        expected[0, index] = WHITE
        assert np.array_equal(pixels(png(levels, bits, GREY, transparency(int(level)))), expected)


def test_grey_of_16_bits_is_compared_in_all_its_bits() -> None:
    levels = np.array([0x1234, 0x1235], np.uint16).reshape(1, 2, 1)
    assert pixels(png(levels, 16, GREY, transparency(0x1234))).tolist() == [[[255] * 3, [0x12] * 3]]


@pytest.mark.parametrize(("bits", "level"), [(8, 200), (16, 0xC8C8), (16, 0x1234)])
def test_the_transparent_colour_is_white(bits: int, level: int) -> None:
    levels = np.array([[[level, 0, level], [level, level, 0], [0, 0, 0]]], np.uint16)
    found = pixels(png(levels, bits, RGB, transparency(level, 0, level)))
    high = level >> (bits - 8)
    assert found.tolist() == [[[255] * 3, [high, high, 0], [0, 0, 0]]]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 65_535), st.lists(st.integers(0, 65_535), min_size=1))
def test_only_the_lowest_bits_of_a_transparent_grey_level_count(bits: int, key: int, values: list[int]) -> None:
    levels = (np.array(values, np.uint16) & ((1 << bits) - 1)).reshape(1, -1, 1)
    expected = pixels(png(levels, bits, GREY)).copy()
    expected[levels[:, :, 0] == key & ((1 << bits) - 1)] = 255
    assert np.array_equal(pixels(png(levels, bits, GREY, transparency(key))), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [0, 1, 2])
def test_a_palette_is_as_transparent_as_its_levels_say(bits: int, alphas: int) -> None:
    palette = hostile.chunk(b"PLTE", bytes([200, 0, 0, 0, 0, 200]))
    levels = np.array([0, 1], np.uint16).reshape(1, 2, 1)
    found = pixels(png(levels, bits, PALETTE, palette, hostile.chunk(b"tRNS", bytes([0, 128])[:alphas])))
    assert found.tolist() == [[[255] * 3 if alphas else [200, 0, 0], [127, 127, 227] if alphas == 2 else [0, 0, 200]]]


@pytest.mark.parametrize("length", [3, 4, 256, 257, 300, 1000])
def test_transparency_that_is_longer_than_the_palette_is_ignored(length: int) -> None:
    palette = hostile.chunk(b"PLTE", bytes([200, 0, 0, 0, 0, 200]))
    levels = np.array([0, 1], np.uint16).reshape(1, 2, 1)
    found = pixels(png(levels, 8, PALETTE, palette, hostile.chunk(b"tRNS", bytes(length))))
    assert found.tolist() == [[[200, 0, 0], [0, 0, 200]]]


@pytest.mark.parametrize(("colours", "channels"), [(GREY, 1), (RGB, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("content", [b"", b"\0", b"\0\0\0", b"\0\0\0\0\0", b"\0" * 7, b"\0" * 500])
def test_transparency_of_the_wrong_length_is_ignored(colours: int, channels: int, content: bytes) -> None:
    levels = np.full((2, 2, channels), 255, np.uint16)
    levels[:, :, 0] = 0
    data = png(levels, 8, colours)
    changed = png(levels, 8, colours, hostile.chunk(b"tRNS", content))
    assert np.array_equal(pixels(changed), pixels(data))
