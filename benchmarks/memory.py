"""What memory the deployed handler takes for a photo of 12 megapixels, and whether it grows over many requests.

Each process begins anew and answers requests that carry their image; its memory is as Linux tells it, in MB of a
million bytes. The many requests are with photos of several sizes and of all formats, some turned, some with
transparency, and one that cannot be read.
"""

import base64
import itertools
import multiprocessing
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import ExifTags, Image

from benchmarks import decoding
from benchmarks.bulk import Context
from benchmarks.photos import BUNDLE, SAMPLE

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# The requests after which memory is told.
STEPS = (100, 1_000, 10_000)
LARGE = (4000, 3000)


@dataclass(frozen=True)
class Photo:
    """An image to send, and the status of the answer to it."""

    content_type: str
    data: bytes
    status: int = 200


@dataclass(frozen=True)
class Memory:
    """The megabytes that a process has, and the most that it has had."""

    resident: float
    peak: float


@dataclass(frozen=True)
class Measured:
    """Memory after ten requests with the large photo, and after so many requests with photos of all kinds."""

    large: Memory
    after: Mapping[int, Memory]


def photos() -> list[Photo]:
    """The sample in several sizes and in all formats."""
    with Image.open(SAMPLE) as sample:
        rgb = sample.resize((500, 334))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    transparent = rgb.copy()
    transparent.putalpha(128)
    jpeg = _file(rgb, "JPEG", quality=90)
    return [
        Photo("image/jpeg", jpeg),
        Photo("image/jpeg", _file(rgb.resize((1224, 816)), "JPEG", quality=90, exif=turned)),
        Photo("image/jpeg", _file(rgb.resize((640, 427)), "JPEG", quality=90, progressive=True)),
        Photo("image/jpeg", _file(rgb.convert("L"), "JPEG")),
        Photo("image/png", _file(transparent, "PNG")),
        Photo("image/webp", _file(rgb.resize((300, 200)), "WEBP")),
        Photo("image/gif", _file(rgb.resize((100, 200)), "GIF")),
        Photo("image/bmp", _file(rgb.resize((32, 32)), "BMP")),
        Photo("image/jpeg", jpeg[: len(jpeg) // 2], status=422),
    ]


def _file(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def measure(steps: Sequence[int] = STEPS) -> Measured:
    """The figures, for Linux only; `steps` are numbers of requests, least first."""
    large = serve([Photo("image/jpeg", decoding.photo(*LARGE))], [10])
    return Measured(large[10], serve(photos(), steps))


def serve(sent: Sequence[Photo], steps: Sequence[int]) -> dict[int, Memory]:
    """The memory of a process of its own after so many requests with these photos in turn.

    Raises RuntimeError when the process ends before its time.
    """
    context = multiprocessing.get_context("spawn")
    answers, tell = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sent, steps, tell))
    process.start()
    # With its own end closed here, a process that has ended ends the pipe.
    tell.close()
    try:
        return {step: _next(answers, step) for step in steps}
    finally:
        process.kill()
        process.join()


def _next(answers: "Connection[None, Memory]", step: int) -> Memory:
    print(f"Measuring memory after {step:,} requests ...", file=sys.stderr)
    try:
        return answers.recv()
    except EOFError as error:
        raise RuntimeError("The process that answers requests ended before its time; see its errors above.") from error


def _work(sent: Sequence[Photo], steps: Sequence[int], tell: "Connection[Memory, None]") -> None:
    os.environ.update(LITELENS_BUNDLE=str(BUNDLE), POWERTOOLS_LOG_LEVEL="CRITICAL")
    # Metrics are lines on standard output.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    from handlers.api import handler

    requests = itertools.cycle([(_event(photo), photo.status) for photo in sent])
    for answered in range(1, max(steps) + 1):
        event, status = next(requests)
        answer = handler(event, Context())  # type: ignore[arg-type]
        if answer["statusCode"] != status:
            raise RuntimeError(f"A request was answered with {answer['statusCode']}: {answer['body']}")
        if answered in steps:
            tell.send(_memory())


def _event(photo: Photo) -> dict[str, Any]:
    return {
        "path": "/v1/classify",
        "httpMethod": "POST",
        "headers": {"Content-Type": photo.content_type},
        "multiValueHeaders": {"Content-Type": [photo.content_type]},
        "requestContext": {"requestId": "benchmark"},
        "body": base64.b64encode(photo.data).decode(),
        "isBase64Encoded": True,
    }


def _memory() -> Memory:
    status = Path("/proc/self/status").read_text()
    resident, peak = (int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return Memory(resident, peak)
