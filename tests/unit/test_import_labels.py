"""Label files as exporters and editors write them, and what is wrong with others."""

import codecs

import pytest

from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.labels import (
    BACKGROUND,
    MAX_LABEL,
    LabelFile,
    fit_labels,
    make_distinct,
    parse_labels,
    require_distinct,
)

PLAIN = LabelFile(("Cat", "Dog"), numbered=False)
NUMBERED = LabelFile(("Cat", "Dog"), numbered=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Cat\nDog", PLAIN),
        (b"Cat\r\nDog\r\n", PLAIN),
        (b"Cat\rDog\r", PLAIN),
        (b"  Cat \nDog\t\n\n \n\n", PLAIN),
        (codecs.BOM_UTF8 + b"Cat\nDog\n", PLAIN),
        ("Cat\nDog\n".encode("utf-16"), PLAIN),
        ("Cat\nDog\n".encode("utf-16-le"), PLAIN),
        ("Cat\nDog\n".encode("utf-16-be"), PLAIN),
        (codecs.BOM_UTF16_BE + "Cat\r\nDog\r\n\r\n".encode("utf-16-be"), PLAIN),
        (b"0 Cat\n1 Dog\n", NUMBERED),
        (b"0: Cat\n1: Dog", NUMBERED),
        (b"0,Cat\n1,Dog", NUMBERED),
        (codecs.BOM_UTF8 + b"0 Cat\r\n1 Dog\r\n", NUMBERED),
        ("0 Cat\n1 Dog".encode("utf-16"), NUMBERED),
    ],
)
def test_labels_are_read_in_every_form(content: bytes, expected: LabelFile) -> None:
    assert parse_labels(content, "labels.txt") == expected


@pytest.mark.parametrize("lines", ["1 euro\n2 euro", "0\n1", "0 Cat\n2 Dog", "1 Cat\n2 Dog", "0 Cat\nDog"])
def test_numbers_that_do_not_count_the_lines_from_0_belong_to_the_labels(lines: str) -> None:
    found = parse_labels(lines.encode(), "labels.txt")
    assert found == LabelFile(tuple(lines.split("\n")), numbered=False)


def test_labels_keep_characters_of_all_scripts() -> None:
    labels = ("Süß & sauer", "猫", "\N{CAT FACE}", "كلب", "a, b; c")
    assert parse_labels("\n".join(labels).encode(), "labels.txt").labels == labels


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "labels.txt"),
        (b" \n\n", "labels.txt"),
        (b"Cat\n\nDog", "line 2"),
        (b"Cat\nDog\x1b[2J", r"line 2 .* U\+001B"),
        (b"Cat\x07\nDog", r"line 1 .* U\+0007"),
        ("Cat\nDog\u2028Cow".encode(), r"line 2 .* U\+2028"),
        ("Cat\n\u202egoD".encode(), r"line 2 .* U\+202E"),
        (b"Cat\n" + b"x" * (MAX_LABEL + 1), f"line 2 .* {MAX_LABEL + 1}"),
        (b"x" * 1_000_001, "1,000,000"),
        (b"Cat\xff\xfe\xfd\nDog", "labels.txt"),
        (b"\x89PNG\r\n\x1a\n\xff\xd8", "labels.txt"),
    ],
)
def test_a_file_that_has_no_usable_labels_is_refused(content: bytes, named: str) -> None:
    with pytest.raises(ImportRefused, match=named):
        parse_labels(content, "labels.txt")


def test_a_mismatch_says_what_was_expected_and_what_came() -> None:
    with pytest.raises(ImportRefused, match=r"3 .*labels.txt.* 2 "):
        fit_labels(("Cat", "Dog"), 3, "labels.txt")


def test_a_thousand_labels_of_1001_classes_get_a_background_class() -> None:
    labels = tuple(f"label {index}" for index in range(1000))
    assert fit_labels(labels, 1001, "labels.txt") == (BACKGROUND, *labels)
    with pytest.raises(ImportRefused):
        fit_labels(labels[:-1], 1000, "labels.txt")


def test_duplicate_labels_are_named_with_their_lines() -> None:
    with pytest.raises(ImportRefused, match=r"Cat.* 1, 3"):
        require_distinct(("Cat", "Dog", "Cat"), "labels.txt")


def test_labels_can_be_made_distinct_by_their_index() -> None:
    labels = make_distinct(("crane", "dog", "crane"))
    assert labels == ("crane (0)", "dog", "crane (2)")
    require_distinct(labels, "labels.txt")
