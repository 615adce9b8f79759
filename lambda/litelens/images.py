"""Decoding: from bytes that anyone may have sent to an upright RGB image."""

import itertools
import math
import mmap
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile

from litelens.errors import CorruptImage, ImageMissing, ImageTooLarge, InputError, NotAnImage
from litelens.files import Picture, orientation, picture_of
from litelens.preprocessing import Preprocessing

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# The longest side of a JPEG or GIF. PNG and BMP can be a pixel wide and millions high, which no photo is.
_LONGEST_SIDE = 65_535

# Each scan of a progressive JPEG goes over all its 8x8 blocks again; ten are usual, but a file can hold thousands.
_SCANNED_PIXELS = 1_000_000_000

# A PNG of so many bytes is unpacked in less than a second: 25 megapixels of RGB, 18 with transparency.
_PNG_BYTES = 75_000_000

# Pillow decodes run-length encoded BMP in Python loops. These are BI_RLE8 and BI_RLE4.
_BMP_RUN_LENGTHS = (1, 2)

# Bytes that Pillow takes for a pixel: 4 in all other modes, whatever their channels.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}
_RGB_BYTES = 4

# Bytes that libwebp takes for a pixel beside Pillow's, measured: two canvases, and the frame that is copied out.
_WEBP_BYTES = 13

# libjpeg keeps the coefficients of a JPEG whose channels come in several scans until the last one is read.
_COEFFICIENT_BYTES = 2

_TOO_MUCH_MEMORY = (
    "Decoding the image would take more than {:,} bytes of memory. Send a smaller image, or a baseline JPEG."
)

# What libjpeg can divide a JPEG's width and height by while it decodes.
_REDUCTIONS = (8, 4, 2)

# A reduced photo's pixels to one of the input, across and down. With only two, top-1 fell by 0.7 points on 10,000
# enlarged test images of CIFAR-100; with two and a half by 0.2 on 5,000, which is within chance.
_ENOUGH = 2.5

# Pixels that are converted at once, so that no more than these are held in a third form.
_STRIP_PIXELS = 1_000_000

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}
# By which the right and the lower edge, where libjpeg rounds up, become the left and the upper one.
_TO_LEFT = {_UPRIGHT[orientation] for orientation in (2, 3, 6, 7)}
_TO_TOP = {_UPRIGHT[orientation] for orientation in (3, 4, 7, 8)}


@dataclass(frozen=True)
class Limits:
    """The largest image accepted. Pixels and memory are told from the header, before anything is decoded.

    `memory` is in bytes: what decoding takes beside the file. A JPEG that would take more is decoded at half its width
    and height, which takes a quarter. The default leaves a function of 1,024 MB enough for all else. `spare` bytes
    are left beyond that to copies of the file, to what decoders take whatever the size, and to other threads.
    """

    bytes: int = 6_000_000
    pixels: int = 50_000_000
    memory: int = 320_000_000
    spare: int = 32_000_000


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image, the format that its bytes were in, one of FORMATS, and its size, in pixels, once upright.

    The RGB image is smaller than that when it was decoded at a reduced size. `part` (left, top, right, bottom) is what
    the photo takes of it, in its pixels: 501 of them hold the 500.125 that an eighth of 4001 is.
    """

    rgb: Image.Image
    format: str
    width: int
    height: int
    part: tuple[float, float, float, float]

    def pixels(self, spec: Preprocessing) -> NDArray[np.uint8]:
        """The model input's pixels, uint8 `(height, width, 3)`, by the specification that the image was decoded for.

        An image that was decoded for none has enough pixels for any.
        """
        left, top, right, bottom = self.part
        across, down = (right - left) / self.width, (bottom - top) / self.height
        used = spec.box(self.width, self.height)
        box = (left + used[0] * across, top + used[1] * down, left + used[2] * across, top + used[3] * down)
        return spec.pixels(self.rgb, box)


def decode(data: bytes, limits: Limits, spec: Preprocessing | None = None) -> DecodedImage:
    """The image in these bytes: upright, transparency flattened on white, the first frame of an animation.

    With the `spec` of a model's input, a JPEG is decoded at a half, a quarter or an eighth of its width and height,
    the least that leaves two and a half pixels, across and down, to one of the input. DecodedImage.pixels of a photo
    is then within 20 levels of 255 of what all its pixels would give, within 2 on average, and within half a level on
    average of many photos. CMYK, and the interpolation "nearest", take all pixels. A JPEG is also at half its width
    and height where limits.memory requires it.

    Raises ImageMissing, ImageTooLarge, NotAnImage or CorruptImage. Not safe for concurrent use.
    """
    if not data:
        raise ImageMissing("The image is empty.")
    if len(data) > limits.bytes:
        raise ImageTooLarge(f"The image has {len(data):,} bytes; at most {limits.bytes:,} are accepted.")
    picture = picture_of(data)
    if picture is None:
        raise NotAnImage(f"The bytes are not an image that is read here; send one of {', '.join(FORMATS)}.")
    before = _allocated()
    with _pillow(limits):
        image: Image.Image = Image.open(BytesIO(picture.data), formats=FORMATS)
        turn = _UPRIGHT.get(orientation(picture.exif or image.info.get("exif", b"")))
        width, height = image.size[::-1] if turn in _SIDEWAYS else image.size
        _refuse_endless_work(image, picture)
        reduction = 1 if spec is None else _reduction(image, spec, width, height)
        reduction = _fit_into_memory(image, picture, turn is not None, reduction, limits)
        # A GIF's first frame can be smaller than its canvas, which is transparent around it.
        frame = image.tile[0].extents if isinstance(image, GifImageFile) else None
        with _allocating_at_most(before + limits.memory + limits.spare):
            image.load()
        image_format = str(image.format)
    # By the same name, so that what was decoded is let go before the next copy is made.
    image = _to_rgb(image, frame or (0, 0, *image.size))
    if turn is not None:
        image = image.transpose(turn)
    part = _part(image, width / reduction, height / reduction, turn)
    return DecodedImage(image, image_format, width, height, part)


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
    except MemoryError as error:
        raise ImageTooLarge(_TOO_MUCH_MEMORY.format(limits.memory)) from error
    except InputError:
        raise
    except Exception as error:
        # Pillow's plugins raise whatever their parsers meet: OSError, SyntaxError, ValueError, struct.error and others.
        raise CorruptImage("The image is truncated or corrupt and cannot be decoded.") from error
    finally:
        Image.MAX_IMAGE_PIXELS = usual


def _allocated() -> int:
    """The bytes of data that the process has, used or not; 0 where only Linux would tell."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[5]) * mmap.PAGESIZE


@contextmanager
def _allocating_at_most(memory: int) -> Iterator[None]:
    """Have Linux refuse the process more data than so many bytes; other systems have no such limit.

    A lossless WebP of 300 kB can make libwebp build hundreds of MB of prefix codes, which no header tells. It then
    counts as corrupt.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    usual, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (memory if most == resource.RLIM_INFINITY else min(memory, most), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (usual, most))


def _refuse_endless_work(image: Image.Image, picture: Picture) -> None:
    """Refuse what takes Pillow far longer than its size tells."""
    if max(image.size) > _LONGEST_SIDE:
        raise ImageTooLarge(f"The image is {max(image.size):,} pixels long; at most {_LONGEST_SIDE:,} are accepted.")
    blocks = math.ceil(image.width / 8) * math.ceil(image.height / 8)
    if picture.scans > 1 and picture.scans * blocks * 64 > _SCANNED_PIXELS:
        raise ImageTooLarge("The JPEG has more scans than an image of its size can need.")
    if image.width * image.height * picture.pixel_bits > _PNG_BYTES * 8:
        raise ImageTooLarge(f"The PNG's pixels have more than {_PNG_BYTES:,} bytes. Send a smaller image, or a JPEG.")
    if image.format == "BMP" and image.info.get("compression") in _BMP_RUN_LENGTHS:
        raise NotAnImage("Run-length encoded BMP is not read here; send the image as PNG.")


def _reduction(image: Image.Image, spec: Preprocessing, width: int, height: int) -> int:
    """What the sides of an image of this size, once upright, may be divided by for the input; 1 for none."""
    # "nearest" chooses pixels that a reduction would have mixed, and a mixture of inks is not that of their colours.
    if not isinstance(image, JpegImageFile) or image.mode == "CMYK" or spec.interpolation == "nearest":
        return 1
    left, _, right, _ = spec.box(width, height)
    pixels_to_one = (right - left) / spec.width
    return next((reduction for reduction in _REDUCTIONS if pixels_to_one >= reduction * _ENOUGH), 1)


def _fit_into_memory(image: Image.Image, picture: Picture, turned: bool, reduction: int, limits: Limits) -> int:
    """Have a JPEG decoded at its sides divided by `reduction`, or at half of them where memory requires that.

    Returns what they are divided by. Refuses what would take too much memory all the same.
    """
    decoder = _decoder_memory(image, picture)
    if isinstance(image, JpegImageFile):
        if reduction == 1 and min(image.size) > 1 and _memory(image, decoder, turned) > limits.memory:
            reduction = 2
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
    if _memory(image, decoder, turned) > limits.memory:
        raise ImageTooLarge(_TOO_MUCH_MEMORY.format(limits.memory))
    return reduction


def _decoder_memory(image: Image.Image, picture: Picture) -> int:
    """The bytes that a decoder itself takes, beside the pixels that it fills."""
    pixels = image.width * image.height
    if image.format == "WEBP":
        return pixels * _WEBP_BYTES
    if not isinstance(image, JpegImageFile):
        return 0
    if picture.first_scan_channels == image.layers and "progressive" not in image.info:
        return 0
    samples = [across * down for _, across, down, _ in image.layer]
    widest = max(across for _, across, _, _ in image.layer) * max(down for _, _, down, _ in image.layer)
    return pixels * _COEFFICIENT_BYTES * sum(samples) // max(1, widest)


def _memory(image: Image.Image, decoder: int, turned: bool) -> int:
    """The most bytes taken at once: by decoding, then by conversion to RGB, then by turning."""
    pixels = image.width * image.height
    own = pixels * _PIXEL_BYTES.get(image.mode, _RGB_BYTES)
    rgb = pixels * _RGB_BYTES
    return max(decoder + own, own if _is_plain_rgb(image) else own + rgb, 2 * rgb if turned else rgb)


def _is_plain_rgb(image: Image.Image) -> bool:
    return image.mode == "RGB" and not image.has_transparency_data


def _to_rgb(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """The frame of the image as RGB, on white."""
    if _is_plain_rgb(image):
        return image
    rgb = Image.new("RGB", image.size, "white")
    left, top, right, bottom = frame
    for start, end in itertools.pairwise([*range(top, bottom, max(1, _STRIP_PIXELS // image.width)), bottom]):
        _paste_flat(image.crop((left, start, right, end)), rgb, (left, start))
    return rgb


def _part(
    rgb: Image.Image, width: float, height: float, turn: Image.Transpose | None
) -> tuple[float, float, float, float]:
    """Where a photo of this size lies in the image, which libjpeg may have made a fraction of a pixel larger."""
    left = rgb.width - width if turn in _TO_LEFT else 0
    top = rgb.height - height if turn in _TO_TOP else 0
    return (left, top, left + width, top + height)


def _paste_flat(strip: Image.Image, rgb: Image.Image, position: tuple[int, int]) -> None:
    if strip.mode.startswith("I"):
        # 16-bit grey, which Pillow's own conversion clips at 255. A transparent level of it is not looked for.
        strip = Image.fromarray((np.asarray(strip).clip(0, 65535) >> 8).astype(np.uint8))
    if strip.has_transparency_data:
        rgba = strip if strip.mode == "RGBA" else strip.convert("RGBA")
        rgb.paste(rgba, position, mask=rgba)
    else:
        rgb.paste(strip, position)
