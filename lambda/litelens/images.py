"""Decoding: from bytes that anyone may have sent to an upright RGB image."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

from litelens.errors import CorruptImage, ImageMissing, ImageTooLarge, NotAnImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# How each format's files begin; the dots of WebP and BMP stand for sizes.
_BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|BM....\0\0\0\0",
    re.DOTALL,
)

# Limits.pixels stands in for Pillow's own limit, which is process-wide and only warns at first.
Image.MAX_IMAGE_PIXELS = None


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

    Raises ImageMissing, ImageTooLarge, NotAnImage or CorruptImage.
    """
    if not data:
        raise ImageMissing("The image is empty.")
    if len(data) > limits.bytes:
        raise ImageTooLarge(f"The image has {len(data):,} bytes; at most {limits.bytes:,} are accepted.")
    if not _BEGINNINGS.match(data):
        raise NotAnImage(f"The bytes are not an image that is read here; send one of {', '.join(FORMATS)}.")
    with _decoding_errors():
        image = Image.open(BytesIO(data), formats=FORMATS)
    if image.width * image.height > limits.pixels:
        raise ImageTooLarge(
            f"The image has {image.width} x {image.height} pixels; at most {limits.pixels:,} are accepted."
        )
    image_format = "JPEG" if image.format == "MPO" else str(image.format)
    with _decoding_errors():
        image.load()
        return DecodedImage(_to_rgb(_upright(image)), image_format)


@contextmanager
def _decoding_errors() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        # Pillow's plugins raise whatever their parsers meet: OSError, SyntaxError, ValueError, struct.error and others.
        raise CorruptImage("The image is truncated or corrupt and cannot be decoded.") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # damaged EXIF says nothing about the pixels
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: Pillow's own conversion clips at 255.
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
