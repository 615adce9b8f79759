"""Examine the graph of a .tflite file: whether it is a photo classifier, and of which kind. No code of it runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from msgspec import Struct
from numpy.typing import NDArray

from litelens.core.bundle import FLOAT_BITS, Tensor, WeightBits
from litelens_client.importing.errors import ImportRefused
from litelens_client.learning.tflite import MAX_SEVEN_BIT_LEVEL, parse_model, read_array, read_tensor

MAX_OPERATORS = 10_000
MAX_TENSORS = 20_000
MAX_CLASSES = 100_000
MAX_SIDE = 4096
_MAX_NAMED = 3

_Builtin = schema.BuiltinOperator
_Type = schema.TensorType
_NAMES = {value: name for name, value in vars(_Builtin).items() if isinstance(value, int)}

_DETECTION = "TFLite_Detection_PostProcess"
_FLEX = "Flex"

# Operators with weights.
_WEIGHTED = (
    _Builtin.CONV_2D,
    _Builtin.DEPTHWISE_CONV_2D,
    _Builtin.FULLY_CONNECTED,
    _Builtin.TRANSPOSE_CONV,
    _Builtin.BATCH_MATMUL,
)
# Operators whose output has the values of their first input, perhaps with other shapes, types or roundings.
_SAME_VALUES = (_Builtin.RESHAPE, _Builtin.SQUEEZE, _Builtin.QUANTIZE, _Builtin.DEQUANTIZE, _Builtin.CAST)
_ARITHMETIC = (_Builtin.MUL, _Builtin.DIV, _Builtin.SUB, _Builtin.ADD)

# A factor below this, or a number above the other that is subtracted or divided by, is for values from 0 to 255.
_SMALL_FACTOR = 0.05
_LARGE_NUMBER = 2.0

_KINDS = {
    _Type.INT8: "int8",
    _Type.UINT8: "uint8",
    _Type.INT16: "int16 with int8 weights",
}


class Graph(Struct, frozen=True):
    """The facts about a photo classifier that its graph shows.

    `kind` is the network's: float32, float16 weights, dynamic range, uint8, int8 or int16 with int8 weights. `image` is
    the input, `(1, height, width, 3)`, and `logits` the output. `ends_in` is SOFTMAX or LOGISTIC if the model ends in
    that operator, else empty. With `takes_pixels`, the model itself normalizes values from 0 to 255.
    """

    kind: str
    weight_bits: WeightBits
    operators: int
    image: Tensor
    logits: Tensor
    input_name: str
    output_name: str
    ends_in: str
    takes_pixels: bool


def parse(content: bytes) -> Any:
    """Parse a .tflite file into the schema's objects; raises ImportRefused if it is damaged or too large.

    Damage can make the parser use any amount of memory and time, so the process that calls this must have limits.
    """
    try:
        _check_counts(content)
        return parse_model(content)
    except ImportRefused:
        raise
    # A damaged file fails anywhere in the parser, with errors of any type.
    except Exception as error:
        raise ImportRefused("the file is damaged or cut off: its tables cannot be read") from error


def examine(parsed: Any) -> Graph:
    """Return the facts about a photo classifier; raises ImportRefused if the model is something else or damaged."""
    try:
        return _examine(parsed)
    except ImportRefused:
        raise
    # The same as in parse(): tables of a damaged file can have any content.
    except Exception as error:
        raise ImportRefused("the file is damaged: its graph is not consistent") from error


def _check_counts(content: bytes) -> None:
    model = schema.Model.GetRootAs(content, 0)
    if model.SubgraphsLength() != 1:
        raise ImportRefused(
            f"the model has {model.SubgraphsLength():,} graphs instead of one; export a single graph without loops and "
            "branches"
        )
    graph = model.Subgraphs(0)
    if graph.OperatorsLength() > MAX_OPERATORS:
        raise ImportRefused(f"the model has {graph.OperatorsLength():,} operators; {MAX_OPERATORS:,} are allowed")
    for count in (graph.TensorsLength(), model.BuffersLength()):
        if count > MAX_TENSORS:
            raise ImportRefused(f"the model has {count:,} tensors; {MAX_TENSORS:,} are allowed")


def _examine(parsed: Any) -> Graph:
    (graph,) = parsed.subgraphs
    operators = [_Operator(parsed, operator) for operator in graph.operators]
    _refuse_custom(operators)
    inputs = [graph.tensors[index] for index in graph.inputs]
    outputs = [graph.tensors[index] for index in graph.outputs]
    _check_input(inputs)
    _check_output(outputs)
    kind = _kind(graph, operators)
    return Graph(
        kind=kind,
        weight_bits=_weight_bits(parsed, graph, operators) if kind in _KINDS.values() else FLOAT_BITS,
        operators=len(operators),
        image=_tensor(inputs[0], "input"),
        logits=_tensor(outputs[0], "output"),
        input_name=_text(inputs[0].name),
        output_name=_text(outputs[0].name),
        ends_in=_last_function(int(graph.outputs[0]), operators),
        takes_pixels=_takes_pixels(parsed, graph, operators),
    )


class _Operator:
    """An operator with its number in the schema and, if it is a custom one, its name."""

    def __init__(self, parsed: Any, operator: Any) -> None:
        code = parsed.operatorCodes[operator.opcodeIndex]
        self.code = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
        self.custom = _text(code.customCode) if self.code == _Builtin.CUSTOM else ""
        self.inputs = [int(index) for index in operator.inputs if index >= 0]
        self.outputs = [int(index) for index in operator.outputs]


def _refuse_custom(operators: Sequence[_Operator]) -> None:
    names = sorted({operator.custom or "without a name" for operator in operators if operator.code == _Builtin.CUSTOM})
    if _DETECTION in names:
        raise ImportRefused(
            f"the model is an object detector ({_DETECTION}): it finds boxes in a photo; litelens classifies photos"
        )
    flex = [name for name in names if name.startswith(_FLEX)]
    if flex:
        raise ImportRefused(
            f"the model needs operators of TensorFlow: {_list(flex)}; convert it again with TensorFlow Lite's own "
            "operators only (TFLITE_BUILTINS)"
        )
    if names:
        raise ImportRefused(f"the model has custom operators, whose code is not in its file: {_list(names)}")


def _check_input(inputs: Sequence[Any]) -> None:
    if len(inputs) != 1:
        raise ImportRefused(f"the model has {len(inputs):,} inputs; a photo classifier has one")
    shape = _shape(inputs[0])
    signature = inputs[0].shapeSignature
    dynamic = signature is not None and len(signature) > 0 and int(signature[0]) == -1
    if len(shape) == 4 and shape[1] == 3 and shape[3] != 3:
        raise ImportRefused(f"the model's input {shape} has the channels first; convert it to (1, height, width, 3)")
    if len(shape) != 4 or shape[3] != 3:
        raise ImportRefused(
            f"the model's input has the shape {shape}, as for {_guess_input(shape)}; a classifier of colour photos "
            "takes (1, height, width, 3)"
        )
    if shape[0] != 1 and not dynamic:
        raise ImportRefused(f"the model's input {shape} is a batch of {shape[0]}; convert the model for a batch of 1")
    sides = shape[1:3]
    fixed = signature is None or len(signature) != 4 or min(int(side) for side in signature[1:3]) > 0
    if not fixed or min(sides) < 1 or max(sides) > MAX_SIDE:
        raise ImportRefused(
            f"the model's input {shape} has no fixed size from 1 to {MAX_SIDE} pixels; convert it for one size"
        )


def _guess_input(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[3] == 1:
        return "grayscale images"
    return "several images or a video" if len(shape) > 4 else "audio, text or other numbers"


def _check_output(outputs: Sequence[Any]) -> None:
    shapes = [_shape(output) for output in outputs]
    listed = ", ".join(map(str, shapes[:_MAX_NAMED]))
    if len(shapes) == 4:
        raise ImportRefused(f"the model has 4 outputs ({listed}, ...), as an object detector; litelens classifies")
    if len(shapes) != 1:
        raise ImportRefused(f"the model has {len(shapes):,} outputs ({listed}); a photo classifier has one")
    (shape,) = shapes
    if len(shape) == 4 and shape[1] * shape[2] > 1:
        raise ImportRefused(
            f"the model's output has the shape {shape}: a value for each place in the photo, as of a segmentation "
            "model; litelens classifies whole photos"
        )
    if len(shape) != 2 or not 1 <= shape[1] <= MAX_CLASSES:
        raise ImportRefused(f"the model's output has the shape {shape}; a classifier gives scores, (1, classes)")


def _tensor(tensor: Any, what: str) -> Tensor:
    """Return an input or output for a batch of 1."""
    try:
        found = read_tensor(tensor)
    except ValueError as error:
        raise ImportRefused(f"the model's {what} cannot be used: {error}") from error
    return Tensor((1, *found.shape[1:]), found.scale, found.zero_point, found.dtype)


def _kind(graph: Any, operators: Sequence[_Operator]) -> str:
    producers = {output: operator for operator in operators for output in operator.outputs}
    found = set()
    for operator in operators:
        if operator.code not in _WEIGHTED:
            continue
        values, weights = (graph.tensors[index].type for index in operator.inputs[:2])
        if values in _KINDS:
            return _KINDS[values]
        producer = producers.get(operator.inputs[1])
        if producer and producer.code == _Builtin.DEQUANTIZE:
            weights = graph.tensors[producer.inputs[0]].type
        found.add(weights)
    if found & {_Type.INT8, _Type.UINT8, _Type.INT4}:
        return "dynamic range"
    return "float16 weights" if _Type.FLOAT16 in found else "float32"


def _weight_bits(parsed: Any, graph: Any, operators: Sequence[_Operator]) -> WeightBits:
    weights = [graph.tensors[operator.inputs[1]] for operator in operators if operator.code in _WEIGHTED]
    if any(tensor.type != _Type.INT8 for tensor in weights):
        return 8
    levels = [read_array(parsed, tensor, np.int8).astype(int) for tensor in weights]
    return 7 if max(np.abs(each).max(initial=0) for each in levels) <= MAX_SEVEN_BIT_LEVEL else 8


def _last_function(output: int, operators: Sequence[_Operator]) -> str:
    """Return SOFTMAX or LOGISTIC if that operator computes the output's values, else an empty text."""
    producers = {produced: operator for operator in operators for produced in operator.outputs}
    for _ in operators:
        operator = producers.get(output)
        if operator is None:
            return ""
        if operator.code in (_Builtin.SOFTMAX, _Builtin.LOGISTIC):
            return str(_NAMES[operator.code])
        if operator.code not in _SAME_VALUES:
            return ""
        output = operator.inputs[0]
    return ""


def _takes_pixels(parsed: Any, graph: Any, operators: Sequence[_Operator]) -> bool:
    """Return whether the first arithmetic on the input is that of values from 0 to 255: x * 0.0039, or x - 127.5."""
    current = int(graph.inputs[0])
    for _ in operators:
        operator = next((each for each in operators if current in each.inputs), None)
        if operator is None:
            return False
        if operator.code in _ARITHMETIC:
            others = [index for index in operator.inputs if index != current]
            return bool(others) and _is_for_pixels(operator.code, _constant(parsed, graph.tensors[others[0]]))
        if operator.code not in _SAME_VALUES:
            return False
        current = operator.outputs[0]
    return False


def _is_for_pixels(code: int, numbers: NDArray[np.float32]) -> bool:
    if not numbers.size:
        return False
    if code == _Builtin.MUL:
        return bool(np.abs(numbers).max() < _SMALL_FACTOR)
    if code == _Builtin.ADD:
        numbers = -numbers
    return bool(numbers.min() > _LARGE_NUMBER)


def _constant(parsed: Any, tensor: Any) -> NDArray[np.float32]:
    """Return the values of a float32 constant; empty if the tensor is something else."""
    data = parsed.buffers[tensor.buffer].data
    if tensor.type != _Type.FLOAT32 or data is None or not len(data):
        return np.zeros(0, np.float32)
    return np.frombuffer(bytes(data), np.float32)


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor.shape)


def _text(name: bytes | None) -> str:
    return (name or b"").decode(errors="replace")[:200]


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more
