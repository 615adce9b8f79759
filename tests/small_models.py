"""Tiny .tflite classifiers of each kind, which tell red, green and blue photos apart, and files that only look alike.

The network is the mean of the input's pixels, `(1, 3)`, times a matrix, and a softmax.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

LABELS = ("red", "green", "blue")
KINDS = ("float32", "float16 weights", "dynamic range", "uint8", "int8")
SIDE = 16

_Builtin, _Type = schema.BuiltinOperator, schema.TensorType
_WEIGHTS = 4 * np.eye(3, dtype=np.float32)
_SCALE = 4 / 127
# The quantization of each integer type: the input's real values are from -1 to 1.
_INPUT, _LOGITS, _OUTPUT = 1 / 128, 8 / 128, 1 / 256
_ZERO = {_Type.INT8: 0, _Type.UINT8: 128}
_NUMPY = {_Type.INT8: np.int8, _Type.UINT8: np.uint8}


@dataclass(frozen=True)
class Spec:
    """The properties of a model. With a `batch` of -1, any number of images fits. With `pixels`, it normalizes them.

    A float model's matrix is multiplied by `gain`, and `bias` is added to each logit.
    """

    kind: str = "float32"
    softmax: bool = True
    logistic: bool = False
    names: tuple[str, str] = ("input", "scores")
    batch: int = 1
    pixels: bool = False
    classes: int = 3
    gain: float = 1.0
    bias: float = 0.0


class Builder:
    """Builds a model with a single graph."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs, self.graph.outputs = [], []
        self.model.subgraphs = [self.graph]
        self.model.operatorCodes, self.model.buffers, self.model.metadata = [], [schema.BufferT()], []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: int = _Type.FLOAT32,
        quantization: tuple[float, int] | None = None,
        constant: NDArray[Any] | None = None,
    ) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type = name.encode(), kind
        tensor.shape = np.array([max(side, 1) for side in shape], np.int32)
        if -1 in shape:
            tensor.shapeSignature = np.array(shape, np.int32)
        if quantization:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([quantization[0]], np.float32)
            tensor.quantization.zeroPoint = np.array([quantization[1]], np.int64)
        if constant is not None:
            tensor.buffer = self.buffer(constant.tobytes())
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def buffer(self, content: bytes) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def operator(
        self, code: int, inputs: Sequence[int], output: int, options: Any = None, custom: str | None = None
    ) -> None:
        number = schema.OperatorCodeT()
        number.builtinCode, number.deprecatedBuiltinCode, number.version = code, min(code, 127), 1
        if code == _Builtin.FULLY_CONNECTED:
            number.version = 4
        number.customCode = custom.encode() if custom else None
        self.model.operatorCodes.append(number)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operator)

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self.graph.inputs, self.graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        return self.pack()

    def pack(self) -> bytes:
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def small_model(kind: str = "float32", metadata: bytes | None = None, **changes: Any) -> bytes:
    """Return a model of one of KINDS; see Spec for the changes."""
    spec = Spec(kind, **changes)
    builder = Builder()
    integer = {"uint8": _Type.UINT8, "int8": _Type.INT8}.get(kind)
    image, values = _input(builder, spec, integer)
    logits = _dense(builder, values, spec, integer)
    output = _function(builder, logits, spec, integer) if spec.softmax or spec.logistic else logits
    builder.graph.tensors[output].name = spec.names[1].encode()
    if metadata is not None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = b"TFLITE_METADATA", builder.buffer(metadata)
        builder.model.metadata.append(entry)
    return builder.build([image], [output])


def other_model(
    inputs: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
    custom: str | None = None,
    output_type: int = _Type.FLOAT32,
) -> bytes:
    """Return a model with these inputs and outputs, whose operators cannot run."""
    builder = Builder()
    takes = [builder.tensor(f"in{at}", shape) for at, shape in enumerate(inputs)]
    gives = [builder.tensor(f"out{at}", shape, output_type) for at, shape in enumerate(outputs)]
    for output in gives:
        code = _Builtin.CUSTOM if custom else _Builtin.RESHAPE
        builder.operator(code, takes[:1], output, None if custom else schema.ReshapeOptionsT(), custom)
    return builder.build(takes, gives)


def with_files(model: bytes, **files: bytes) -> bytes:
    """Return the model with an archive of files behind it; _ in a name stands for a dot."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name, content in files.items():
            opened.writestr(name.replace("_", "."), content)
    return model + archive.getvalue()


def metadata_of(
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    label_file: str | None = None,
    author: str = "",
) -> bytes:
    """Return the metadata of a classifier, as the schema of TFLite metadata has them."""
    builder = flatbuffers.Builder(256)

    def table(fields: int, **values: tuple[str, int]) -> int:
        builder.StartObject(fields)
        for number, (kind, value) in values.items():
            at = int(number.removeprefix("f"))
            if kind == "offset":
                builder.PrependUOffsetTRelativeSlot(at, value, 0)
            else:
                builder.PrependInt8Slot(at, value, 0)
        return int(builder.EndObject())

    def vector(offsets: Sequence[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    units = 0
    if mean is not None and std is not None:
        numbers = [builder.CreateNumpyVector(np.array(each, np.float32)) for each in (mean, std)]
        options = table(2, f0=("offset", numbers[0]), f1=("offset", numbers[1]))
        units = vector([table(2, f0=("byte", 1), f1=("offset", options))])
    files = 0
    if label_file is not None:
        name = builder.CreateString(label_file)
        files = vector([table(4, f0=("offset", name), f2=("byte", 2))])
    inputs = vector([table(7, f4=("offset", units))])
    outputs = vector([table(7, f6=("offset", files))])
    graphs = vector([table(7, f2=("offset", inputs), f3=("offset", outputs))])
    written = builder.CreateString(author)
    builder.Finish(table(8, f3=("offset", graphs), f4=("offset", written)), file_identifier=b"M001")
    return bytes(builder.Output())


def _input(builder: Builder, spec: Spec, integer: int | None) -> tuple[int, int]:
    """Add the input and the mean of its pixels; return both."""
    kind = _Type.FLOAT32 if integer is None else integer
    quantization = None if integer is None else (_INPUT, _ZERO[integer])
    shape = (spec.batch, SIDE, SIDE, 3)
    image = values = builder.tensor(spec.names[0], shape, kind, quantization)
    if spec.pixels:
        for name, code, number in (("scaled", _Builtin.MUL, 1 / 127.5), ("moved", _Builtin.ADD, -1.0)):
            constant = builder.tensor(f"{name}_by", (1,), constant=np.array([number], np.float32))
            output = builder.tensor(name, shape)
            options = schema.MulOptionsT() if code == _Builtin.MUL else schema.AddOptionsT()
            builder.operator(code, (values, constant), output, options)
            values = output
    pool = schema.Pool2DOptionsT()
    pool.padding = schema.Padding.VALID
    pool.filterWidth = pool.filterHeight = pool.strideW = pool.strideH = SIDE
    pooled = builder.tensor("pooled", (spec.batch, 1, 1, 3), kind, quantization)
    builder.operator(_Builtin.AVERAGE_POOL_2D, (values,), pooled, pool)
    flat = builder.tensor("flat", (spec.batch, 3), kind, quantization)
    sides = builder.tensor("sides", (2,), _Type.INT32, constant=np.array([-1, 3], np.int32))
    builder.operator(_Builtin.RESHAPE, (pooled, sides), flat, schema.ReshapeOptionsT())
    return image, flat


def _dense(builder: Builder, values: int, spec: Spec, integer: int | None) -> int:
    """Add the matrix and return the logits."""
    matrix = np.resize(_WEIGHTS, (spec.classes, 3))
    shape, output_shape = matrix.shape, (spec.batch, spec.classes)
    levels = np.rint(matrix / _SCALE).astype(np.int8)
    inputs = [values]
    if integer is not None:
        zero = _ZERO[integer]
        constant = (levels.astype(int) + zero).astype(_NUMPY[integer])
        inputs.append(builder.tensor("weights", shape, integer, (_SCALE, zero), constant))
        bias = np.zeros(spec.classes, np.int32)
        inputs.append(builder.tensor("bias", bias.shape, _Type.INT32, (_INPUT * _SCALE, 0), bias))
        logits = builder.tensor("logits", output_shape, integer, (_LOGITS, zero))
    else:
        if spec.kind == "dynamic range":
            inputs.append(builder.tensor("weights", shape, _Type.INT8, (_SCALE, 0), levels))
        elif spec.kind == "float16 weights":
            half = builder.tensor("half", shape, _Type.FLOAT16, constant=matrix.astype(np.float16))
            inputs.append(builder.tensor("weights", shape))
            builder.operator(_Builtin.DEQUANTIZE, (half,), inputs[-1], schema.DequantizeOptionsT())
        else:
            inputs.append(builder.tensor("weights", shape, constant=matrix * np.float32(spec.gain)))
        bias = np.full(spec.classes, spec.bias, np.float32)
        inputs.append(builder.tensor("bias", bias.shape, constant=bias))
        logits = builder.tensor("logits", output_shape)
    builder.operator(_Builtin.FULLY_CONNECTED, inputs, logits, schema.FullyConnectedOptionsT())
    return logits


def _function(builder: Builder, logits: int, spec: Spec, integer: int | None) -> int:
    """Add the softmax or the sigmoid and return its output."""
    kind = _Type.FLOAT32 if integer is None else integer
    quantization = None if integer is None else (_OUTPUT, 0 if integer == _Type.UINT8 else -128)
    output = builder.tensor("scores", (spec.batch, spec.classes), kind, quantization)
    if spec.logistic:
        builder.operator(_Builtin.LOGISTIC, (logits,), output)
        return output
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    builder.operator(_Builtin.SOFTMAX, (logits,), output, options)
    return output
