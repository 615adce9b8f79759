"""Read the metadata in a .tflite file: labels, normalization, author and licence, and what `litelens export` adds.

The metadata are a flatbuffer in the model's metadata buffer TFLITE_METADATA; the files that they name, such as labels,
are a ZIP archive at the end of the file. The tables and the numbers of their fields are those of
https://github.com/tensorflow/tflite-support/blob/master/tensorflow_lite_support/metadata/metadata_schema.fbs
Everything is read within limits, because the file may be hostile.
"""

import struct
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Annotated, Any

import msgspec
from flatbuffers import number_types
from flatbuffers.table import Table
from msgspec import Meta, Struct

from litelens.core.preprocessing import Interpolation
from litelens_client.importing.errors import ImportRefused

NAME = b"TFLITE_METADATA"

# The file in which `litelens export` writes what the metadata cannot say.
FACTS = "litelens.json"

MAX_LABEL_BYTES = 1_000_000
_MAX_TEXT = 500
_MAX_ITEMS = 100
_MAX_CHANNELS = 16

_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2

_Share = Annotated[float, Meta(ge=0, le=1)]


class Facts(Struct, frozen=True):
    """The facts in the file FACTS of an exported bundle; those that the file lacks are None or empty.

    `thresholds` are those of each label of a multi-label model, and `groups` has each label's group.
    """

    crop: Annotated[float, Meta(gt=0, le=1)] | None = None
    interpolation: Interpolation | None = None
    threshold: _Share | None = None
    thresholds: dict[str, _Share] = {}
    groups: dict[str, str] = {}


class Metadata(Struct, frozen=True):
    """The metadata of a classifier; empty where the file says nothing.

    An input becomes `(value - mean) / std`, with values from 0 to 255 and one or three numbers each. `labels` is the
    content of the label file, of at most MAX_LABEL_BYTES bytes.
    """

    name: str = ""
    description: str = ""
    author: str = ""
    license: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    label_file: str = ""
    labels: bytes = b""
    facts: Facts = Facts()


def read_metadata(flatbuffer: bytes, file: bytes) -> Metadata:
    """Read the metadata in a flatbuffer, and the label file that they name from the archive at the end of the file.

    What is damaged is left out; raises ImportRefused if FACTS is there, but is not what `litelens export` writes.
    """
    facts = _read_facts(file)
    try:
        return msgspec.structs.replace(_read(flatbuffer, file), facts=facts)
    except (struct.error, TypeError, ValueError, IndexError, OverflowError):
        return Metadata(facts=facts)


def _read_facts(file: bytes) -> Facts:
    content = _read_member(file, FACTS)
    try:
        return msgspec.json.decode(content, type=Facts) if content else Facts()
    except (ValueError, RecursionError) as error:
        raise ImportRefused(
            f"{FACTS} in the model is not as litelens export writes it: {error}; export the model again"
        ) from error


def _read(flatbuffer: bytes, file: bytes) -> Metadata:
    buffer = bytearray(flatbuffer)
    model = _Fields(Table(buffer, struct.unpack_from("<I", buffer)[0]))
    graph = next(model.tables(3), None)
    inputs = next(graph.tables(2), None) if graph else None
    outputs = next(graph.tables(3), None) if graph else None
    mean, std = _normalization(inputs) if inputs else ((), ())
    label_file = _label_file(outputs) if outputs else ""
    return Metadata(
        name=model.text(0),
        description=model.text(1),
        author=model.text(4),
        license=model.text(5),
        mean=mean,
        std=std,
        label_file=label_file,
        labels=_read_member(file, label_file) if label_file else b"",
    )


def _normalization(tensor: "_Fields") -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.byte(0) == _NORMALIZATION_OPTIONS and options:
            return options.floats(0), options.floats(1)
    return (), ()


def _label_file(tensor: "_Fields") -> str:
    """Return the name of the first label file; those without a locale come first."""
    files = [(bool(file.text(3)), file.text(0)) for file in tensor.tables(6) if file.byte(2) == _TENSOR_AXIS_LABELS]
    return min(files, key=lambda file: file[0])[1] if files else ""


def _read_member(file: bytes, name: str) -> bytes:
    """Return the content of a file in the archive; empty if there is none, or if it is too large or encrypted."""
    try:
        with zipfile.ZipFile(BytesIO(file)) as archive, archive.open(name) as member:
            content = member.read(MAX_LABEL_BYTES + 1)
    # A damaged archive fails anywhere in zipfile and zlib.
    except Exception:
        return b""
    return content if len(content) <= MAX_LABEL_BYTES else b""


class _Fields:
    """The fields of a table by their number in the schema. Raises errors of any type if the table is damaged."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def byte(self, number: int) -> int:
        """Return a byte; 0 if it is absent."""
        at = self._at(number)
        return int(self._table.Get(number_types.Int8Flags, at)) if at else 0

    def text(self, number: int) -> str:
        """Return the first characters of a text; empty if it is absent or not UTF-8."""
        at = self._at(number)
        if not at:
            return ""
        start, length = self._content(at)
        return bytes(self._table.Bytes[start : start + min(length, 4 * _MAX_TEXT)]).decode(errors="ignore")[:_MAX_TEXT]

    def floats(self, number: int) -> tuple[float, ...]:
        """Return a vector of float32."""
        at = self._at(number)
        if not at:
            return ()
        start, length = self._content(at)
        return tuple(
            float(self._table.Get(number_types.Float32Flags, start + 4 * index))
            for index in range(min(length, _MAX_CHANNELS))
        )

    def table(self, number: int) -> "_Fields | None":
        """Return a table, also one in a union; None if it is absent."""
        at = self._at(number)
        return _Fields(Table(self._table.Bytes, self._table.Indirect(at))) if at else None

    def tables(self, number: int) -> Iterator["_Fields"]:
        """Yield the first tables of a vector."""
        at = self._at(number)
        if not at:
            return
        start, length = self._content(at)
        for index in range(min(length, _MAX_ITEMS)):
            yield _Fields(Table(self._table.Bytes, self._table.Indirect(start + 4 * index)))

    def _at(self, number: int) -> int:
        offset: int = self._table.Offset(4 + 2 * number)
        return offset + self._table.Pos if offset else 0

    def _content(self, at: int) -> tuple[int, int]:
        """Return the position and the length of a vector's or a text's content."""
        start: Any = self._table.Indirect(at)
        return int(start) + 4, int(self._table.Get(number_types.UOffsetTFlags, start))
