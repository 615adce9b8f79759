"""Prepare the graph of a float .tflite file for the quantizer, and check the result."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from litelens.core.bundle import LOGITS
from litelens_client.learning.tflite import GraphBuilder, parse_model, read_array, write_model

_Builtin, _Type = schema.BuiltinOperator, schema.TensorType
_RESHAPE_VERSION = 1
_INTEGERS = (_Type.INT8, _Type.INT32)


def prepare(model: bytes, *, is_binary: bool) -> tuple[bytes, bool]:
    """Return a float model with float32 weights that ends in logits, and whether a function at its end was removed.

    The function is a softmax, or the sigmoid of a binary model's only score. Eight bits are too few for probabilities.
    """
    parsed = parse_model(model)
    builder = GraphBuilder(parsed)
    _renew_operator_codes(parsed)
    _expand_float16(parsed, builder)
    _replace_squeezes(builder)
    is_removed = _remove_function(builder, _Builtin.LOGISTIC if is_binary else _Builtin.SOFTMAX)
    builder.remove_unused()
    return write_model(parsed), is_removed


def float_tensors(model: bytes) -> list[str]:
    """Return the names of the tensors of a .tflite file that are neither int8 nor int32."""
    (graph,) = parse_model(model).subgraphs
    return [tensor.name.decode(errors="replace") for tensor in graph.tensors if tensor.type not in _INTEGERS]


def _renew_operator_codes(parsed: Any) -> None:
    """Write the numbers of the operators where the quantizer reads them; old files have them in another field only."""
    for code in parsed.operatorCodes:
        code.builtinCode = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _remove_function(builder: GraphBuilder, function: int) -> bool:
    output = builder.output(LOGITS)
    operator = builder.producer(output)
    if builder.builtin_code(operator) != function or getattr(operator.builtinOptions, "beta", 1) != 1:
        return False
    scores = int(operator.inputs[0])
    if list(builder.graph.tensors[scores].shape) != list(builder.graph.tensors[output].shape):
        return False
    builder.keep_operators_before(scores)
    builder.set_outputs({LOGITS: scores})
    return True


def _expand_float16(parsed: Any, builder: GraphBuilder) -> None:
    """Replace weights of float16, which the model itself converts to float32, by weights of float32."""
    replaced: dict[int, int] = {}
    for operator in builder.graph.operators:
        if builder.builtin_code(operator) != _Builtin.DEQUANTIZE:
            continue
        source = builder.graph.tensors[int(operator.inputs[0])]
        if source.type == _Type.FLOAT16 and parsed.buffers[source.buffer].data is not None:
            values = read_array(parsed, source, np.float16).astype(np.float32)
            name = source.name.decode(errors="replace")
            replaced[int(operator.outputs[0])] = builder.add_constant(name, values, _Type.FLOAT32)
    builder.graph.operators = [
        _with_inputs(operator, replaced)
        for operator in builder.graph.operators
        if int(operator.outputs[0]) not in replaced
    ]


def _replace_squeezes(builder: GraphBuilder) -> None:
    """Replace each SQUEEZE, which the quantizer does not know, by a RESHAPE to the same shape."""
    operators = builder.graph.operators
    for position, operator in enumerate(list(operators)):
        if builder.builtin_code(operator) != _Builtin.SQUEEZE:
            continue
        output = int(operator.outputs[0])
        shape = np.array(builder.graph.tensors[output].shape, np.int32)
        sides = builder.add_constant("sides", shape, _Type.INT32)
        options = schema.ReshapeOptionsT()
        options.newShape = shape
        builder.add_operator(_Builtin.RESHAPE, _RESHAPE_VERSION, (int(operator.inputs[0]), sides), output, options)
        operators[position] = operators.pop()


def _with_inputs(operator: Any, replaced: Mapping[int, int]) -> Any:
    operator.inputs = np.array([replaced.get(int(index), int(index)) for index in operator.inputs], np.int32)
    return operator
