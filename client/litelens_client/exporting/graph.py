"""Change the graph of a bundle's model so that it takes float32 pixels and gives calibrated confidences."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from msgspec import Struct
from numpy.typing import NDArray

from litelens.core.bundle import FEATURES, IMAGE, LOGITS, Bundle, Tensor
from litelens.core.head import Head
from litelens.core.probabilities import lowest_probability, probability_limits
from litelens_client.learning.tflite import GraphBuilder, parse_model

# The name of the only output: the confidences that the API gives, float32 `(1, classes)`.
CONFIDENCES = "confidences"

_LEVELS = 255
_Builtin = schema.BuiltinOperator
# The versions of the operators: the oldest that take the types of the tensors.
_FLOAT = 1
_DEQUANTIZE = {"uint8": 1, "int8": 2}


class Normalization(Struct, frozen=True):
    """The values of the input: each pixel, from 0 to 255, becomes `(pixel - mean) / std`."""

    mean: float
    std: float


def standalone_graph(bundle: Bundle) -> tuple[Any, Normalization]:
    """Return a copy of the bundle's model, parsed, with input IMAGE and output CONFIDENCES, and its normalization.

    IMAGE is float32 `(1, height, width, 3)`. The head and the temperature are inside. A normalization that differs
    between the colours is inside too, because MediaPipe knows only one for all of them. Raises ValueError if the model
    has several graphs or signatures.
    """
    parsed = parse_model(bundle.model.read_bytes())
    builder = GraphBuilder(parsed)
    builder.set_outputs({CONFIDENCES: _add_confidences(builder, bundle)})
    normalization = _replace_input(builder, bundle)
    builder.remove_unused()
    return parsed, normalization


def _add_confidences(builder: GraphBuilder, bundle: Bundle) -> int:
    """Add the operators from the model's outputs to the confidences; return the index of their tensor."""
    if bundle.head:
        return _add_function(builder, bundle, _add_head(builder, bundle, bundle.head))
    output, tensor = builder.output(LOGITS), bundle.tensors[LOGITS]
    if bundle.temperature == 1 and tensor.is_float and not bundle.is_binary and _ends_in_function(builder, bundle):
        return output
    scores = _as_float(builder, output, tensor)
    if bundle.output == "probabilities":
        is_log_odds = bundle.is_multi_label or bundle.is_binary
        scores = (_add_log_odds if is_log_odds else _add_logarithm)(builder, scores, tensor)
    if bundle.is_binary:
        weights = np.array([[-0.5], [0.5]], np.float32)
        scores = _add_linear(builder, scores, Head(weights, np.zeros(2, np.float32)), bundle.temperature)
    elif bundle.temperature != 1:
        scores = _add_arithmetic(builder, _Builtin.MUL, "scaled_scores", scores, np.array([1 / bundle.temperature]))
    return _add_function(builder, bundle, scores)


def _ends_in_function(builder: GraphBuilder, bundle: Bundle) -> bool:
    """Return whether the model's output has the confidences already."""
    function = _Builtin.LOGISTIC if bundle.is_multi_label else _Builtin.SOFTMAX
    return bool(builder.builtin_code(builder.producer(builder.output(LOGITS))) == function)


def _add_head(builder: GraphBuilder, bundle: Bundle, head: Head) -> int:
    """Add the mean of the features over height and width, and the head; return the index of the scores."""
    features = builder.output(FEATURES)
    builder.keep_operators_before(features)
    values = _as_float(builder, features, bundle.tensors[FEATURES])
    axes = builder.add_constant("axes", np.array([1, 2], np.int32), schema.TensorType.INT32)
    pooled = builder.add_float("pooled", (1, head.weights.shape[1]))
    builder.add_operator(_Builtin.MEAN, _FLOAT, (values, axes), pooled, schema.ReducerOptionsT())
    return _add_linear(builder, pooled, head, bundle.temperature)


def _add_linear(builder: GraphBuilder, values: int, head: Head, temperature: float) -> int:
    """Add a linear layer whose scores are divided by the temperature; return the index of the scores."""
    weights = _add_floats(builder, "head_weights", head.weights / np.float32(temperature))
    bias = _add_floats(builder, "head_bias", head.bias / np.float32(temperature))
    scores = builder.add_float("scores", (1, len(head.bias)))
    options = schema.FullyConnectedOptionsT()
    builder.add_operator(_Builtin.FULLY_CONNECTED, _FLOAT, (values, weights, bias), scores, options)
    return scores


def _add_logarithm(builder: GraphBuilder, probabilities: int, tensor: Tensor) -> int:
    """Add the logarithm of probabilities, which are at least lowest_probability(), as in the classifier."""
    lowest = np.array([lowest_probability(tensor)], np.float32)
    positive = _add_arithmetic(builder, _Builtin.MAXIMUM, "positive_scores", probabilities, lowest)
    return _add_log(builder, "log_scores", positive)


def _add_log_odds(builder: GraphBuilder, probabilities: int, tensor: Tensor) -> int:
    """Add the logarithm of p / (1 - p), for p within probability_limits(), as in the classifier."""
    low, high = (np.array([limit]) for limit in probability_limits(tensor))
    raised = _add_arithmetic(builder, _Builtin.MAXIMUM, "raised_scores", probabilities, low)
    possible = _add_arithmetic(builder, _Builtin.MINIMUM, "possible_scores", raised, high)
    negative = _add_arithmetic(builder, _Builtin.MUL, "negative_scores", possible, np.array([-1.0]))
    others = _add_arithmetic(builder, _Builtin.ADD, "other_scores", negative, np.array([1.0]))
    odds = builder.add_float("log_odds", tensor.shape)
    logarithms = (_add_log(builder, "log_scores", possible), _add_log(builder, "log_other_scores", others))
    builder.add_operator(_Builtin.SUB, _FLOAT, logarithms, odds, schema.SubOptionsT())
    return odds


def _add_log(builder: GraphBuilder, name: str, values: int) -> int:
    logarithms = builder.add_float(name, _shape(builder, values))
    builder.add_operator(_Builtin.LOG, _FLOAT, (values,), logarithms)
    return logarithms


def _add_function(builder: GraphBuilder, bundle: Bundle, scores: int) -> int:
    """Add the softmax of the scores, or their sigmoid if a photo can have several labels."""
    confidences = builder.add_float(CONFIDENCES, _shape(builder, scores))
    if bundle.is_multi_label:
        builder.add_operator(_Builtin.LOGISTIC, _FLOAT, (scores,), confidences)
        return confidences
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    builder.add_operator(_Builtin.SOFTMAX, _FLOAT, (scores,), confidences, options)
    return confidences


def _replace_input(builder: GraphBuilder, bundle: Bundle) -> Normalization:
    """Make the input float32, and normalize the colours inside if they need different normalizations."""
    spec, tensor = bundle.preprocessing, bundle.tensors[IMAGE]
    (old,) = (int(index) for index in builder.graph.inputs)
    is_uniform = len(set(spec.mean)) == len(set(spec.std)) == 1
    normalization = Normalization(spec.mean[0] * _LEVELS, spec.std[0] * _LEVELS) if is_uniform else Normalization(0, 1)
    if is_uniform and tensor.is_float:
        return normalization
    builder.graph.tensors[old].name = b"normalized_image"
    image = values = builder.add_float(IMAGE, tensor.shape)
    count = len(builder.graph.operators)
    if not is_uniform:
        mean, std = np.array(spec.mean), np.array(spec.std)
        scaled = _add_arithmetic(builder, _Builtin.MUL, "scaled_image", values, 1 / (std * _LEVELS))
        values = _add_arithmetic(
            builder, _Builtin.ADD, "moved_image", scaled, -mean / std, output=old if tensor.is_float else None
        )
    if not tensor.is_float:
        _set_quantization(builder, old, tensor)
        builder.add_operator(_Builtin.QUANTIZE, _FLOAT, (values,), old, schema.QuantizeOptionsT())
    operators = builder.graph.operators
    builder.graph.operators = [*operators[count:], *operators[:count]]
    builder.set_input(IMAGE, image)
    return normalization


def _as_float(builder: GraphBuilder, index: int, tensor: Tensor) -> int:
    """Return the index of a tensor with the real values of a tensor of the model."""
    if tensor.is_float:
        return index
    _set_quantization(builder, index, tensor)
    values = builder.add_float("dequantized", tensor.shape)
    builder.add_operator(_Builtin.DEQUANTIZE, _DEQUANTIZE[tensor.dtype], (index,), values, schema.DequantizeOptionsT())
    return values


def _set_quantization(builder: GraphBuilder, index: int, tensor: Tensor) -> None:
    """Write the scale of an integer tensor into the graph; a uint8 tensor with the values of pixels may lack it."""
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.array([tensor.scale], np.float32)
    quantization.zeroPoint = np.array([tensor.zero_point], np.int64)
    builder.graph.tensors[index].quantization = quantization


_OPTIONS = {
    _Builtin.MUL: schema.MulOptionsT,
    _Builtin.ADD: schema.AddOptionsT,
    _Builtin.MAXIMUM: schema.MaximumMinimumOptionsT,
    _Builtin.MINIMUM: schema.MaximumMinimumOptionsT,
}


def _add_arithmetic(
    builder: GraphBuilder, code: int, name: str, values: int, constant: NDArray[Any], output: int | None = None
) -> int:
    """Add an operator on a tensor and a constant; return the index of its output, by default a new tensor."""
    other = _add_floats(builder, f"{name}_by", constant)
    if output is None:
        output = builder.add_float(name, _shape(builder, values))
    builder.add_operator(code, _FLOAT, (values, other), output, _OPTIONS[code]())
    return output


def _add_floats(builder: GraphBuilder, name: str, values: NDArray[Any]) -> int:
    return builder.add_constant(name, values.astype(np.float32), schema.TensorType.FLOAT32)


def _shape(builder: GraphBuilder, index: int) -> tuple[int, ...]:
    return tuple(int(side) for side in builder.graph.tensors[index].shape)
