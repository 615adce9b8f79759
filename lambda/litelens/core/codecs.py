"""Decoders that may be missing: HEIC, the format of iPhones, and AVIF.

They are imported when the first such image arrives, so they cost other images and cold starts nothing.
"""

import importlib

from litelens.core.errors import NotAnImage
from litelens.core.formats import AVIF, HEIF, ImageFormat

# What to do about a format whose decoder is missing.
_ADVICE = {
    AVIF: "The image is AVIF, which Pillow was built without here. Export the image as JPEG.",
    HEIF: "The image is HEIC, which is switched off here. Export it as JPEG, or switch HEIC on: deploy with Heic=true, "
    "or install the package pi-heif.",
}


def load_codec(image_format: ImageFormat) -> None:
    """Import the decoder of an optional format; raises NotAnImage if it is not installed."""
    load = _LOADERS.get(image_format)
    if load is None:
        return
    try:
        load()
    except ImportError as error:
        raise NotAnImage(_ADVICE[image_format]) from error


def _load_avif() -> None:
    from PIL import AvifImagePlugin

    if not AvifImagePlugin.SUPPORTED:
        raise ImportError("Pillow was installed without its decoder of AVIF")
    # Each thread takes memory.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _load_heif() -> None:
    # The module is optional, and has no types.
    pi_heif = importlib.import_module("pi_heif")
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


_LOADERS = {AVIF: _load_avif, HEIF: _load_heif}
