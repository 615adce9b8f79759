"""Read label files: a label on each line, in the encodings and forms that exporters and editors write."""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from litelens_client.importing.errors import ImportRefused
from litelens_client.importing.metadata import MAX_LABEL_BYTES

MAX_LABEL = 200
BACKGROUND = "background"

# ImageNet's classes, which MobileNet and Inception models of TensorFlow extend by a background class.
_IMAGENET_CLASSES = 1000

_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# "0 Cat", as Teachable Machine writes it, "0: Cat" or "0,Cat".
_NUMBERED = re.compile(r"(\d{1,9})(?:\s*[:,]\s*|\s+)(.+)", re.ASCII)
# Control characters, parts of characters, line ends, and marks that reverse the text around them.
_FORBIDDEN_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class LabelFile:
    """The labels in a file, and whether its lines begin with numbers, which are not part of the labels."""

    labels: tuple[str, ...]
    numbered: bool


def parse_labels(content: bytes, source: str) -> LabelFile:
    """Parse a label file; `source` is its name in errors. Raises ImportRefused, with the number of the line.

    Numbers at the beginning of the lines are removed if they count the lines from 0. Blank lines at the end are
    ignored.
    """
    if len(content) > MAX_LABEL_BYTES:
        raise ImportRefused(f"{source} has more than {MAX_LABEL_BYTES:,} bytes, which is too much for labels")
    lines = [line.strip() for line in re.split(r"\r\n|\n|\r", _decode(content, source))]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ImportRefused(f"{source} has no labels")
    for number, line in enumerate(lines, start=1):
        check_label(line, f"line {number} of {source}")
    return _without_numbers(lines)


def fit_labels(labels: Sequence[str], classes: int, source: str) -> tuple[str, ...]:
    """Return the labels of a model with this number of classes; raises ImportRefused if there are more or fewer.

    1,001 classes with 1,000 labels get BACKGROUND in front: the model is one of TensorFlow's ImageNet models.
    """
    if (len(labels), classes) == (_IMAGENET_CLASSES, _IMAGENET_CLASSES + 1):
        return (BACKGROUND, *labels)
    if len(labels) != classes:
        is_short = classes == len(labels) + 1
        advice = "; perhaps the label of a background class, the first one, is missing" if is_short else ""
        raise ImportRefused(f"the model has {classes:,} classes, but {source} has {len(labels):,} labels{advice}")
    return tuple(labels)


def require_distinct(labels: Sequence[str], source: str) -> None:
    """Raise ImportRefused, with the label and its lines, if there is a label twice."""
    for label, count in Counter(labels).items():
        if count > 1:
            lines = [str(number) for number, each in enumerate(labels, start=1) if each == label]
            raise ImportRefused(
                f"{source} has the label '{label}' {count} times, on the lines {', '.join(lines)}; give each class a "
                "label of its own"
            )


def make_distinct(labels: Sequence[str]) -> tuple[str, ...]:
    """Return labels in which those that are there several times have their index after them: "crane (135)"."""
    counts = Counter(labels)
    return tuple(f"{label} ({index})" if counts[label] > 1 else label for index, label in enumerate(labels))


def _decode(content: bytes, source: str) -> str:
    encoding, start = "utf-8", 0
    for mark, name in _BOMS.items():
        if content.startswith(mark):
            encoding, start = name, len(mark)
            break
    else:
        if b"\0" in content:  # UTF-16 without a byte order mark; ASCII characters have a zero byte
            encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        return content[start:].decode(encoding)
    except UnicodeDecodeError as error:
        raise ImportRefused(f"{source} is not text in UTF-8 or UTF-16; save it as UTF-8") from error


def check_label(label: str, where: str) -> None:
    """Raise ImportRefused, with where the label is, if it is blank, too long, or has control characters."""
    if not label:
        raise ImportRefused(f"{where} is blank; each line must have the label of a class")
    if len(label) > MAX_LABEL:
        raise ImportRefused(f"{where} has {len(label):,} characters; a label may have {MAX_LABEL}")
    for character in label:
        if unicodedata.category(character) in _FORBIDDEN_CATEGORIES or character in _BIDIRECTIONAL:
            raise ImportRefused(f"{where} has the control character U+{ord(character):04X}; remove it")


def _without_numbers(lines: Sequence[str]) -> LabelFile:
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if all(match and int(match[1]) == index for index, match in enumerate(found)):
        return LabelFile(tuple(match[2] for match in found if match), numbered=True)
    return LabelFile(tuple(lines), numbered=False)
