"""What of an image's file a decoder is given: the picture, without metadata that could be larger than any picture.

Pillow reads all there is: comments, colour profiles, texts that unpack to a thousand times their size, EXIF entries
that each repeat the whole EXIF, and millions of empty parts. None of it changes the pixels, save EXIF's orientation.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from litelens.errors import ImageTooLarge, NotAnImage

_JPEG, _PNG, _GIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8"

# How each format's files begin; what varies in WebP is its size, in BMP size, reserved bytes and the second header's.
_BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP|GIF8[79]a|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    re.DOTALL,
)

# JPEG segments, PNG chunks or GIF extensions: photos have tens, or thousands of chunks where an encoder buffers little.
_MOST_PARTS = 20_000

# What makes a marker after 0xFF: not what occurs within a scan, stuffed zeros and restarts, nor another 0xFF.
_IS_MARKER = ~np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8), 0xFF])

# So many bytes are looked through at once, so that their copies stay small.
_STRIP_BYTES = 1 << 16

_JPEG_SCAN, _JPEG_END, _JPEG_EXIF = 0xDA, 0xD9, 0xE1
# Frames, tables and restarts; JFIF's and Adobe's segments tell how colours are coded.
_JPEG_KEPT = {**dict.fromkeys([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD], b""), 0xE0: b"JFIF", 0xEE: b"Adobe"}
_JPEG_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}

_PNG_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"eXIf"}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

_GIF_BLOCK = re.compile(rb"[!,;]")
_GIF_CONTROL = 0xF9

_ORIENTATION, _SHORT = 0x0112, 3


@dataclass(frozen=True)
class Picture:
    """A file without its metadata.

    `exif` begins with TIFF's header, or is empty; in WebP it stays in the file. `scans` are a JPEG's, and
    `first_scan_channels` is how many channels the first of them has. `pixel_bits` are a PNG's before compression.
    """

    data: bytes
    exif: bytes = b""
    scans: int = 0
    first_scan_channels: int = 0
    pixel_bits: int = 0


def picture_of(data: bytes) -> Picture | None:
    """The picture in a file, or None when it begins like none that is read here.

    Raises ImageTooLarge when the file has absurdly many parts, NotAnImage when it is a JPEG of a kind that is not read.
    """
    if not _BEGINNINGS.match(data):
        return None
    if data.startswith(_JPEG):
        return _jpeg(data)
    if data.startswith(_PNG):
        return _png(data)
    return _gif(data) if data.startswith(_GIF) else Picture(data)


def orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in EXIF's first directory; 1, which is upright, when there is none or it is damaged.

    Damaged EXIF says nothing about the pixels.
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


def _jpeg(data: bytes) -> Picture:
    """A JPEG's first image; what follows its end, such as a phone's video, is left out."""
    head, exif, body, end = [data[:2]], b"", None, 2
    scans = first_scan_channels = 0
    for marker, start, end in _segments(data):
        content = start + 4
        if marker in _JPEG_OTHER_FRAMES:
            raise NotAnImage("Lossless and arithmetic coded JPEGs are not read here; send a baseline JPEG.")
        if marker == _JPEG_SCAN:
            if body is None:
                body, first_scan_channels = start, int.from_bytes(data[content : content + 1])
            scans += 1
        elif body is None and marker in _JPEG_KEPT and data.startswith(_JPEG_KEPT[marker], content):
            head.append(data[start:end])
        elif marker == _JPEG_EXIF and data.startswith(b"Exif\0\0", content) and not exif:
            exif = data[content + 6 : end]
    rest = b"" if body is None else memoryview(data)[body:end]
    return Picture(b"".join([*head, rest]), exif, scans, first_scan_channels)


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's segments up to its end: the marker, where it starts, and where the segment ends.

    What a scan holds lies between its segment and the next; that of the last one ends with the file.
    """
    parts, end = 0, 2
    for markers in _markers(jpeg):
        while (index := int(np.searchsorted(markers, end))) < len(markers):
            parts = _one_more(parts, "JPEG", "segments")
            start = int(markers[index])
            marker, end = jpeg[start + 1], start + 2
            if marker == _JPEG_END:
                yield marker, start, end
                return
            end += int.from_bytes(jpeg[end : end + 2])
            yield marker, start, end
    yield _JPEG_END, len(jpeg), len(jpeg)


def _markers(jpeg: bytes) -> Iterator[NDArray[np.int64]]:
    """Where there are markers, or what looks like one within a segment: int64 `(n,)`, strip by strip."""
    for start in range(0, len(jpeg), _STRIP_BYTES):
        strip = np.frombuffer(jpeg, np.uint8, min(_STRIP_BYTES + 1, len(jpeg) - start), start)
        found = np.flatnonzero(strip[:-1] == 0xFF)
        yield start + found[_IS_MARKER[strip[found + 1]]]


def _png(data: bytes) -> Picture:
    """A PNG with each chunk that makes the picture once, its pixels in one; of an animation, the image that all see."""
    chunks: dict[bytes, bytes] = {}
    pixels: list[bytes] = []
    position, parts = len(_PNG), 0
    while position + 8 <= len(data):
        parts = _one_more(parts, "PNG", "chunks")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            pixels.append(data[position + 8 : end])
        elif kind in _PNG_CHUNKS:
            chunks.setdefault(kind, data[position : end + 4])
        position = end + 4
    exif = chunks.pop(b"eXIf", b"")[8:-4]
    bits, colours = chunks.get(b"IHDR", b"")[16:18].ljust(2, b"\0")
    return Picture(
        b"".join([_PNG, *chunks.values(), _chunk(b"IDAT", b"".join(pixels)), _chunk(b"IEND", b"")]),
        exif,
        pixel_bits=bits * _PNG_CHANNELS.get(colours, 0),
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _gif(data: bytes) -> Picture:
    """A GIF from whose start up to its first frame only the extensions that say what is transparent are left."""
    flags = int.from_bytes(data[10:11])
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    head, parts = [data[:position]], 0
    while found := _GIF_BLOCK.search(data, position):
        position = found.start()
        if found[0] != b"!":
            break
        parts = _one_more(parts, "GIF", "extensions")
        end = position + 2
        while end < len(data) and data[end]:
            end += 1 + data[end]
        if data[position + 1 : position + 2] == bytes([_GIF_CONTROL]):
            head.append(data[position : end + 1])
        position = end + 1
    else:
        position = len(data)
    return Picture(b"".join([*head, data[position:]]))


def _one_more(parts: int, image_format: str, called: str) -> int:
    if parts == _MOST_PARTS:
        raise ImageTooLarge(f"The {image_format} has more than {_MOST_PARTS:,} {called}. Save it without metadata.")
    return parts + 1
