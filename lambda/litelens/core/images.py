"""Decode untrusted bytes to an upright RGB image, within limits of pixels, memory and time."""

import math
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile

from litelens.core.codecs import load_codec
from litelens.core.colour import Transform, transform_of
from litelens.core.completeness import refuse_incomplete
from litelens.core.errors import ImageMissing, ImageTooLarge, NotAnImage
from litelens.core.formats import AVIF, HEIF, OPTIONAL_FORMATS, WEBP, ImageFormat, format_of
from litelens.core.metadata import read_orientation, strip_metadata
from litelens.core.preprocessing import Preprocessing
from litelens.core.process_limits import TOO_MUCH_MEMORY, data_limit, data_size, pillow_limits
from litelens.core.stripped import StrippedImage
from litelens.core.unsupported import explain_unsupported

# The default maximum of pixels: those of a phone's camera of 50 megapixels.
MAX_PIXELS = 8192 * 6144

# The maximum side of a JPEG or GIF. A PNG or BMP could be one pixel wide and millions of pixels high.
_MAX_SIDE = 65_535

# The maximum number of pixels that all scans of a JPEG may decode together. Each scan of a progressive JPEG decodes all
# 8x8 blocks again. Ten scans are usual, but a file can contain thousands.
_MAX_SCANNED_PIXELS = 1_000_000_000

# The maximum size of a PNG's decompressed pixels, in bytes: 25 megapixels of RGB, or 18 with transparency. They take
# less than a second to decompress.
_MAX_PNG_BYTES = 75_000_000

# Bytes per pixel of Pillow's images by mode. All other modes take 4.
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2}
_RGB_BYTES = 4

# Bytes per pixel that decoders allocate in addition to Pillow's image, as measured. For WebP, they are two canvases and
# a copy of the frame; for the others, the planes of 10 bits without subsampling, and a copy of the image.
_DECODER_BYTES = {WEBP.name: 13, AVIF.name: 12, HEIF.name: 8}

# Bytes per coefficient. If the channels of a JPEG are in several scans, libjpeg keeps all coefficients until the last
# scan.
_COEFFICIENT_BYTES = 2

# The factors by which libjpeg can reduce a JPEG's width and height while it decodes.
_REDUCTIONS = (8, 4, 2)

# The minimum number of pixels of a reduced photo per pixel of the model's input, along each side. With 2, top-1
# accuracy fell by 0.7 points on 10,000 enlarged test images of CIFAR-100. With 2.5, it fell by 0.2 points on 5,000,
# which is within chance.
MIN_PIXELS_PER_INPUT_PIXEL = 2.5

# Pixels are converted to RGB in strips of this size, so that only one strip has an extra copy in memory.
_STRIP_PIXELS = 1_000_000

# The operation that makes an image upright, by EXIF orientation.
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
# The operations after which an edge that libjpeg rounds up, the right or the lower one, is at the left or at the top.
_PADDED_LEFT = {_UPRIGHT[orientation] for orientation in (2, 3, 6, 7)}
_PADDED_TOP = {_UPRIGHT[orientation] for orientation in (3, 4, 7, 8)}


# Decoding changes limits of the process, so threads decode one after the other.
_lock = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """The limits of accepted images. Pixels and memory are computed from the header, before any pixel is decoded.

    `bytes` is the size of the file. By default, base64 of it fits into the 6 MB of an event of Lambda. `memory` is the
    number of bytes that decoding may allocate in addition to the file. A JPEG that needs more is decoded at half its
    width and height, which takes a quarter of the memory. The default leaves enough memory for everything else in a
    function of 1,024 MB. When Linux enforces the limit, `spare` is added to `memory`: for copies of the file, for fixed
    allocations of the decoders, and for other threads.
    """

    bytes: int = 4_400_000
    pixels: int = MAX_PIXELS
    memory: int = 320_000_000
    spare: int = 32_000_000


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image: upright RGB, its format (ImageFormat.name), and the full size of the upright image in pixels.

    `rgb` is smaller than the full size if it was decoded at a reduced size. `photo_box` (left, top, right, bottom) is
    the part of `rgb` that the photo covers, in pixels of `rgb`: an eighth of 4001 pixels is 500.125, which libjpeg
    rounds up to 501. If there is a `transform`, the colours of `rgb` are not sRGB yet, and pixels() converts them.
    """

    rgb: Image.Image
    format: str
    width: int
    height: int
    photo_box: tuple[float, float, float, float]
    transform: Transform | None = None

    def pixels(self, spec: Preprocessing) -> NDArray[np.uint8]:
        """Crop and resize to the input's pixels, uint8 `(height, width, 3)`.

        `spec` must be the one that was passed to decode(). An image that was decoded without one works with any `spec`.
        """
        left, top, right, bottom = self.photo_box
        across, down = (right - left) / self.width, (bottom - top) / self.height
        crop = spec.crop_box(self.width, self.height)
        box = (left + crop[0] * across, top + crop[1] * down, left + crop[2] * across, top + crop[3] * down)
        pixels = spec.pixels(self.rgb, box)
        return pixels if self.transform is None else np.asarray(self.transform.apply(Image.fromarray(pixels)))


def decode(data: bytes, limits: Limits, spec: Preprocessing | None = None) -> DecodedImage:
    """Decode an image to upright sRGB, with transparency flattened on white; of an animation, only the first frame.

    With the `spec` of a model's input, a JPEG is decoded at a half, a quarter or an eighth of its width and height: the
    smallest size with at least 2.5 pixels per pixel of the input, along each side. DecodedImage.pixels then differs
    from the result at full size by at most 20 of 255 levels, by at most 2 on average over a photo, and by at most half
    a level on average over many photos. CMYK images without a profile are always decoded at full size, and so are all
    images if the interpolation is "nearest". A JPEG is also decoded at half its width and height if limits.memory
    requires it.

    Colours are converted to sRGB by the image's profile. With `spec`, DecodedImage.pixels converts only the input's
    pixels, which differ from those of a converted image by at most 60 of 255 levels, and by at most 3 on average over a
    photo.

    Raises ImageMissing, ImageTooLarge, NotAnImage or CorruptImage. Threads that call it wait for each other, because it
    changes limits of Pillow and of the process while it runs.
    """
    with _lock:
        return _decode(data, limits, spec)


def read_size(data: bytes, limits: Limits) -> tuple[int, int] | None:
    """Return the width and the height in pixels that the image's header says, before it is turned upright; None if it
    has none or exceeds the limits.

    Threads read one after the other, because this changes limits of Pillow and of the process while it runs.
    """
    image_format = format_of(data)
    if image_format is None:
        return None
    try:
        load_codec(image_format)
        with (
            _lock,
            pillow_limits(data, limits.pixels, limits.memory),
            _open(data, image_format, data_size() + limits.memory + limits.spare) as image,
        ):
            return image.size
    except Exception:
        # Pillow's plugins raise many kinds of errors.
        return None


def _decode(data: bytes, limits: Limits, spec: Preprocessing | None) -> DecodedImage:
    if not data:
        raise ImageMissing("The image is empty.")
    if len(data) > limits.bytes:
        raise ImageTooLarge(f"The image has {len(data):,} bytes; at most {limits.bytes:,} are accepted.")
    image_format = format_of(data)
    if image_format is None:
        raise NotAnImage(explain_unsupported(data))
    load_codec(image_format)
    stripped = strip_metadata(data, image_format)
    before = data_size()
    with pillow_limits(data, limits.pixels, limits.memory):
        image = _open(stripped.data, image_format, before + limits.spare + 2 * len(data))
        transpose = _UPRIGHT.get(read_orientation(stripped.exif or image.info.get("exif") or b""))
        width, height = image.size[::-1] if transpose in _SIDEWAYS else image.size
        _refuse_slow_image(image, stripped)
        # A GIF's first frame can be smaller than its canvas, which is transparent around it.
        frame = image.tile[0].extents if isinstance(image, GifImageFile) else None
        with data_limit(before + limits.memory + limits.spare):
            transform = transform_of(stripped.profile or image.info.get("icc_profile") or b"", image.mode)
            reduction = 1 if spec is None else _largest_reduction(image, spec, width, height, transform)
            reduction = _fit_into_memory(image, stripped, transpose is not None, reduction, limits)
            image.load()
            refuse_incomplete(image, stripped, reduction)
    # Each step assigns to the same name, so that the memory of the previous image is freed.
    if transform is not None and image.mode == "CMYK":
        image, transform = _convert(image, Image.new("RGB", image.size), transform), None
    image = _to_rgb(image, frame or (0, 0, *image.size))
    if transform is not None and spec is None:
        image, transform = _convert(image, image, transform), None
    if transpose is not None:
        image = image.transpose(transpose)
    photo_box = _photo_box(image, width / reduction, height / reduction, transpose)
    return DecodedImage(image, image_format.name, width, height, photo_box, transform)


def _open(data: bytes, image_format: ImageFormat, memory: int) -> Image.Image:
    """Read the header. Opening a HEIC or an AVIF may increase the process's data segment to `memory` bytes only.

    If opening took the memory that loading needs, the decoder could not start its thread, and would end the process.
    """
    with data_limit(memory) if image_format in OPTIONAL_FORMATS else nullcontext():
        return Image.open(BytesIO(data), formats=[image_format.name])


def _refuse_slow_image(image: Image.Image, stripped: StrippedImage) -> None:
    """Raise InputError if decoding would take far longer than is usual for an image of that size."""
    if max(image.size) > _MAX_SIDE:
        raise ImageTooLarge(f"The image is {max(image.size):,} pixels long; at most {_MAX_SIDE:,} are accepted.")
    blocks = math.ceil(image.width / 8) * math.ceil(image.height / 8)
    if stripped.scans > 1 and stripped.scans * blocks * 64 > _MAX_SCANNED_PIXELS:
        raise ImageTooLarge("The JPEG has more scans than an image of its size can need.")
    if image.width * image.height * stripped.pixel_bits > _MAX_PNG_BYTES * 8:
        raise ImageTooLarge(
            f"The PNG's pixels take more than {_MAX_PNG_BYTES:,} bytes. Send a smaller image, or a JPEG."
        )


def _largest_reduction(
    image: Image.Image, spec: Preprocessing, width: int, height: int, transform: Transform | None
) -> int:
    """Return the largest factor by which the sides can be reduced for this input; 1 if all pixels are needed.

    `width` and `height` are those of the upright image.
    """
    # "nearest" selects single pixels, and a reduction averages several. In CMYK, a reduction would average inks, which
    # does not give the average colour. With a profile it is done, because the conversion of all pixels takes seconds.
    if not isinstance(image, JpegImageFile) or spec.interpolation == "nearest":
        return 1
    if image.mode == "CMYK" and transform is None:
        return 1
    left, _, right, _ = spec.crop_box(width, height)
    pixels_per_input_pixel = (right - left) / spec.width
    enough = (number for number in _REDUCTIONS if pixels_per_input_pixel >= number * MIN_PIXELS_PER_INPUT_PIXEL)
    return next(enough, 1)


def _fit_into_memory(
    image: Image.Image, stripped: StrippedImage, is_transposed: bool, reduction: int, limits: Limits
) -> int:
    """Set the size at which a JPEG is decoded: reduced by `reduction`, or by 2 if the memory limit requires it.

    Returns the factor by which the sides are reduced. Raises ImageTooLarge if the image would still take too much
    memory. `is_transposed` is whether the image will be rotated or mirrored to make it upright.
    """
    decoder = _decoder_memory(image, stripped)
    if isinstance(image, JpegImageFile):
        if reduction == 1 and min(image.size) > 1 and _memory(image, decoder, is_transposed) > limits.memory:
            reduction = 2
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
    if _memory(image, decoder, is_transposed) > limits.memory:
        raise ImageTooLarge(TOO_MUCH_MEMORY.format(limits.memory))
    return reduction


def _decoder_memory(image: Image.Image, stripped: StrippedImage) -> int:
    """Return the bytes that the decoder allocates in addition to Pillow's image."""
    pixels = image.width * image.height
    if image.format in _DECODER_BYTES:
        return pixels * _DECODER_BYTES[image.format]
    if not isinstance(image, JpegImageFile):
        return 0
    if stripped.first_scan_channels == image.layers and "progressive" not in image.info:
        return 0
    samples = [across * down for _, across, down, _ in image.layer]
    widest = max(across for _, across, _, _ in image.layer) * max(down for _, _, down, _ in image.layer)
    return pixels * _COEFFICIENT_BYTES * sum(samples) // max(1, widest)


def _memory(image: Image.Image, decoder: int, is_transposed: bool) -> int:
    """Return the peak number of bytes in use: while decoding, converting to RGB, or making the image upright."""
    pixels = image.width * image.height
    own = pixels * _PIXEL_BYTES.get(image.mode, _RGB_BYTES)
    rgb = pixels * _RGB_BYTES
    return max(decoder + own, own if _is_plain_rgb(image) else own + rgb, 2 * rgb if is_transposed else rgb)


def _is_plain_rgb(image: Image.Image) -> bool:
    return image.mode == "RGB" and not image.has_transparency_data


def _to_rgb(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """Convert the frame of an image (left, top, right, bottom) to RGB, on a white canvas of the image's size."""
    if _is_plain_rgb(image):
        return image
    rgb = Image.new("RGB", image.size, "white")
    for strip in _strips(frame):
        _paste_flat(image.crop(strip), rgb, strip[:2])
    return rgb


def _convert(image: Image.Image, rgb: Image.Image, transform: Transform) -> Image.Image:
    """Convert the colours of an image to sRGB into `rgb`, which can be the same image; returns `rgb`."""
    for strip in _strips((0, 0, *image.size)):
        rgb.paste(transform.apply(image.crop(strip)), strip[:2])
    return rgb


def _strips(box: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Divide a box into boxes of whole rows with about _STRIP_PIXELS pixels."""
    left, top, right, bottom = box
    step = max(1, _STRIP_PIXELS // (right - left))
    for start in range(top, bottom, step):
        yield left, start, right, min(start + step, bottom)


def _photo_box(
    rgb: Image.Image, width: float, height: float, transpose: Image.Transpose | None
) -> tuple[float, float, float, float]:
    """Return the box of a photo of this size within an upright image whose size libjpeg rounded up to whole pixels."""
    left = rgb.width - width if transpose in _PADDED_LEFT else 0
    top = rgb.height - height if transpose in _PADDED_TOP else 0
    return (left, top, left + width, top + height)


def _paste_flat(strip: Image.Image, rgb: Image.Image, position: tuple[int, int]) -> None:
    if strip.mode.startswith("I"):
        # 16-bit grey. Pillow's own conversion would clip it at 255.
        levels = np.asarray(strip)
        grey = (levels >> 8).astype(np.uint8)
        if "transparency" in strip.info:
            grey[levels == strip.info["transparency"]] = 255
        strip = Image.fromarray(grey)
    if strip.has_transparency_data:
        rgba = strip if strip.mode == "RGBA" else strip.convert("RGBA")
        rgb.paste(rgba, position, mask=rgba)
    else:
        rgb.paste(strip, position)
