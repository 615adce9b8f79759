"""How long a JPEG takes from its bytes to a model's input, and how far the input is from that of all its pixels.

The plain way is that of most evaluation code: Pillow's open, convert and resize, the shorter side to 256 pixels, then
the 224 in the centre. The photos are a sample enlarged, with noise, so that their files are as large as a camera's.
The two ways alternate in one run; the milliseconds hold for this machine, the ratios are what carries over.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photos import SAMPLE
from litelens.images import Limits, decode
from litelens.preprocessing import Preprocessing

SIZES = ((500, 375), (1632, 1224), (4000, 3000), (8000, 6000))
SPEC = Preprocessing(224, 224, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LIMITS = Limits(bytes=50_000_000)
REPETITIONS = 15

_SHORTER_SIDE = round(SPEC.height / SPEC.crop)

# In levels of 255, even between plus and minus this; at this quality it makes 3 MB of 12 megapixels.
_NOISE = 8
_QUALITY = 90

# A kind of decoding: the input's pixels from a file.
Way = Callable[[bytes], NDArray[np.uint8]]


@dataclass(frozen=True)
class Milliseconds:
    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Measured:
    """A photo's figures. `ratio` is litelens' median over the plain way's.

    Differences are in levels of 255, from the input that the same specification makes of all the photo's pixels.
    """

    width: int
    height: int
    file_bytes: int
    litelens: Milliseconds
    plain: Milliseconds
    ratio: float
    largest_difference: int
    mean_difference: float


def photo(width: int, height: int) -> bytes:
    """The sample as a JPEG of that size."""
    with Image.open(SAMPLE) as sample:
        enlarged = sample.resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(7).integers(-_NOISE, _NOISE + 1, (height, width, 1), dtype=np.int8)
    noisy = np.asarray(enlarged, np.int16) + noise
    file = BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def litelens_way(file: bytes) -> NDArray[np.uint8]:
    return decode(file, LIMITS, SPEC).pixels(SPEC)


def plain_way(file: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(file)) as image:
        rgb = image.convert("RGB")
    scale = _SHORTER_SIDE / min(rgb.size)
    resized = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BICUBIC)
    left, top = (resized.width - SPEC.width) // 2, (resized.height - SPEC.height) // 2
    return np.asarray(resized.crop((left, top, left + SPEC.width, top + SPEC.height)))


def measure(sizes: Sequence[tuple[int, int]] = SIZES, repetitions: int = REPETITIONS) -> list[Measured]:
    """The figures of a photo of each size (width, height)."""
    return [_measured(photo(width, height), width, height, repetitions) for width, height in sizes]


def _measured(file: bytes, width: int, height: int, repetitions: int) -> Measured:
    print(f"Measuring a photo of {width}x{height} pixels, {len(file):,} bytes ...", file=sys.stderr)
    difference = np.abs(litelens_way(file).astype(np.int16) - decode(file, LIMITS).pixels(SPEC))
    times = [(_milliseconds(litelens_way, file), _milliseconds(plain_way, file)) for _ in range(repetitions)]
    litelens, plain = (Milliseconds(statistics.median(each), min(each), max(each)) for each in zip(*times, strict=True))
    return Measured(
        width,
        height,
        len(file),
        litelens,
        plain,
        litelens.median / plain.median,
        int(difference.max()),
        float(difference.mean()),
    )


def _milliseconds(way: Way, file: bytes) -> float:
    started = time.perf_counter()
    way(file)
    return (time.perf_counter() - started) * 1000
