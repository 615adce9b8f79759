"""Remove metadata from image files before Pillow decodes them.

Pillow parses all metadata: comments, colour profiles, compressed text that expands a thousandfold, EXIF entries that
each refer to the whole EXIF data, and millions of empty segments. An attacker can use that to exhaust memory and time.
The only metadata that affects the image is the EXIF orientation and the colour profile, which are limited in size.
"""

import re
import struct
from collections.abc import Callable, Iterator, Mapping

from litelens.core.bmp import strip_bmp
from litelens.core.colour import MAX_PROFILE_BYTES
from litelens.core.errors import NotAnImage
from litelens.core.formats import BMP, GIF, HEIF, JPEG, PNG, ImageFormat
from litelens.core.heif import strip_heif
from litelens.core.png import strip_png
from litelens.core.stripped import StrippedImage, count_part

# The marker of a segment: 0xFF and a byte other than those that follow 0xFF inside scans, which are stuffed zeros,
# restart markers and fill bytes.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_PROGRESSIVE, _JPEG_SCAN, _JPEG_END, _JPEG_EXIF, _JPEG_PROFILE = 0xC2, 0xDA, 0xD9, 0xE1, 0xE2
JPEG_END_MARKER = b"\xff\xd9"
# A profile is split into segments that begin with this name, their number from 1, and how many there are.
_PROFILE_NAME = b"ICC_PROFILE\0"
_PROFILE_PREFIX_BYTES = len(_PROFILE_NAME) + 2
# The markers of segments to keep, and the prefix that their content must have: frames, tables and restart intervals,
# and the JFIF and Adobe segments, which define the colour space.
_JPEG_KEPT = {**dict.fromkeys([0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD], b""), 0xE0: b"JFIF", 0xEE: b"Adobe"}
_JPEG_UNSUPPORTED_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}

_GIF_BLOCK = re.compile(rb"[!,;]")
_GIF_CONTROL = 0xF9

_ORIENTATION, _SHORT = 0x0112, 3


def strip_metadata(data: bytes, image_format: ImageFormat) -> StrippedImage:
    """Remove the metadata from an image file of this format.

    That of WebP and AVIF stays in the file. Raises ImageTooLarge if the file has far more segments, chunks,
    extensions or boxes than photos have, and NotAnImage if it is a JPEG, a BMP or a HEIC of an unsupported kind.
    """
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
    """Keep a JPEG's first image, without metadata and without data after its end, such as a phone's video.

    A baseline JPEG of one scan gets an end marker if it has none, so that it is decoded as far as it has data.
    """
    head, exif, body, end = [data[:2]], b"", None, 2
    profile: dict[bytes, bytes] = {}
    scans = first_scan_channels = 0
    is_progressive = False
    for marker, start, end in _segments(data):
        content = start + 4
        if marker in _JPEG_UNSUPPORTED_FRAMES:
            raise NotAnImage("Lossless and arithmetic coded JPEGs are not supported; send a baseline JPEG.")
        is_progressive |= marker == _JPEG_PROGRESSIVE
        if marker == _JPEG_SCAN:
            if body is None:
                body, first_scan_channels = start, int.from_bytes(data[content : content + 1])
            scans += 1
        elif body is None and marker in _JPEG_KEPT and data.startswith(_JPEG_KEPT[marker], content):
            head.append(data[start:end])
        elif marker == _JPEG_EXIF and data.startswith(b"Exif\0\0", content) and not exif:
            exif = data[content + 6 : end]
        elif marker == _JPEG_PROFILE and body is None and data.startswith(_PROFILE_NAME, content):
            profile.setdefault(data[content + len(_PROFILE_NAME) : end][:1], data[content:end])
    rest = b"" if body is None else memoryview(data)[body:end]
    has_end = start < end
    added = b"" if has_end or scans != 1 or is_progressive else JPEG_END_MARKER
    return StrippedImage(b"".join([*head, rest, added]), exif, _join_profile(profile), scans, first_scan_channels)


def _join_profile(segments: Mapping[bytes, bytes]) -> bytes:
    """Join the segments of a JPEG's profile, by number; returns no bytes if one is missing or if they are too many."""
    parts = [segments[number][_PROFILE_PREFIX_BYTES:] for number in sorted(segments)]
    counts = {segment[len(_PROFILE_NAME) + 1 : _PROFILE_PREFIX_BYTES] for segment in segments.values()}
    is_complete = sorted(segments) == [bytes([number]) for number in range(1, len(segments) + 1)]
    if not is_complete or counts != {bytes([len(segments)])} or sum(map(len, parts)) > MAX_PROFILE_BYTES:
        return b""
    return b"".join(parts)


def _segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment of a JPEG, up to the end marker.

    The data of a scan lies between its segment and the next. If the end marker is missing, the JPEG ends with the file.
    """
    parts, end = 0, 2
    while found := _JPEG_MARKER.search(jpeg, end):
        parts = count_part(parts, "JPEG", "segments")
        start = found.start()
        marker, end = jpeg[start + 1], start + 2
        if marker == _JPEG_END:
            yield marker, start, end
            return
        end += int.from_bytes(jpeg[end : end + 2])
        yield marker, start, end
    yield _JPEG_END, len(jpeg), len(jpeg)


def _strip_gif(data: bytes) -> StrippedImage:
    """Remove all extensions before a GIF's first frame except graphic controls, which define the transparent colour."""
    flags = int.from_bytes(data[10:11])
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    head, parts = [data[:position]], 0
    while found := _GIF_BLOCK.search(data, position):
        position = found.start()
        if found[0] != b"!":
            break
        parts = count_part(parts, "GIF", "extensions")
        end = position + 2
        while end < len(data) and data[end]:
            end += 1 + data[end]
        if data[position + 1 : position + 2] == bytes([_GIF_CONTROL]):
            head.append(data[position : end + 1])
        position = end + 1
    else:
        position = len(data)
    return StrippedImage(b"".join([*head, data[position:]]))


_STRIPPERS: Mapping[ImageFormat, Callable[[bytes], StrippedImage]] = {
    JPEG: _strip_jpeg,
    PNG: strip_png,
    GIF: _strip_gif,
    BMP: strip_bmp,
    HEIF: strip_heif,
}
