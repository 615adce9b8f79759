"""Rewrite the kinds of BMP that Pillow does not read: short OS/2 headers, and pixels with any bit fields."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from litelens.core.errors import CorruptImage, NotAnImage
from litelens.core.stripped import StrippedImage
from litelens.core.unsupported import explain_text

_FILE_HEADER_BYTES = 14
# The sizes of headers: of OS/2 1, of Windows 3, with the masks of bit fields, and with a mask for transparency too.
# OS/2 2 has headers of 16 to 64 bytes, because a file may leave out the last fields.
_OS2_1, _WINDOWS_3, _WITH_MASKS, _WITH_ALPHA = 12, 40, 52, 56
_OS2_2 = frozenset(range(16, 65)) - {_WINDOWS_3, _WITH_MASKS, _WITH_ALPHA}

_RAW, _RLE8, _RLE4, _BIT_FIELDS, _JPEG, _PNG, _ALPHA_BIT_FIELDS = range(7)
# Pillow decodes run-length encoding in Python, which takes too long.
_RUN_LENGTHS = "run-length encoding"
_UNSUPPORTED = {_RLE8: _RUN_LENGTHS, _RLE4: _RUN_LENGTHS, _JPEG: "a JPEG inside", _PNG: "a PNG inside"}
_UNSUPPORTED_OF_OS2 = {_RLE8: _RUN_LENGTHS, _RLE4: _RUN_LENGTHS, 3: "Huffman coding", 4: _RUN_LENGTHS}
_BITS = (1, 4, 8, 16, 24, 32)

# Masks of red, green, blue and alpha: those that pixels without bit fields have, by bits per pixel, and others that
# Pillow reads.
_Masks = tuple[int, int, int, int]
_RAW_MASKS: dict[int, _Masks] = {
    16: (0x7C00, 0x3E0, 0x1F, 0),
    24: (0xFF0000, 0xFF00, 0xFF, 0),
    32: (0xFF0000, 0xFF00, 0xFF, 0),
}
_RGB_565 = (0xF800, 0x7E0, 0x1F, 0)
_BGRA = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)

# The levels of red, green, blue and alpha without a mask: none of the colour, and opaque.
_ABSENT_LEVELS = (0, 0, 0, 255)

# Pixels are rewritten in strips of this size, so that their copies stay small.
_STRIP_PIXELS = 1_000_000


@dataclass(frozen=True)
class _Header:
    """The fields of a BMP's headers. `start` is the position of the pixels in the file, `size` that of the header."""

    start: int
    size: int
    width: int
    height: int
    bits: int
    compression: int
    colours: int

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def end(self) -> int:
        return _FILE_HEADER_BYTES + self.size


def strip_bmp(data: bytes) -> StrippedImage:
    """Return a BMP with a header and pixels that Pillow reads.

    Raises NotAnImage if its compression or its number of bits per pixel is not supported, and CorruptImage if its bit
    fields have gaps, or if its bytes were changed as text. Pixels without compression decode whatever was done to them.
    """
    text = explain_text(data) if len(data) > int.from_bytes(data[2:6], "little") else None
    if text is not None:
        raise CorruptImage(text)
    header = _read_header(data)
    if header is None:
        return StrippedImage(data)
    unsupported = (_UNSUPPORTED_OF_OS2 if header.size in _OS2_2 else _UNSUPPORTED).get(header.compression)
    if unsupported is None and header.bits not in _BITS:
        unsupported = f"{header.bits} bits per pixel"
    if unsupported is not None:
        raise NotAnImage(f"BMP with {unsupported} is not supported; send the image as PNG.")
    if header.size in _OS2_2:
        # A position of 0 stands for the first byte after the header and the palette.
        is_valid = header.end <= header.start <= len(data)
        start = header.start + _WINDOWS_3 - header.size if is_valid else 0
        return StrippedImage(_headers(header, start, header.colours) + data[header.end :])
    if header.compression in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) and header.bits in _RAW_MASKS and header.width > 0:
        return StrippedImage(_without_bit_fields(data, header))
    return StrippedImage(data)


def _read_header(data: bytes) -> _Header | None:
    """Read the headers; returns None if they are cut off, or are those of OS/2 1, which have nothing unusual."""
    start, size = struct.unpack_from("<II", data, 10)
    end = _FILE_HEADER_BYTES + size
    if size == _OS2_1 or len(data) < end:
        return None
    fields = data[_FILE_HEADER_BYTES:end].ljust(_WINDOWS_3, b"\0")
    width, height, _, bits, compression, _, _, _, colours, _ = struct.unpack_from("<iiHHIIiiII", fields, 4)
    return _Header(start, size, width, height, bits, compression, colours)


def _headers(header: _Header, start: int, colours: int = 0, alpha: int = 0) -> bytes:
    """Return the headers of Windows 3 for pixels at the position `start` of a file, without masks.

    With a mask of `alpha`, they are the headers for pixels of red, green, blue and alpha, 8 bits each.
    """
    size, compression = (_WITH_ALPHA, _BIT_FIELDS) if alpha else (_WINDOWS_3, _RAW)
    fields = (size, header.width, header.height, 1, header.bits, compression, 0, 0, 0, colours, 0)
    masks = struct.pack("<4I", *_BGRA) if alpha else b""
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + struct.pack("<IiiHHIIiiII", *fields) + masks


def _without_bit_fields(data: bytes, header: _Header) -> bytes:
    """Return the BMP with 8 bits for each of red, green and blue, and of alpha if a pixel is not transparent.

    If Pillow reads the bit fields, they are kept.
    """
    masks, start = _read_masks(data, header)
    # Many programs declare transparency and leave it 0. Like browsers, show such an image without transparency.
    if masks[3] and not any((strip & masks[3]).any() for strip in _strips(data, header, start)):
        masks = (*masks[:3], 0)
    if masks == _RAW_MASKS[header.bits]:
        return _headers(header, _FILE_HEADER_BYTES + _WINDOWS_3) + data[start:]
    if masks in (_RGB_565, _BGRA) and header.compression == _BIT_FIELDS:
        return data
    if header.bits == 24:
        raise NotAnImage("BMP with bit fields of 24 bits is not supported; send the image as PNG.")
    channels = [_channel(mask, absent) for mask, absent in zip(masks, _ABSENT_LEVELS, strict=True)]
    file = BytesIO()
    alpha = masks[3]
    file.write(
        _headers(replace(header, bits=32), _FILE_HEADER_BYTES + (_WITH_ALPHA if alpha else _WINDOWS_3), 0, alpha)
    )
    for strip in _strips(data, header, start):
        red, green, blue, transparency = (levels.take((strip & mask) >> shift) for mask, shift, levels in channels)
        file.write(np.stack([blue, green, red, transparency], axis=-1).tobytes())
    return file.getvalue()


def _read_masks(data: bytes, header: _Header) -> tuple[_Masks, int]:
    """Return the masks of red, green, blue and alpha, and the position of the pixels."""
    has_alpha = header.size >= _WITH_ALPHA or header.compression == _ALPHA_BIT_FIELDS
    masks = struct.unpack_from("<4I", data[_FILE_HEADER_BYTES + _WINDOWS_3 :][:16].ljust(16, b"\0"))
    red, green, blue, alpha = (mask & (1 << header.bits) - 1 for mask in masks)
    end = header.end if header.size > _WINDOWS_3 else header.end + (16 if has_alpha else 12)
    if not (red or green or blue):
        red, green, blue, _ = _RAW_MASKS[header.bits]
    return (red, green, blue, alpha if has_alpha and header.bits != 24 else 0), header.start or end


def _strips(data: bytes, header: _Header, start: int) -> Iterator[NDArray[np.uint32]]:
    """Yield the pixels of several rows at a time, uint32 `(rows, width)`, as far as the file has them."""
    dtype = np.dtype(f"<u{header.bits // 8}")
    rows = min(abs(header.height), max(0, len(data) - start) // header.row_bytes)
    step = max(1, _STRIP_PIXELS // header.width)
    for first in range(0, rows, step):
        count = min(step, rows - first) * header.row_bytes // dtype.itemsize
        values = np.frombuffer(data, dtype, count, start + first * header.row_bytes)
        yield values.reshape(-1, header.row_bytes // dtype.itemsize)[:, : header.width].astype(np.uint32)


def _channel(mask: int, absent: int) -> tuple[np.uint32, int, NDArray[np.uint8]]:
    """Return the mask, the shift and the 8-bit levels of a bit field, of which at most the highest 8 bits count.

    Without a mask, the level is always `absent`.
    """
    if mask == 0:
        return np.uint32(0), 0, np.full(1, absent, np.uint8)
    lowest = (mask & -mask).bit_length() - 1
    bits = mask.bit_length() - lowest
    if mask >> lowest != (1 << bits) - 1:
        raise CorruptImage("The BMP's bit fields have gaps.")
    unused = max(0, bits - 8)
    most = (1 << bits - unused) - 1
    levels = (np.arange(most + 1) * 255 + most // 2) // most
    return np.uint32(mask), lowest + unused, levels.astype(np.uint8)
