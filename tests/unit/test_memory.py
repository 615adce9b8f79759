"""The memory of a process that answers requests, as benchmarks/memory.py measures it for longer, or that decodes."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from support import ROOT, encoded

from benchmarks import decoding, memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory of a process")

MOST_MEGABYTES = 300

# Prints by how many bytes decoding raises the peak of the process's memory.
DECODER = """
import re, sys
from pathlib import Path
from litelens.images import Limits, decode

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

data = Path(sys.argv[1]).read_bytes()
before = peak()
decode(data, Limits())
print(peak() - before)
"""

# Freed blocks of memory are not given back at once, so that what is resident moves up and down by a few MB.
MOVES_BY_MEGABYTES = 4


def test_a_photo_of_12_megapixels_takes_less_than_300_mb() -> None:
    photo = memory.Photo("image/jpeg", decoding.photo(*memory.LARGE))
    found = memory.serve([photo], [3])
    assert 0 < found[3].resident <= found[3].peak < MOST_MEGABYTES


def test_memory_stays_as_it_is_over_many_requests() -> None:
    found = memory.serve(memory.photos(), [100, 500])
    assert found[500].resident < found[100].resident + MOVES_BY_MEGABYTES
    assert found[500].peak < found[100].peak + MOVES_BY_MEGABYTES
    assert found[500].peak < MOST_MEGABYTES


def test_a_process_that_ends_before_its_time_is_told() -> None:
    wrong = memory.Photo("image/jpeg", b"no image", status=200)
    with pytest.raises(RuntimeError, match="ended before its time"):
        memory.serve([wrong], [1])


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_decoding_and_turning_take_no_more_than_two_copies_beside_the_decoders(
    image_format: str, tmp_path: Path
) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    path = tmp_path / "photo"
    path.write_bytes(encoded(Image.new("RGBA", (4000, 3000)), image_format, exif=turned, lossless=True))
    command = [sys.executable, "-c", DECODER, path]
    printed = subprocess.run(command, cwd=ROOT / "lambda", check=True, capture_output=True, text=True).stdout
    told = 4000 * 3000 * {"PNG": 8, "WEBP": 17}[image_format]
    assert int(printed) < told + 10_000_000
