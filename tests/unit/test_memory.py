"""The memory of a process that answers requests, as benchmarks/memory.py measures it for longer."""

import sys

import pytest

from benchmarks import decoding, memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the memory of a process")

MOST_MEGABYTES = 300

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
