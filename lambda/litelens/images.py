"""Decoding: from bytes that anyone may have sent to an upright RGB image."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image

from litelens.errors import CorruptImage, ImageMissing, ImageTooLarge, InputError, NotAnImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# How each format's files begin; what varies in WebP is its size, in BMP size, reserved bytes and the second header's.
_BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP|GIF8[79]a|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    re.DOTALL,
)

# Each scan of a progressive JPEG goes over all its 8x8 blocks again; ten are usual, but a file can hold thousands.
_SCANNED_PIXELS = 1_000_000_000
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9

# Pillow decodes run-length encoded BMP in Python loops. These are BI_RLE8 and BI_RLE4.
_BMP_RUN_LENGTHS = (1, 2)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Limits:
    """The largest image accepted. Pixels are counted from the header, before anything is decoded."""

    bytes: int = 6_000_000
    pixels: int = 50_000_000


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image, and the format that its bytes were in, one of FORMATS."""

    rgb: Image.Image
    format: str


def decode(data: bytes, limits: Limits) -> DecodedImage:
    """The image in these bytes: upright, transparency flattened on white, the first frame of an animation.

    Raises ImageMissing, ImageTooLarge, NotAnImage or CorruptImage. Not safe for concurrent use.
    """
    if not data:
        raise ImageMissing("The image is empty.")
    if len(data) > limits.bytes:
        raise ImageTooLarge(f"The image has {len(data):,} bytes; at most {limits.bytes:,} are accepted.")
    if not _BEGINNINGS.match(data):
        raise NotAnImage(f"The bytes are not an image that is read here; send one of {', '.join(FORMATS)}.")
    with _pillow(limits):
        image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
        _refuse_endless_work(image, data)
        image.load()
        turn = _turn(image)
        image_format = "JPEG" if image.format == "MPO" else str(image.format)
    image = _to_rgb(image)
    return DecodedImage(image if turn is None else image.transpose(turn), image_format)


@contextmanager
def _pillow(limits: Limits) -> Iterator[None]:
    """Pillow held to the limits, its errors made ours.

    Its own pixel limit, which is process-wide, is the one that it checks before it allocates anything.
    """
    usual = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = limits.pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageTooLarge(f"The image has more than {limits.pixels:,} pixels, which is the most accepted.") from error
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # Pillow's plugins raise whatever their parsers meet: OSError, SyntaxError, ValueError, struct.error and others.
        raise CorruptImage("The image is truncated or corrupt and cannot be decoded.") from error
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _refuse_endless_work(image: Image.Image, data: bytes) -> None:
    """Refuse what takes Pillow far longer than its size tells."""
    blocks = math.ceil(image.width / 8) * math.ceil(image.height / 8)
    if image.format in ("JPEG", "MPO") and _count_scans(data) * blocks * 64 > _SCANNED_PIXELS:
        raise ImageTooLarge("The JPEG has more scans than an image of its size can need.")
    if image.format == "BMP" and image.info.get("compression") in _BMP_RUN_LENGTHS:
        raise NotAnImage("Run-length encoded BMP is not read here; send the image as PNG.")


def _count_scans(jpeg: bytes) -> int:
    """The scans of a JPEG's first image; what follows its end, such as a phone's video, is not looked at."""
    scans, position = 0, 2
    while found := _JPEG_MARKER.search(jpeg, position):
        marker = found[1][0]
        if marker == _JPEG_END:
            break
        scans += marker == _JPEG_SCAN
        position = found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2])
    return scans


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the image upright, by its EXIF; nothing when that is damaged, which says nothing about the pixels."""
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # 16-bit grey, which Pillow's own conversion clips at 255. A transparent level of it is not looked for.
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    # A conversion to the mode that an image has already is a copy, which for a large image is one too many.
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)
    return white
