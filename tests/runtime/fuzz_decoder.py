"""Feeds mutated files to the decoder: `python tests/runtime/fuzz_decoder.py FOLDER... -runs=100000 -seed=1`.

The options are libFuzzer's. Anything but an image or an InputError ends it with a traceback and the file that did it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["PIL", "litelens"]):
    from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

    from litelens.core.errors import InputError
    from litelens.core.formats import FORMAT_NAMES, Limits, decode
    from litelens.core.preprocessing import Preprocessing

# So small that no run takes long, yet with room for every kind of image in the corpus.
LIMITS = Limits(bytes=50_000, pixels=100_000, memory=1_000_000)
SPEC = Preprocessing(4, 4, crop=1.0, interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def try_to_decode(data: bytes) -> None:
    try:
        decode(data, LIMITS, SPEC).pixels(SPEC)
        image = decode(data, LIMITS)
    except InputError:
        return
    pixels = image.rgb.width * image.rgb.height
    if image.rgb.mode != "RGB" or image.format not in FORMAT_NAMES or pixels > LIMITS.pixels:
        raise AssertionError(f"{image.format} was decoded to {image.rgb.mode} of {image.rgb.size}")


if __name__ == "__main__":
    # Pillow opens its plugins when they are first needed, which must not be while they are counted.
    Image.preinit()
    atheris.Setup(sys.argv, try_to_decode)
    atheris.Fuzz()
