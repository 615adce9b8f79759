"""Candidates for the served model: the settings to quantize a network with, and the converters that do it."""

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from litelens.core.bundle import FLOAT_BITS
from litelens.core.bundle import WeightBits as AnyWeightBits
from litelens.core.native_logs import hide_native_logs
from litelens_client.learning.tflite import (
    channel_scales,
    empty_unused_buffers,
    parse_model,
    read_array,
    write_model,
)

# 'none' does not quantize: the model computes with floats.
Converter = Literal["TFLiteConverter", "litert-quantizer", "none"]
WeightBits = Literal[8, 7]

_WEIGHTED = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
}


@dataclass(frozen=True)
class Candidate:
    """Settings for one model; the ranges of an int8 model's activations come from that many calibration images."""

    converter: Converter
    weight_bits: AnyWeightBits
    calibration_images: int

    def __str__(self) -> str:
        if self.converter == "none":
            return "float32, not quantized"
        return f"{self.converter}, {self.weight_bits}-bit weights, {self.calibration_images:,} calibration images"


# The only candidate that is not quantized.
FLOAT = Candidate("none", FLOAT_BITS, 0)


class CandidateBuilder:
    """Builds candidates from one network, and builds only once what several of them share."""

    def __init__(self, saved_model: Path, calibration: NDArray[np.float32]) -> None:
        """Take calibration inputs, float32 `(n, height, width, 3)`, of which a candidate uses the first ones."""
        self.saved_model = saved_model
        self._calibration = calibration
        self._eight_bit: dict[tuple[Converter, int], bytes] = {}

    def build(self, candidate: Candidate) -> bytes:
        """Build the candidate, a .tflite file. Exceptions of the converters are not caught."""
        if candidate.converter == "none":
            return self._float_model
        model = self._build_eight_bits(candidate.converter, candidate.calibration_images)
        return model if candidate.weight_bits == 8 else reduce_to_seven_bits(model, self._float_model)

    def _build_eight_bits(self, converter: Converter, images: int) -> bytes:
        key = (converter, images)
        if key not in self._eight_bit:
            inputs = self._calibration[:images]
            if converter == "TFLiteConverter":
                self._eight_bit[key] = convert_with_tensorflow(self.saved_model, inputs)
            else:
                self._eight_bit[key] = convert_with_litert_quantizer(self._float_model, inputs)
        return self._eight_bit[key]

    @cached_property
    def _float_model(self) -> bytes:
        return convert_to_float(self.saved_model)


@contextlib.contextmanager
def candidate_builder(network: keras.Model, calibration: NDArray[np.float32]) -> Iterator[CandidateBuilder]:
    """Export the network to a temporary folder and yield a builder for it."""
    signature = keras.InputSpec(shape=(1, *calibration.shape[1:]), dtype="float32", name="image")
    with tempfile.TemporaryDirectory() as folder:
        network.export(folder, format="tf_saved_model", input_signature=[signature], verbose=False)
        yield CandidateBuilder(Path(folder), calibration)


def convert_to_float(saved_model: Path) -> bytes:
    """Convert a saved model into a float32 .tflite file."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    with hide_native_logs():
        return bytes(converter.convert())


def convert_with_tensorflow(saved_model: Path, inputs: NDArray[np.float32]) -> bytes:
    """Convert a saved model into an 8-bit .tflite file with TFLiteConverter; ranges are the extreme values."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = _representative_dataset(inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    with hide_native_logs():
        return bytes(converter.convert())


def convert_with_litert_quantizer(float_model: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Convert a float .tflite file into an 8-bit one with litert-quantizer's recipe static_wi8_ai8.

    Ranges are the extreme values, as with TFLiteConverter. litert-quantizer's default, a moving average over the
    images, would cut off the highest logits, which matter most.
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
        calibrator.calibrate({signature: [{"image": values[np.newaxis]} for values in inputs]}, recipes)
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


def count_weight_bits(model: bytes) -> AnyWeightBits:
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
    return 7 if largest <= 64 else 8


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
            rounded: NDArray[np.int8] = np.rint(halved).clip(-64, 64).astype(np.int8)
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


def _representative_dataset(inputs: NDArray[np.float32]) -> Callable[[], Iterator[list[NDArray[np.float32]]]]:
    return lambda: ([values[np.newaxis]] for values in inputs)
