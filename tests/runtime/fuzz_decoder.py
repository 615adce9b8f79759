"""Decode mutated files: `python tests/runtime/fuzz_decoder.py FOLDER... -runs=100000 -seed=1`.

The options are libFuzzer's. The program ends with a traceback and saves the file if the result is neither an image nor
an InputError.
"""

import sys

import atheris

with atheris.instrument_imports(include=["PIL", "litelens"]):
    from PIL import (  # noqa: F401
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        ImageCms,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    from litelens.core.errors import InputError
    from litelens.core.formats import FORMAT_NAMES, OPTIONAL_FORMATS
    from litelens.core.images import Limits, decode
    from litelens.core.preprocessing import Preprocessing

# Small, so that each run is fast, but large enough for every image in the corpus.
NAMES = {*FORMAT_NAMES, *(each.name for each in OPTIONAL_FORMATS)}
LIMITS = Limits(bytes=50_000, pixels=100_000, memory=1_000_000)
SPEC = Preprocessing(4, 4, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def try_to_decode(data: bytes) -> None:
    try:
        decode(data, LIMITS, SPEC).pixels(SPEC)
        image = decode(data, LIMITS)
    except InputError:
        return
    pixels = image.rgb.width * image.rgb.height
    if image.rgb.mode != "RGB" or image.format not in NAMES or pixels > LIMITS.pixels:
        raise AssertionError(f"{image.format} was decoded to {image.rgb.mode} of {image.rgb.size}")


if __name__ == "__main__":
    # Otherwise Pillow would load its plugins during the first run, while coverage is measured.
    Image.preinit()
    atheris.Setup(sys.argv, try_to_decode)
    atheris.Fuzz()
