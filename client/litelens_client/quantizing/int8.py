"""Quantize a float .tflite file to int8 with litert-quantizer, and its weights to seven bits. Needs no TensorFlow."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from litelens.core.bundle import FLOAT_BITS, IMAGE, WeightBits
from litelens.core.native_logs import hide_native_logs
from litelens_client.learning.tflite import (
    MAX_SEVEN_BIT_LEVEL,
    channel_scales,
    empty_unused_buffers,
    parse_model,
    read_array,
    write_model,
)

_WEIGHTED = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
}


def convert_with_litert_quantizer(float_model: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Convert a float .tflite file into an 8-bit one with litert-quantizer's recipe static_wi8_ai8.

    `inputs` are values of the model's only input, IMAGE, float32 `(n, height, width, 3)`. Ranges are the extreme
    values, as with TFLiteConverter. litert-quantizer's default, a moving average over the images, would cut off the
    highest logits, which matter most.
    """
    from litert_quantizer import quantizer, recipe
    from litert_quantizer.calibrator import CalibrationMode, Calibrator
    from litert_quantizer.recipe_manager import RecipeManager
    from litert_quantizer.utils.qsv_utils import min_max_update

    (signature,) = Interpreter(model_content=float_model).get_signature_list()
    recipes = RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    with _hide_progress_bars(), hide_native_logs():
        calibrator = Calibrator(
            float_model,
            num_threads=os.cpu_count() or 1,
            mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
            qsv_update_func=min_max_update,
        )
        calibrator.calibrate({signature: [{IMAGE: values[np.newaxis]} for values in inputs]}, recipes)
        result = quantizer.Quantizer(float_model, recipe.static_wi8_ai8()).quantize(
            calibrator.get_model_qsvs(), enable_progress_report=False
        )
    return bytes(result.quantized_model)


def reduce_to_seven_bits(model: bytes, float_model: bytes) -> bytes:
    """Quantize the weights of convolutions and dense layers in an 8-bit .tflite file to -64 to 64 instead.

    On CPUs without instructions that sum 8-bit products in 32 bits (such as AVX-512 VNNI), OpenVINO and ONNX Runtime
    sum two products of an activation (0 to 255) and a weight in 16 bits, which can saturate. Seven-bit weights cannot
    saturate, because 2 * 255 * 64 is below 2**15, so that all engines give the same answers.

    The weights are taken from `float_model`, from which `model` was converted: halving 8-bit weights would round twice.
    Their scales are doubled, and so are those of the biases, which remain the input's scale times the weights' scale.
    Raises ValueError if `float_model` has other weights.
    """
    quantized = parse_model(model)
    originals = _read_float_weights(parse_model(float_model))
    for graph in quantized.subgraphs:
        weights, biases = _find_weights_and_biases(quantized, graph)
        for tensor in weights:
            _set_levels(quantized, tensor, _requantize(tensor, read_array(quantized, tensor, np.int8), originals))
        for tensor in biases:
            _set_levels(quantized, tensor, np.rint(read_array(quantized, tensor, np.int32) / 2).astype(np.int32))
        for tensor in (*weights, *biases):
            tensor.quantization.scale = [2 * scale for scale in tensor.quantization.scale]
    empty_unused_buffers(quantized)
    return write_model(quantized)


def count_weight_bits(model: bytes) -> WeightBits:
    """Return the bits of the weights of convolutions and dense layers in a .tflite file; FLOAT_BITS if it has floats.

    A model has floats if its inputs are floats.
    """
    parsed = parse_model(model)
    if any(
        parsed.subgraphs[0].tensors[index].type == schema.TensorType.FLOAT32 for index in parsed.subgraphs[0].inputs
    ):
        return FLOAT_BITS
    weights = [tensor for graph in parsed.subgraphs for tensor in _find_weights_and_biases(parsed, graph)[0]]
    largest = max(
        (np.abs(read_array(parsed, tensor, np.int8).astype(int)).max(initial=0) for tensor in weights), default=0
    )
    return 7 if largest <= MAX_SEVEN_BIT_LEVEL else 8


def convert_for_openvino(model: bytes) -> bytes:
    """Rewrite a .tflite file so that OpenVINO can read it.

    Constants move into the flatbuffer; litert-quantizer puts them behind it. Input and output tensors get their names
    from the signature, which OpenVINO does not read.
    """
    parsed = parse_model(model)
    (signature,), (graph,) = parsed.signatureDefs, parsed.subgraphs
    for named in (*signature.inputs, *signature.outputs):
        graph.tensors[named.tensorIndex].name = named.name
    return write_model(parsed)


def _requantize(tensor: Any, levels: NDArray[np.int8], originals: list[NDArray[np.float32]]) -> NDArray[np.int8]:
    scales = channel_scales(tensor)
    for original in originals:
        # Rounding changes a weight by up to half a level, and float32 is not exact either.
        if original.shape == levels.shape and (np.abs(original - levels * scales) <= 0.51 * scales).all():
            halved = np.divide(original, 2 * scales, out=np.zeros_like(original), where=scales > 0)
            rounded: NDArray[np.int8] = np.rint(halved).clip(-MAX_SEVEN_BIT_LEVEL, MAX_SEVEN_BIT_LEVEL).astype(np.int8)
            return rounded
    raise ValueError(f"the float model has no weights like those of '{tensor.name.decode()}'")


def _read_float_weights(model: Any) -> list[NDArray[np.float32]]:
    weights = (tensor for graph in model.subgraphs for tensor in _find_weights_and_biases(model, graph)[0])
    return [read_array(model, tensor, np.float32) for tensor in weights]


def _find_weights_and_biases(model: Any, graph: Any) -> tuple[list[Any], list[Any]]:
    """Find the constant weights and biases of the graph's convolutions and dense layers, shared ones once."""
    weights: dict[int, Any] = {}
    biases: dict[int, Any] = {}
    for operator in graph.operators:
        code = flatbuffer_utils.get_builtin_code_from_operator_code(model.operatorCodes[operator.opcodeIndex])
        if code in _WEIGHTED and _is_constant(model, graph.tensors[operator.inputs[1]]):
            weights[operator.inputs[1]] = graph.tensors[operator.inputs[1]]
            if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
                biases[operator.inputs[2]] = graph.tensors[operator.inputs[2]]
    return list(weights.values()), list(biases.values())


def _is_constant(model: Any, tensor: Any) -> bool:
    return model.buffers[tensor.buffer].data is not None


def _set_levels(model: Any, tensor: Any, levels: NDArray[Any]) -> None:
    """Give the tensor a new buffer, because tensors with equal levels but other scales may share one."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(levels.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


@contextlib.contextmanager
def _hide_progress_bars() -> Iterator[None]:
    """Hide progress bars, which have no switch, and a warning about memory that is used on purpose."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        yield
