"""The result of removing metadata, and what the modules for each format share."""

from dataclasses import dataclass

from litelens.core.errors import ImageTooLarge

# JPEG segments, PNG chunks or GIF extensions. Photos have dozens of them; a PNG has thousands if its encoder uses a
# small buffer.
_MAX_PARTS = 20_000


@dataclass(frozen=True)
class StrippedImage:
    """An image file without its metadata.

    `exif` begins with the TIFF header. `profile` is the ICC profile of the colours. Both are empty if the file has
    none, and for WebP, HEIC and AVIF, whose profile stays in `data`, like the EXIF of WebP and AVIF. `scans` is the
    number of scans of a JPEG, and `first_scan_channels` the number of channels in the first scan. `pixel_bits` is the
    number of bits per pixel of a PNG before compression. `pixels_at` is the position in `data` of a PNG's pixel data.
    Numbers that do not apply to the format are 0.
    """

    data: bytes
    exif: bytes = b""
    profile: bytes = b""
    scans: int = 0
    first_scan_channels: int = 0
    pixel_bits: int = 0
    pixels_at: int = 0


def count_part(parts: int, image_format: str, name: str) -> int:
    """Return the number of parts plus one; raises ImageTooLarge if there are too many."""
    if parts == _MAX_PARTS:
        raise ImageTooLarge(f"The {image_format} has more than {_MAX_PARTS:,} {name}. Save it without metadata.")
    return parts + 1
