"""Write the metadata of a .tflite file: the normalization of its input and the labels of its output.

The metadata are a flatbuffer in the model's metadata buffer TFLITE_METADATA; the files that they name are a ZIP archive
at the end of the file. MediaPipe Tasks and the TensorFlow Lite Task Library read both. The tables and the numbers of
their fields are those of
https://github.com/google-ai-edge/mediapipe/blob/master/mediapipe/tasks/metadata/metadata_schema.fbs
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from msgspec import Struct

from litelens_client.exporting.graph import CONFIDENCES, Normalization
from litelens_client.importing.metadata import FACTS, NAME
from litelens_client.learning.tflite import write_model

LABELS = "labels.txt"

_FILE_IDENTIFIER = b"M001"
# The version of the schema that is enough to read these metadata.
_MIN_PARSER_VERSION = "1.0.0"

# Numbers of the schema's enumerations and unions.
_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_NORMALIZATION_OPTIONS = 1
_RGB = 1


class Description(Struct, frozen=True):
    """The texts of the metadata; an empty one is left out."""

    name: str
    description: str
    version: str
    author: str = ""
    license: str = ""


def write_with_metadata(
    parsed: Any,
    description: Description,
    normalization: Normalization,
    labels: Sequence[str],
    facts: Mapping[str, Any],
) -> bytes:
    """Return the .tflite file of a parsed model with one input and one output, its metadata and the files in them.

    The files are LABELS, with a label on each line, and FACTS, a JSON object.
    """
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(_metadata(description, normalization), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(parsed.buffers)
    parsed.buffers.append(buffer)
    parsed.metadata = [*(parsed.metadata or []), entry]
    files = {LABELS: "".join(f"{label}\n" for label in labels), FACTS: json.dumps(facts, ensure_ascii=False, indent=2)}
    return _with_files(write_model(parsed), files)


def _with_files(model: bytes, files: Mapping[str, str]) -> bytes:
    """Return the model with an archive of the files behind it, whose offsets are those in the whole file."""
    content = io.BytesIO(model)
    # Not compressed, so that programs can read the files in place; without the time, so that exports are equal.
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


def _metadata(description: Description, normalization: Normalization) -> bytes:
    """Return the flatbuffer with the table ModelMetadata."""
    writer = _Writer()
    image = writer.tensor(
        "image",
        "A photo: RGB, upright, cropped and resized.",
        writer.table(3, {0: _IMAGE_PROPERTIES}, {1: writer.table(2, {0: _RGB}, {})}),
        units=[writer.normalization(normalization)],
    )
    labels = writer.file(LABELS, "The label of each confidence.", _TENSOR_AXIS_LABELS)
    scores = writer.tensor(
        CONFIDENCES,
        "The calibrated confidence of each label, from 0 to 1.",
        writer.table(3, {0: _FEATURE_PROPERTIES}, {1: writer.table(0, {}, {})}),
        files=[labels],
    )
    graph = writer.table(9, {}, {2: writer.vector([image]), 3: writer.vector([scores])})
    facts = writer.file(FACTS, "The crop, the interpolation, the threshold and other facts.", _DESCRIPTIONS)
    texts = {0: description.name, 1: description.description, 2: description.version}
    texts |= {4: description.author, 5: description.license, 7: _MIN_PARSER_VERSION}
    offsets = {number: writer.text(text) for number, text in texts.items() if text}
    return writer.finish(writer.table(8, {}, offsets | {3: writer.vector([graph]), 6: writer.vector([facts])}))


class _Writer:
    """Writes the tables of the metadata; each method returns the offset of what it has written."""

    def __init__(self) -> None:
        self._builder = Builder(1024)

    def text(self, text: str) -> int:
        return int(self._builder.CreateString(text))

    def vector(self, offsets: Sequence[int]) -> int:
        """Write a vector of tables."""
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def table(self, fields: int, numbers: Mapping[int, int], offsets: Mapping[int, int]) -> int:
        """Write a table of that many fields, some of which are bytes and some have offsets of others."""
        self._builder.StartObject(fields)
        for field, offset in offsets.items():
            self._builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        for field, number in numbers.items():
            self._builder.PrependInt8Slot(field, number, 0)
        return int(self._builder.EndObject())

    def normalization(self, normalization: Normalization) -> int:
        """Write a ProcessUnit with NormalizationOptions."""
        mean, std = (
            int(self._builder.CreateNumpyVector(np.array([number], np.float32)))
            for number in (normalization.mean, normalization.std)
        )
        options = self.table(2, {}, {0: mean, 1: std})
        return self.table(2, {0: _NORMALIZATION_OPTIONS}, {1: options})

    def file(self, name: str, description: str, kind: int) -> int:
        """Write an AssociatedFile."""
        offsets = {0: self.text(name), 1: self.text(description)}
        return self.table(5, {2: kind}, offsets)

    def tensor(
        self, name: str, description: str, content: int, units: Sequence[int] = (), files: Sequence[int] = ()
    ) -> int:
        """Write a TensorMetadata."""
        offsets = {0: self.text(name), 1: self.text(description), 3: content}
        if units:
            offsets[4] = self.vector(units)
        if files:
            offsets[6] = self.vector(files)
        return self.table(7, {}, offsets)

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, file_identifier=_FILE_IDENTIFIER)
        return bytes(self._builder.Output())
