"""Edit .tflite files: read weights, name tensors, replace the head, convert models of earlier versions of litelens.

The format is a flatbuffer: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/schema/schema.fbs
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from litelens.core.bundle import FEATURES, IMAGE, LOGITS, OLD_MAP, Tensor
from litelens.core.head import Head

# Seven-bit weights give the same answers with all engines; see quantizing.int8.reduce_to_seven_bits.
MAX_SEVEN_BIT_LEVEL = 64

# The data types that an input or output can have.
_TYPES: dict[int, Literal["int8", "uint8", "float32"]] = {
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.FLOAT32: "float32",
}

# The key of the signature of a model that has only one.
_SIGNATURE = b"serving_default"

# The versions of the operators for int8 tensors.
_INT8_MEAN, _INT8_FULLY_CONNECTED = 2, 12


def parse_model(model: bytes) -> Any:
    """Parse a .tflite file into the schema's objects."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(model))


def write_model(parsed: Any) -> bytes:
    """Return the .tflite file of the schema's objects."""
    for buffer in parsed.buffers:
        # Constants that were behind the flatbuffer are bytes, which the schema would write one by one.
        if isinstance(buffer.data, (bytes, bytearray)):
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))


def read_array(model: Any, tensor: Any, kind: type[np.generic]) -> NDArray[Any]:
    """Return the values of a constant tensor in its shape."""
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), kind).reshape(tensor.shape)


def channel_scales(tensor: Any) -> NDArray[np.float32]:
    """Return the scales of a tensor in a shape that can be multiplied with its levels."""
    shape = [1] * len(tensor.shape)
    scales = np.array(tensor.quantization.scale, np.float32)
    shape[tensor.quantization.quantizedDimension] = len(scales)
    return scales.reshape(shape)


def read_tensors(model: bytes) -> dict[str, Tensor]:
    """Read the input and outputs of a model, by their names in its signature; raises ValueError, see read_tensor()."""
    parsed = parse_model(model)
    (signature,), (graph,) = parsed.signatureDefs, parsed.subgraphs
    return {
        named.name.decode(): read_tensor(graph.tensors[named.tensorIndex])
        for named in (*signature.inputs, *signature.outputs)
    }


def read_tensor(tensor: Any) -> Tensor:
    """Read the shape, the data type and the quantization of an input or output.

    A uint8 tensor without quantization gets the range from 0 to 1, because it has the values of pixels. Raises
    ValueError for other data types, for another integer tensor without quantization, and for one with several scales.
    """
    shape = tuple(int(side) for side in tensor.shape)
    if tensor.type not in _TYPES:
        raise ValueError(f"it has the data type {type_name(tensor.type)}")
    dtype = _TYPES[tensor.type]
    if dtype == "float32":
        return Tensor(shape, dtype=dtype)
    scales = [] if tensor.quantization is None or tensor.quantization.scale is None else tensor.quantization.scale
    zero_points = tensor.quantization.zeroPoint if len(scales) else None
    if not len(scales) and dtype == "uint8":
        return Tensor(shape, 1 / 255, dtype=dtype)
    if len(scales) != 1:
        raise ValueError(f"it is {dtype} and has {len(scales)} scales instead of one")
    return Tensor(shape, float(scales[0]), int(zero_points[0]) if zero_points is not None else 0, dtype)


def type_name(number: int) -> str:
    """Return the name of a data type of the schema, such as INT64."""
    names = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    return str(names.get(number, number))


def name_tensors(parsed: Any) -> None:
    """Give the only input of a model the name IMAGE and its only output the name LOGITS, in a signature of their own.

    Their batch becomes 1.
    """
    (graph,) = parsed.subgraphs
    (image,), (logits,) = graph.inputs, graph.outputs
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
    signature.inputs, signature.outputs = [_named(IMAGE, image)], [_named(LOGITS, logits)]
    parsed.signatureDefs = [signature]
    for name, index in ((IMAGE, image), (LOGITS, logits)):
        tensor = graph.tensors[index]
        tensor.name, tensor.shape, tensor.shapeSignature = name.encode(), [1, *tensor.shape[1:]], None


def replace_head(model: bytes, head: Head, pooled: NDArray[np.float32]) -> bytes:
    """Return an int8 model with the same features and another head.

    The head's weights get seven bits. `pooled` are the pooled features of photos, float32 `(n, channels)`; they and
    their class scores give the ranges of the new tensors. Raises ValueError if the model has no output FEATURES.
    """
    parsed = parse_model(model)
    builder = GraphBuilder(parsed)
    features = builder.output(FEATURES)
    builder.keep_operators_before(features)
    mean = builder.add_mean(features, _range(pooled))
    scores = head.logits(pooled)
    logits = builder.add_linear(mean, head, _range(scores))
    builder.set_outputs({LOGITS: logits, FEATURES: features})
    builder.remove_unused()
    return write_model(parsed)


def convert_old_model(model: bytes) -> tuple[bytes, Head]:
    """Convert a model with a class activation map into one with features; return it and its head.

    Raises ValueError if the model has no class activation map that a single convolution computes.
    """
    parsed = parse_model(model)
    builder = GraphBuilder(parsed)
    operator = builder.producer(builder.output(OLD_MAP))
    image, kernel, bias = (builder.graph.tensors[index] for index in operator.inputs[:3])
    if list(kernel.shape[1:3]) != [1, 1]:
        raise ValueError("its class activation map is not the output of a 1x1 convolution")
    weights = read_array(parsed, kernel, np.int8) * channel_scales(kernel)
    scales = np.array(bias.quantization.scale, np.float32)
    head = Head(
        weights.reshape(len(weights), -1).astype(np.float32),
        (read_array(parsed, bias, np.int32) * scales).astype(np.float32),
    )
    builder.set_outputs({LOGITS: builder.output(LOGITS), FEATURES: operator.inputs[0]})
    image.name = FEATURES.encode()
    return write_model(parsed), head


class GraphBuilder:
    """Changes the only graph of a parsed model."""

    def __init__(self, model: Any) -> None:
        """Take the graph and the signature; raises ValueError if the model has more than one of them."""
        self._model = model
        (self.graph,) = model.subgraphs
        (self._signature,) = model.signatureDefs

    def output(self, name: str) -> int:
        """Return the index of the tensor of an output; raises ValueError if there is none of that name."""
        for output in self._signature.outputs:
            if output.name == name.encode():
                return int(output.tensorIndex)
        raise ValueError(f"it has no output {name}")

    def producer(self, tensor: int) -> Any:
        """Return the operator that computes a tensor."""
        return next(operator for operator in self.graph.operators if tensor in operator.outputs)

    def builtin_code(self, operator: Any) -> int:
        """Return the number of an operator in the schema's BuiltinOperator."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))

    def keep_operators_before(self, tensor: int) -> None:
        """Remove the operators that are not needed to compute a tensor."""
        needed, kept = {tensor}, []
        for operator in reversed(self.graph.operators):
            if needed.intersection(operator.outputs):
                needed.update(operator.inputs)
                kept.append(operator)
        self.graph.operators = kept[::-1]

    def add_mean(self, features: int, values: tuple[float, float]) -> int:
        """Add the mean of features over height and width; return the index of its output."""
        channels = int(self.graph.tensors[features].shape[3])
        axes = self.add_constant("axes", np.array([1, 2], np.int32), schema.TensorType.INT32)
        output = self._add_int8("pooled", (1, channels), _quantization(values))
        options = schema.ReducerOptionsT()
        options.keepDims = False
        self.add_operator(schema.BuiltinOperator.MEAN, _INT8_MEAN, (features, axes), output, options)
        return output

    def add_linear(self, pooled: int, head: Head, values: tuple[float, float]) -> int:
        """Add a fully connected layer with the head's weights; return the index of its output."""
        (input_scale,) = self.graph.tensors[pooled].quantization.scale
        scales = np.maximum(np.abs(head.weights).max(axis=1) / MAX_SEVEN_BIT_LEVEL, 1e-12).astype(np.float32)
        levels = np.rint(head.weights / scales[:, np.newaxis]).astype(np.int8)
        bias_scales = scales * np.float32(input_scale)
        bias_levels = np.rint(head.bias / bias_scales).clip(-(2**31) + 1, 2**31 - 1).astype(np.int32)
        weights = self.add_constant("head_weights", levels, schema.TensorType.INT8, scales)
        bias = self.add_constant("head_bias", bias_levels, schema.TensorType.INT32, bias_scales)
        output = self._add_int8(LOGITS, (1, len(head.bias)), _quantization(values))
        self.add_operator(
            schema.BuiltinOperator.FULLY_CONNECTED,
            _INT8_FULLY_CONNECTED,
            (pooled, weights, bias),
            output,
            schema.FullyConnectedOptionsT(),
        )
        return output

    def set_input(self, name: str, index: int) -> None:
        """Make this tensor the model's only input, under this name."""
        self.graph.inputs = np.array([index], np.int32)
        self._signature.inputs = [_named(name, index)]
        self.graph.tensors[index].name = name.encode()

    def set_outputs(self, outputs: dict[str, int]) -> None:
        """Make these tensors the model's only outputs, under these names, which OpenVINO reads from the tensors."""
        self.graph.outputs = np.array(list(outputs.values()), np.int32)
        self._signature.outputs = [_named(name, index) for name, index in outputs.items()]
        for name, index in outputs.items():
            self.graph.tensors[index].name = name.encode()

    def remove_unused(self) -> None:
        """Remove the tensors that no operator uses, and empty the buffers that no tensor uses."""
        used = {int(index) for operator in self.graph.operators for index in (*operator.inputs, *operator.outputs)}
        used |= {int(index) for index in (*self.graph.inputs, *self.graph.outputs)}
        used.discard(-1)  # an optional input that is absent
        numbers = {old: new for new, old in enumerate(sorted(used))} | {-1: -1}
        self.graph.tensors = [self.graph.tensors[index] for index in sorted(used)]
        for operator in self.graph.operators:
            operator.inputs = _renumber(operator.inputs, numbers)
            operator.outputs = _renumber(operator.outputs, numbers)
        self.graph.inputs = _renumber(self.graph.inputs, numbers)
        self.graph.outputs = _renumber(self.graph.outputs, numbers)
        for named in (*self._signature.inputs, *self._signature.outputs):
            named.tensorIndex = numbers[named.tensorIndex]
        empty_unused_buffers(self._model)

    def add_constant(self, name: str, array: NDArray[Any], kind: int, scales: NDArray[np.float32] | None = None) -> int:
        """Add a constant, with a scale for each index of its first side or none; return its index."""
        tensor = self._new_tensor(name, array.shape, kind)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        tensor.buffer = len(self._model.buffers) - 1
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales
            tensor.quantization.zeroPoint = np.zeros(len(scales), np.int64)
            tensor.quantization.quantizedDimension = 0
        return len(self.graph.tensors) - 1

    def add_float(self, name: str, shape: tuple[int, ...]) -> int:
        """Add a float32 tensor; return its index."""
        self._new_tensor(name, shape, schema.TensorType.FLOAT32)
        return len(self.graph.tensors) - 1

    def _add_int8(self, name: str, shape: tuple[int, ...], quantization: Tensor) -> int:
        tensor = self._new_tensor(name, shape, schema.TensorType.INT8)
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.array([quantization.scale], np.float32)
        tensor.quantization.zeroPoint = np.array([quantization.zero_point], np.int64)
        return len(self.graph.tensors) - 1

    def _new_tensor(self, name: str, shape: Iterable[int], kind: int) -> Any:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), np.array(list(shape), np.int32), kind
        self.graph.tensors.append(tensor)
        return tensor

    def add_operator(self, code: int, version: int, inputs: tuple[int, ...], output: int, options: Any = None) -> None:
        """Add an operator behind the others; `options` are an object of the schema, if the operator has some."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._opcode(code, version)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.graph.operators.append(operator)

    def _opcode(self, code: int, version: int) -> int:
        opcode = schema.OperatorCodeT()
        opcode.builtinCode, opcode.deprecatedBuiltinCode, opcode.version = code, min(code, 127), version
        self._model.operatorCodes.append(opcode)
        return len(self._model.operatorCodes) - 1


def _named(name: str, index: int) -> Any:
    """Return the entry of a tensor in a signature."""
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name.encode(), int(index)
    return named


def empty_unused_buffers(model: Any) -> None:
    """Remove the content of buffers that neither a tensor nor metadata uses."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {metadata.buffer for metadata in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None


def _renumber(indices: Iterable[int], numbers: dict[int, int]) -> NDArray[np.int32]:
    return np.array([numbers[int(index)] for index in indices], np.int32)


def _range(values: NDArray[np.float32]) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _quantization(values: tuple[float, float]) -> Tensor:
    """Return the int8 quantization of a range, which is extended to contain 0."""
    low, high = min(values[0], 0.0), max(values[1], 0.0)
    scale = max(high - low, 1e-6) / 255
    return Tensor((1,), scale, round(-128 - low / scale))
