"""Remove metadata from image files before Pillow decodes them.

Pillow parses all metadata: comments, colour profiles, compressed text that expands a thousandfold, EXIF entries that
each refer to the whole EXIF data, and millions of empty segments. An attacker can use that to exhaust memory and time.
The only metadata that affects the image is the EXIF orientation.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litelens.core.errors import ImageTooLarge, NotAnImage
from litelens.core.formats import GIF, JPEG, PNG, ImageFormat, format_of

# JPEG segments, PNG chunks or GIF extensions. Photos have dozens of them; a PNG has thousands if its encoder uses a
# small buffer.
_MAX_PARTS = 20_000

# Whether 0xFF and this byte form the marker of a JPEG segment. The others occur inside scans: stuffed zeros, restart
# markers and fill bytes.
_IS_MARKER = ~np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8), 0xFF])

# The size of the part that is searched in one step, so that its copies stay small.
_WINDOW_BYTES = 1 << 16

_JPEG_SCAN, _JPEG_END, _JPEG_EXIF = 0xDA, 0xD9, 0xE1
# The markers of segments to keep, and the prefix that their content must have: frames, tables and restart intervals,
# and the JFIF and Adobe segments, which define the colour space.
_JPEG_KEPT = {**dict.fromkeys([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD], b""), 0xE0: b"JFIF", 0xEE: b"Adobe"}
_JPEG_UNSUPPORTED_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}

_PNG_SIGNATURE_BYTES = 8
_PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"eXIf"}
# The number of channels of each colour type.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

_GIF_BLOCK = re.compile(rb"[!,;]")
_GIF_CONTROL = 0xF9

_ORIENTATION, _SHORT = 0x0112, 3


@dataclass(frozen=True)
class StrippedImage:
    """An image file without its metadata.

    `exif` begins with the TIFF header. It is empty if the file has no EXIF, and for WebP, whose EXIF stays in `data`.
    `scans` is the number of scans of a JPEG, and `first_scan_channels` the number of channels in the first scan.
    `pixel_bits` is the number of bits per pixel of a PNG before compression. Numbers that do not apply to the format
    are 0.
    """

    data: bytes
    exif: bytes = b""
    scans: int = 0
    first_scan_channels: int = 0
    pixel_bits: int = 0


def strip_metadata(data: bytes) -> StrippedImage | None:
    """Remove the metadata from an image file; returns None if its format is none of IMAGE_FORMATS.

    Raises ImageTooLarge if the file has far more segments, chunks or extensions than photos have, and NotAnImage if it
    is a JPEG of an unsupported kind.
    """
    image_format = format_of(data)
    if image_format is None:
        return None
    strip = _STRIPPERS.get(image_format)
    return strip(data) if strip else StrippedImage(data)


def read_orientation(exif: bytes) -> int:
    """Read the orientation (1 to 8) from the first EXIF directory; returns 1 (upright) if it is missing or damaged.

    Damaged EXIF is no reason to refuse an image whose pixels can be decoded.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(entries):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if (tag, kind, count) == (_ORIENTATION, _SHORT, 1):
                return int(value)
    except struct.error:
        pass
    return 1


def _strip_jpeg(data: bytes) -> StrippedImage:
    """Keep a JPEG's first image, without metadata and without data after its end, such as a phone's video."""
    head, exif, body, end = [data[:2]], b"", None, 2
    scans = first_scan_channels = 0
    for marker, start, end in _segments(data):
        content = start + 4
        if marker in _JPEG_UNSUPPORTED_FRAMES:
            raise NotAnImage("Lossless and arithmetic coded JPEGs are not supported; send a baseline JPEG.")
        if marker == _JPEG_SCAN:
            if body is None:
                body, first_scan_channels = start, int.from_bytes(data[content : content + 1])
            scans += 1
        elif body is None and marker in _JPEG_KEPT and data.startswith(_JPEG_KEPT[marker], content):
            head.append(data[start:end])
        elif marker == _JPEG_EXIF and data.startswith(b"Exif\0\0", content) and not exif:
            exif = data[content + 6 : end]
    rest = b"" if body is None else memoryview(data)[body:end]
    return StrippedImage(b"".join([*head, rest]), exif, scans, first_scan_channels)


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment of a JPEG, up to the end marker.

    The data of a scan lies between its segment and the next. If the end marker is missing, the JPEG ends with the file.
    """
    parts, end = 0, 2
    for markers in _markers(jpeg):
        while (index := int(np.searchsorted(markers, end))) < len(markers):
            parts = _count_part(parts, "JPEG", "segments")
            start = int(markers[index])
            marker, end = jpeg[start + 1], start + 2
            if marker == _JPEG_END:
                yield marker, start, end
                return
            end += int.from_bytes(jpeg[end : end + 2])
            yield marker, start, end
    yield _JPEG_END, len(jpeg), len(jpeg)


def _markers(jpeg: bytes) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of markers and of bytes in segments that look like markers, int64 `(n,)` for each window."""
    for start in range(0, len(jpeg), _WINDOW_BYTES):
        window = np.frombuffer(jpeg, np.uint8, min(_WINDOW_BYTES + 1, len(jpeg) - start), start)
        found = np.flatnonzero(window[:-1] == 0xFF)
        yield start + found[_IS_MARKER[window[found + 1]]]


def _strip_png(data: bytes) -> StrippedImage:
    """Keep one chunk of each type that decoding needs, and join all pixel data into one chunk.

    An animation keeps only its default image.
    """
    chunks: dict[bytes, bytes] = {}
    pixels: list[bytes] = []
    position, parts = _PNG_SIGNATURE_BYTES, 0
    while position + 8 <= len(data):
        parts = _count_part(parts, "PNG", "chunks")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            pixels.append(data[position + 8 : end])
        elif kind in _PNG_KEPT:
            chunks.setdefault(kind, data[position : end + 4])
        position = end + 4
    exif = chunks.pop(b"eXIf", b"")[8:-4]
    bits, colours = chunks.get(b"IHDR", b"")[16:18].ljust(2, b"\0")
    signature = data[:_PNG_SIGNATURE_BYTES]
    return StrippedImage(
        b"".join([signature, *chunks.values(), _png_chunk(b"IDAT", b"".join(pixels)), _png_chunk(b"IEND", b"")]),
        exif,
        pixel_bits=bits * _PNG_CHANNELS.get(colours, 0),
    )


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _strip_gif(data: bytes) -> StrippedImage:
    """Remove all extensions before a GIF's first frame except graphic controls, which define the transparent colour."""
    flags = int.from_bytes(data[10:11])
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    head, parts = [data[:position]], 0
    while found := _GIF_BLOCK.search(data, position):
        position = found.start()
        if found[0] != b"!":
            break
        parts = _count_part(parts, "GIF", "extensions")
        end = position + 2
        while end < len(data) and data[end]:
            end += 1 + data[end]
        if data[position + 1 : position + 2] == bytes([_GIF_CONTROL]):
            head.append(data[position : end + 1])
        position = end + 1
    else:
        position = len(data)
    return StrippedImage(b"".join([*head, data[position:]]))


def _count_part(parts: int, image_format: str, name: str) -> int:
    """Return the number of parts plus one; raises ImageTooLarge if there are too many."""
    if parts == _MAX_PARTS:
        raise ImageTooLarge(f"The {image_format} has more than {_MAX_PARTS:,} {name}. Save it without metadata.")
    return parts + 1


_STRIPPERS: Mapping[ImageFormat, Callable[[bytes], StrippedImage]] = {
    JPEG: _strip_jpeg,
    PNG: _strip_png,
    GIF: _strip_gif,
}
