"""The memory of a process that answers requests, and of one that decodes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile
import pytest
from PIL import ExifTags, Image
from support import DEFAULT_BUNDLE, ROCKET, ROOT, encoded

from benchmarks.events import binary_request
from benchmarks.photos import sample
from litelens.core.images import Limits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the memory of a process in /proc")

MOST_MEGABYTES = 300

# Answers the events in a file in turn, and writes the resident and peak bytes after each number of requests.
SERVER = """
import itertools, json, os, re, sys
from pathlib import Path
from benchmarks.events import Context

os.environ.update(LITELENS_BUNDLE=sys.argv[1], POWERTOOLS_LOG_LEVEL="CRITICAL")
from litelens.api.handler import handler

events, steps, found = json.loads(Path(sys.argv[2]).read_text()), json.loads(sys.argv[3]), []
for number, (event, status) in enumerate(itertools.islice(itertools.cycle(events), max(steps)), start=1):
    answer = handler(event, Context())
    assert answer["statusCode"] == status, answer["body"]
    if number in steps:
        lines = Path("/proc/self/status").read_text()
        found.append([int(re.search(rf"{name}:\\s+(\\d+) kB", lines)[1]) * 1024 for name in ("VmRSS", "VmHWM")])
Path(sys.argv[2]).write_text(json.dumps(found))
"""

# Prints by how many bytes decoding raises the peak of the process's memory.
DECODER = """
import re, sys
from pathlib import Path
from litelens.core.images import Limits, decode

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

data = Path(sys.argv[1]).read_bytes()
before = peak()
decode(data, Limits())
print(peak() - before)
"""

# The allocator does not return freed blocks at once, so resident memory varies by a few MB.
TOLERANCE_MEGABYTES = 4


@dataclass(frozen=True)
class Memory:
    """The resident memory of a process and its peak, in megabytes."""

    resident: float
    peak: float


def serve(events: Sequence[tuple[dict[str, Any], int]], steps: Sequence[int], folder: Path) -> list[Memory]:
    """Answer the events in turn in a new process; return its memory after these numbers of requests."""
    path = folder / "events.json"
    path.write_text(json.dumps(events))
    command = [sys.executable, "-c", SERVER, DEFAULT_BUNDLE, path, json.dumps(steps)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [Memory(resident / 1e6, peak / 1e6) for resident, peak in json.loads(path.read_text())]


def requests_of_all_kinds() -> list[tuple[dict[str, Any], int]]:
    """Return requests with photos of several sizes and all formats, one damaged, and the statuses to expect."""
    with Image.open(ROCKET) as photo:
        rgb = photo.resize((500, 334))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    transparent = rgb.copy()
    transparent.putalpha(128)
    jpeg = encoded(rgb, "JPEG", quality=90)
    photos = [
        ("image/jpeg", jpeg, 200),
        ("image/jpeg", encoded(rgb.resize((1224, 816)), "JPEG", quality=90, exif=turned), 200),
        ("image/jpeg", encoded(rgb.resize((640, 427)), "JPEG", quality=90, progressive=True), 200),
        ("image/jpeg", encoded(rgb.convert("L"), "JPEG"), 200),
        ("image/png", encoded(transparent, "PNG"), 200),
        ("image/webp", encoded(rgb.resize((300, 200)), "WEBP"), 200),
        ("image/gif", encoded(rgb.resize((100, 200)), "GIF"), 200),
        ("image/bmp", encoded(rgb.resize((32, 32)), "BMP"), 200),
        ("image/jpeg", jpeg[: len(jpeg) // 2], 422),
    ]
    return [(binary_request(photo, content_type), status) for content_type, photo, status in photos]


def test_a_photo_of_12_megapixels_takes_less_than_300_mb(tmp_path: Path) -> None:
    (memory,) = serve([(binary_request(sample(4000, 3000)), 200)], [3], tmp_path)
    assert 0 < memory.resident <= memory.peak < MOST_MEGABYTES


def test_memory_does_not_grow_over_many_requests(tmp_path: Path) -> None:
    earlier, later = serve(requests_of_all_kinds(), [100, 500], tmp_path)
    assert later.resident < earlier.resident + TOLERANCE_MEGABYTES
    assert later.peak < earlier.peak + TOLERANCE_MEGABYTES
    assert later.peak < MOST_MEGABYTES


# The images within the default limits that take most memory, by kind. Those in other colours are converted.
LARGEST = [
    *("JPEG largest", "JPEG largest and turned", "JPEG largest CMYK", "JPEG largest progressive at full size"),
    *("JPEG large progressive without subsampling", "JPEG largest progressive CMYK", "JPEG large with channels apart"),
    *("JPEG most inks", "JPEG largest profile", "PNG largest", "PNG largest grey", "PNG largest transparent palette"),
    *("PNG largest with a colour key", "PNG largest transparent", "PNG largest with a gamma", "WEBP largest"),
    *("WEBP largest transparent lossless", "GIF largest transparent", "BMP largest bit fields"),
]


@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_images_are_decoded_within_the_limit_of_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "photo"
    path.write_bytes(hostile.MAKERS[name]())
    assert peak_growth(path) < Limits().memory + Limits().spare


def peak_growth(path: Path) -> int:
    """Return by how many bytes decoding the file raises the peak of a process's memory."""
    command = [sys.executable, "-c", DECODER, path]
    done = subprocess.run(command, cwd=ROOT / "lambda", check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_decoding_and_turning_need_at_most_two_copies_besides_the_decoders_memory(
    image_format: str, tmp_path: Path
) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    path = tmp_path / "photo"
    path.write_bytes(encoded(Image.new("RGBA", (4000, 3000)), image_format, exif=turned, lossless=True))
    expected = 4000 * 3000 * {"PNG": 8, "WEBP": 17}[image_format]
    assert peak_growth(path) < expected + 10_000_000
