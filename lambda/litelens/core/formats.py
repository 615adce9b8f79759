"""The image formats that litelens reads. Every list of names, media types or file suffixes comes from here."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageFormat:
    """A file format: Pillow's name for it, its media type, its file suffixes, and a pattern of a file's first bytes."""

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    signature: bytes


JPEG = ImageFormat("JPEG", "image/jpeg", (".jpg", ".jpeg", ".jfif"), rb"\xff\xd8\xff")
PNG = ImageFormat("PNG", "image/png", (".png",), rb"\x89PNG\r\n\x1a\n")
WEBP = ImageFormat("WEBP", "image/webp", (".webp",), rb"RIFF.{4}WEBP")
GIF = ImageFormat("GIF", "image/gif", (".gif",), rb"GIF8[79]a")
# The size of the file and two reserved fields precede the length of the second header, which identifies the BMP
# version.
BMP = ImageFormat("BMP", "image/bmp", (".bmp",), rb"BM.{12}[\x0c\x10-\x40\x6c\x7c]\0\0\0")

IMAGE_FORMATS = (JPEG, PNG, WEBP, GIF, BMP)

# A file of boxes begins with the size of the first box, its type, the main brand, a version, and other brands. Files of
# the brand mif1 or msf1 can be both, and name the other brand after the version.
AVIF = ImageFormat("AVIF", "image/avif", (".avif",), rb".{4}ftyp(?:avi[fs]|m[is]f1.{4}(?:.{4}){0,3}avi[fs])")
HEIF = ImageFormat("HEIF", "image/heic", (".heic", ".heif"), rb".{4}ftyp(?:he[iv][cmsx]|m[is]f1)")

# Formats that are decoded only if their decoder is installed; see codecs.py.
OPTIONAL_FORMATS = (AVIF, HEIF)

ALL_FORMATS = (*IMAGE_FORMATS, *OPTIONAL_FORMATS)

FORMAT_NAMES = tuple(each.name for each in IMAGE_FORMATS)
MEDIA_TYPES = tuple(each.media_type for each in ALL_FORMATS)
SUFFIXES = tuple(suffix for each in ALL_FORMATS for suffix in each.suffixes)

# Bytes at the start of a file that are enough to recognize every format.
SIGNATURE_BYTES = 32

_SIGNATURES = re.compile(b"|".join(b"(%b)" % each.signature for each in ALL_FORMATS), re.DOTALL)
_MEDIA_TYPES_BY_SUFFIX = {suffix: each.media_type for each in ALL_FORMATS for suffix in each.suffixes}


def format_of(data: bytes) -> ImageFormat | None:
    """Return the format by the first bytes of a file; None if it is none of ALL_FORMATS."""
    found = _SIGNATURES.match(data)
    return ALL_FORMATS[found.lastindex - 1] if found and found.lastindex else None


def media_type_of(data: bytes) -> str:
    """Return the media type by the first bytes of a file; that of JPEG if the format is unknown."""
    return (format_of(data) or JPEG).media_type


def media_type_of_suffix(suffix: str) -> str:
    """Return the media type of a lower-case suffix such as `.jpg`; raises KeyError if it is none of SUFFIXES."""
    return _MEDIA_TYPES_BY_SUFFIX[suffix]
