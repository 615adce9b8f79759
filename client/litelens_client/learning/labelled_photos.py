"""Photos with any number of labels: from class folders, where a photo can be in several, or from a table in CSV."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litelens.core.formats import SUFFIXES
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.photos import list_class_folders, list_files
from litelens_client.output import LABEL_SEPARATOR, counted, print_message

SUFFIX = ".csv"
MAX_BYTES = 100_000_000
MAX_LABEL = 200
MAX_LABELS = 10_000

# Excel writes semicolons or tabs in some languages, and can say so in a first line such as "sep=;".
_DELIMITERS = (",", ";", "\t")
_DELIMITER_LINE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
_LABEL_COLUMNS = ("label", "labels")
_CELLS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}


@dataclass(frozen=True)
class LabelledFiles:
    """Files with the indices of their labels, by split: `train`, and `validation` and `test` if they exist.

    `root` is the folder that contains them.
    """

    root: Path
    labels: tuple[str, ...]
    files: dict[str, dict[Path, frozenset[int]]]

    @property
    def paths(self) -> list[Path]:
        """The files of all splits."""
        return [path for files in self.files.values() for path in files]


@dataclass(frozen=True)
class LabelTable:
    """The labels of a table, and its photos with the indices of their labels, which can be none."""

    labels: tuple[str, ...]
    photos: dict[Path, frozenset[int]]


@dataclass(frozen=True)
class _Row:
    """A row of a table: where it is, such as `line 3 of labels.csv`, the photo, and its other cells."""

    where: str
    photo: Path
    cells: Sequence[str]


def list_labelled_photos(source: Path, labels: tuple[str, ...] = ()) -> LabelledFiles:
    """List the photos in a table, see read_label_table(), or in class folders, see photos.list_class_folders().

    If `labels` are given, there may be no others; upper and lower case do not matter in a table. The files of class
    folders are not merged yet: copies of a photo in several folders have a label each. Raises DatasetError.
    """
    if not is_label_table(source):
        listed = list_class_folders(source, labels)
        if not labels:
            _check_learnable(listed.labels, source)
        files = {split: {path: frozenset([at]) for path, at in found} for split, found in listed.files.items()}
        return LabelledFiles(source, listed.labels, files)
    table = read_label_table(source)
    _name_unlisted(source, table)
    if not labels:
        _check_learnable(table.labels, source)
        return LabelledFiles(source.parent, table.labels, {"train": table.photos})
    spelled = {label.casefold(): at for at, label in enumerate(labels)}
    known = {label: at for at, label in enumerate(labels)}
    indices = [known.get(label, spelled.get(label.casefold())) for label in table.labels]
    unknown = [label for label, at in zip(table.labels, indices, strict=True) if at is None]
    if unknown:
        raise DatasetError(f"{source} has the label {unknown[0]!r}, which is not one of the model's labels")
    photos = {
        path: frozenset(at for each in given if (at := indices[each]) is not None)
        for path, given in table.photos.items()
    }
    return LabelledFiles(source.parent, labels, {"train": photos})


def merge_copies(photos: Sequence[tuple[bytes, frozenset[int]]]) -> list[tuple[int, frozenset[int]]]:
    """Return the index of the first photo with each digest, and the labels of all photos with that digest."""
    merged: dict[bytes, tuple[int, frozenset[int]]] = {}
    for index, (digest, labels) in enumerate(photos):
        first, known = merged.get(digest, (index, frozenset()))
        merged[digest] = (first, known | labels)
    return list(merged.values())


def to_matrix(labels: Sequence[frozenset[int]], count: int) -> NDArray[np.bool_]:
    """Return bool `(n, count)`: whether each photo has each label."""
    matrix = np.zeros((len(labels), count), bool)
    for row, indices in zip(matrix, labels, strict=True):
        row[list(indices)] = True
    return matrix


def _name_unlisted(source: Path, table: LabelTable) -> None:
    """Say on standard error how many images in the table's folder are not in the table."""
    others = {path for path in list_files(source.parent) if path.suffix.lower() in SUFFIXES} - table.photos.keys()
    if others:
        print_message(f"{counted(len(others), 'image')} in {source.parent} not in {source.name} were not used.")


def is_label_table(path: Path) -> bool:
    """Return whether a path is that of a table instead of a folder."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def read_label_table(path: Path) -> LabelTable:
    """Read a table whose first column has the photos' paths, relative to the table's folder.

    With one other column, named `label` or `labels`, a cell has labels with semicolons between them; a photo can be in
    several rows. Otherwise, the other columns are named like labels and have 1 for each photo with the label, else 0.
    Raises DatasetError, naming the line, if the table is not such a one, if a photo does not exist, or if there are
    more than MAX_LABELS labels.
    """
    header, rows = _read(path)
    columns = [name.strip() for name in header[1:]]
    if [name.casefold() for name in columns] in ([name] for name in _LABEL_COLUMNS):
        found = _from_lists(rows)
    else:
        _check_columns(columns, path.name)
        found = _from_columns(rows, columns)
    if len(found.labels) > MAX_LABELS:
        raise DatasetError(f"{path} has {len(found.labels):,} labels; {MAX_LABELS:,} are allowed")
    if not found.photos:
        raise DatasetError(f"{path} has a header but no photos; add a row for each photo")
    return found


def _read(path: Path) -> tuple[list[str], Iterator[_Row]]:
    """Return the header and the rows that are not blank."""
    text = _text(path)
    named = _DELIMITER_LINE.match(text)
    text, delimiter = (text[named.end() :], named[1]) if named else (text, _delimiter(text))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = 1 if named else 0
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise _damaged(path, first + reader.line_num, error) from error
    if len(header) < 2:
        raise DatasetError(
            f"{path} is not a table of photos and labels: its first line needs a column for the photos and others for "
            "the labels, such as file,labels"
        )
    if header[0].strip() and _locate(header[0].strip(), path.parent):
        raise DatasetError(f"the first line of {path} names a photo; put a line above it, such as file,labels")

    def rows() -> Iterator[_Row]:
        try:
            for cells in reader:
                where = f"line {first + reader.line_num} of {path.name}"
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise DatasetError(f"{where} has {len(cells)} cells instead of {len(header)}, as the first line")
                yield _Row(where, _find(cells[0].strip(), path.parent, where), cells[1:])
        except csv.Error as error:
            raise _damaged(path, first + reader.line_num, error) from error

    return header, rows()


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise DatasetError(f"{path} has more than {MAX_BYTES:,} bytes, which is too much for a table of labels")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not text in UTF-8; save it as CSV UTF-8") from error


def _delimiter(text: str) -> str:
    first = text.splitlines()[0] if text.strip() else ""
    return next((delimiter for delimiter in _DELIMITERS if delimiter in first), _DELIMITERS[0])


def _damaged(path: Path, line: int, error: csv.Error) -> DatasetError:
    return DatasetError(f"line {line} of {path.name} is not CSV: {error}")


def _find(name: str, folder: Path, where: str) -> Path:
    """Return the path of a photo; raises DatasetError if it does not exist or is outside the folder."""
    if not name:
        raise DatasetError(f"{where} names no photo")
    path, root = _locate(name, folder), Path(os.path.abspath(folder))
    if not path:
        raise DatasetError(
            f"{where} names {name!r}, which does not exist in {folder}; paths begin in the table's folder"
        )
    if not path.is_relative_to(root):
        # An absolute path can lead through a link.
        path, root = path.resolve(), root.resolve()
    if not path.is_relative_to(root):
        raise DatasetError(f"{where} names {name!r}, which is outside {folder}; put the table into the photos' folder")
    return folder / path.relative_to(root)


def _locate(name: str, folder: Path) -> Path | None:
    """Return the absolute path of a file that a table in this folder names; None if it does not exist."""
    for written in (name, name.replace("\\", "/")):
        path = Path(os.path.abspath(folder / written))
        if path.is_file():
            return path
    return None


def _from_lists(rows: Iterator[_Row]) -> LabelTable:
    """Read rows whose only other cell has labels with semicolons between them."""
    named: dict[Path, set[str]] = {}
    for row in rows:
        given = {label for part in row.cells[0].split(LABEL_SEPARATOR) if (label := part.strip())}
        for label in given:
            _check_label(label, row.where)
        named.setdefault(row.photo, set()).update(given)
    labels = tuple(sorted(set().union(*named.values())))
    if named and not labels:
        raise DatasetError("the table has no labels: all cells of its second column are empty")
    indices = {label: at for at, label in enumerate(labels)}
    return LabelTable(labels, {path: frozenset(indices[label] for label in found) for path, found in named.items()})


def _from_columns(rows: Iterator[_Row], labels: Sequence[str]) -> LabelTable:
    """Read rows with a cell for each label."""
    found: dict[Path, frozenset[int]] = {}
    for row in rows:
        if row.photo in found:
            raise DatasetError(f"{row.where} names {row.photo.name!r} a second time; a photo has one row")
        for label, cell in zip(labels, row.cells, strict=True):
            if cell.strip().casefold() not in _CELLS:
                raise DatasetError(
                    f"{row.where} has {cell[:50]!r} for the label {label!r}; write 1 if the photo has it, else 0 "
                    "(or use two columns, file and labels)"
                )
        found[row.photo] = frozenset(at for at, cell in enumerate(row.cells) if _CELLS[cell.strip().casefold()])
    return LabelTable(tuple(labels), found)


def _check_columns(columns: Sequence[str], name: str) -> None:
    known: set[str] = set()
    for at, column in enumerate(columns, start=2):
        _check_label(column, f"column {at} in the first line of {name}")
        if column in known:
            raise DatasetError(f"the first line of {name} has the label {column!r} twice")
        known.add(column)


def _check_learnable(labels: Sequence[str], source: Path) -> None:
    """Raise DatasetError for labels that a table cannot tell apart, or that have the separator of labels in CSV."""
    spelled: dict[str, str] = {}
    for label in labels:
        if LABEL_SEPARATOR in label:
            raise DatasetError(f"{source} has the label {label!r}; a label cannot have the character {LABEL_SEPARATOR}")
        other = spelled.setdefault(label.casefold(), label)
        if other != label:
            raise DatasetError(f"{source} has the labels {other!r} and {label!r}; spell them the same, or rename one")


def _check_label(label: str, where: str) -> None:
    if not label:
        raise DatasetError(f"{where} has no label")
    if len(label) > MAX_LABEL or not label.isprintable():
        raise DatasetError(f"{where} has a label of more than {MAX_LABEL} characters, or with control characters")
