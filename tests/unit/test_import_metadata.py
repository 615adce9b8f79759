"""The metadata in a .tflite file, intact and damaged."""

import io
import zipfile

import numpy as np
import pytest
from small_models import metadata_of, small_model, with_files

from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.metadata import MAX_LABEL_BYTES, Facts, Metadata, read_metadata

FILE = with_files(small_model(), labels_txt=b"Cat\nDog\n")


def test_everything_is_read() -> None:
    flatbuffer = metadata_of(mean=[127.5, 100, 50], std=[1, 2, 3], label_file="labels.txt", author="Ada")
    assert read_metadata(flatbuffer, FILE) == Metadata(
        author="Ada", mean=(127.5, 100, 50), std=(1, 2, 3), label_file="labels.txt", labels=b"Cat\nDog\n"
    )


def test_everything_is_optional() -> None:
    assert read_metadata(metadata_of(), small_model()) == Metadata()


@pytest.mark.parametrize("name", ["other.txt", "../labels.txt", "/etc/passwd", "labels.txt/", "labels"])
def test_a_label_file_that_is_not_in_the_archive_is_absent(name: str) -> None:
    assert read_metadata(metadata_of(label_file=name), FILE).labels == b""


def test_a_label_file_that_unpacks_to_too_much_is_absent() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("labels.txt", b"\0" * (MAX_LABEL_BYTES + 1))
    assert len(archive.getvalue()) < 10_000
    assert read_metadata(metadata_of(label_file="labels.txt"), archive.getvalue()).labels == b""


def test_the_facts_of_an_exported_file_are_read() -> None:
    facts = (
        b'{"crop": 0.9, "interpolation": "lanczos", "thresholds": {"cat": 0.2}, "groups": {"cat": "animal"}, "x": 1}'
    )
    found = read_metadata(metadata_of(), with_files(small_model(), litelens_json=facts)).facts
    assert found == Facts(crop=0.9, interpolation="lanczos", thresholds={"cat": 0.2}, groups={"cat": "animal"})


@pytest.mark.parametrize(
    "facts",
    [
        b"{",
        b"[]",
        b"[" * 100_000,
        b'{"crop": 0}',
        b'{"crop": 1e999}',
        b'{"interpolation": "../../x"}',
        b'{"threshold": 2}',
        b'{"thresholds": {"cat": "high"}}',
        b'{"groups": ["cat"]}',
    ],
)
def test_facts_that_cannot_be_right_are_refused(facts: bytes) -> None:
    with pytest.raises(ImportRefused, match=r"litelens\.json"):
        read_metadata(metadata_of(), with_files(small_model(), litelens_json=facts))


def test_long_texts_are_cut() -> None:
    assert len(read_metadata(metadata_of(author="x" * 100_000), b"").author) == 500


def test_damaged_metadata_are_left_out() -> None:
    intact = metadata_of(mean=[127.5], std=[127.5], label_file="labels.txt", author="Ada")
    random = np.random.default_rng(5)
    for _ in range(3000):
        damaged = bytearray(intact[: random.integers(0, len(intact) + 1)] if random.random() < 0.2 else intact)
        for at in random.integers(0, max(len(damaged), 1), random.integers(1, 6)):
            if at < len(damaged):
                damaged[at] = random.choice([0, 1, 127, 128, 255, random.integers(256)])
        found = read_metadata(bytes(damaged), FILE)
        assert len(found.author) + len(found.name) + len(found.description) <= 1500
        assert len(found.labels) <= MAX_LABEL_BYTES


@pytest.mark.parametrize("flatbuffer", [b"", b"\0", b"\xff" * 64, b"\0" * 64])
def test_something_else_has_no_metadata(flatbuffer: bytes) -> None:
    assert read_metadata(flatbuffer, FILE) == Metadata()
